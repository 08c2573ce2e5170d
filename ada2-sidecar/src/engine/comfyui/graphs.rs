//! The built-in graphs: templates like a user's own, for each kind of models.

use std::sync::LazyLock;

use super::GRAPH_FORMAT;
use crate::{engine::read_graphs, images::graph_set::GraphCatalog};

static CATALOG: LazyLock<GraphCatalog> =
    LazyLock::new(|| read_graphs(GRAPH_FORMAT, include!(concat!(env!("OUT_DIR"), "/comfyui_graphs.rs"))));

pub(super) fn catalog() -> &'static GraphCatalog {
    &CATALOG
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        engine::comfyui::samplers,
        images::{Task, models::classify_checkpoint, template::Binding as B},
    };

    #[test]
    fn all_files_are_read_and_every_graph_takes_what_its_task_needs() {
        let files: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/comfyui_graphs.rs"));
        let catalog = GraphCatalog::read(GRAPH_FORMAT, files).unwrap_or_else(|errors| panic!("{errors:#?}"));
        for set in catalog.sets() {
            let name = &set.family.name;
            assert_eq!(set.family.models.is_some(), set.family.files.is_empty(), "{name}: models or files");
            for (task, template) in &set.templates {
                assert_eq!(template.check_task(*task), Ok(()), "{name} {task:?}");
                assert!(template.binds(B::Model), "{name} {task:?}");
                let takes_size = template.takes_size() || template.rules.size.is_some();
                assert!(takes_size, "{name} {task:?}: a client may always send a size");
                assert_eq!(template.image_counts().1 > 0, *task != Task::Generate, "{name} {task:?}");
                assert_eq!(template.check_copies(), [], "{name} {task:?}");
            }
        }
    }

    #[test]
    fn a_broken_chain_is_found() {
        let graph = include_str!("graphs/flux2-dev.json");
        let bindings = include_str!("graphs/flux2-dev.yaml");
        let faults = |from: &str, to: &str| {
            assert!(bindings.contains(from), "{from}");
            let files = [("f.json", graph), ("f.yaml", &bindings.replace(from, to))];
            match GraphCatalog::read(GRAPH_FORMAT, &files) {
                Ok(catalog) => catalog.sets().next().unwrap().templates[&Task::Edit].check_copies(),
                Err(errors) => errors,
            }
        };
        assert_eq!(faults("max: 10", "max: 9"), []);
        let image = faults("positive.conditioning: \"0\"", "positive.conditioning: \"1\"");
        assert!(!image.is_empty(), "the guidance of no image reaches the sampler");
        let lora = faults("lora.model: \"0\"", "lora.model: \"1\"");
        let expected = "lora_2: lora__2.lora_name has no effect";
        assert!(lora.iter().any(|fault| fault.0.starts_with(expected)), "{lora:?}");
    }

    #[test]
    fn checkpoints_find_the_graphs_of_their_family() {
        for (file, expected) in [
            ("sd_xl_base_1.0", Some("sdxl")),
            ("v1-5-pruned-emaonly", Some("sd-1")),
            ("flux1-dev-fp8", Some("flux1-dev-checkpoint")),
            ("flux1-schnell-fp8", Some("flux1-schnell-checkpoint")),
            ("sd3.5_large_fp8_scaled", Some("sd-3")),
            ("sd3.5_large_turbo", Some("sd-3-turbo")),
            // These need graphs of their own, or text encoders and VAE in other files.
            ("flux1-fill-dev", None),
            ("flux1-dev-kontext_fp8_scaled", None),
            ("flux2_dev_fp8mixed", None),
            ("z_image_turbo_bf16", None),
            ("ltx-2.3-22b-dev-fp8", None),
        ] {
            let kind = classify_checkpoint(None, file);
            let found = catalog().find(&kind, None, file).map(|set| set.family.name.as_str());
            assert_eq!(found, expected, "{file}: {kind}");
        }
    }

    #[test]
    fn names_are_unique_and_schedulers_are_those_of_clients() {
        let names: BTreeSet<_> = catalog().sets().map(|set| &set.family.name).collect();
        assert_eq!(names.len(), catalog().sets().count());
        for set in catalog().sets() {
            for scheduler in
                set.templates.values().filter_map(|template| template.rules.schedulers.as_ref()).flatten()
            {
                assert!(samplers::NAMES.contains(&scheduler.as_str()), "{}: {scheduler}", set.family.name);
            }
        }
    }
}
