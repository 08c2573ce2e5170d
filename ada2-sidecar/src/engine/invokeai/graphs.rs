//! The built-in graphs: templates like a user's own, for each kind of models.

use std::sync::LazyLock;

use super::GRAPH_FORMAT;
use crate::{engine::read_graphs, images::graph_set::GraphCatalog};

static CATALOG: LazyLock<GraphCatalog> =
    LazyLock::new(|| read_graphs(GRAPH_FORMAT, include!(concat!(env!("OUT_DIR"), "/invokeai_graphs.rs"))));

pub(super) fn catalog() -> &'static GraphCatalog {
    &CATALOG
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        engine::invokeai::models::{InstalledModels, ListedModel},
        images::{Task, models::Runner, template::Binding as B},
    };

    #[test]
    fn all_files_are_read_and_every_graph_takes_what_its_task_needs() {
        let files: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/invokeai_graphs.rs"));
        let catalog = GraphCatalog::read(GRAPH_FORMAT, files).unwrap_or_else(|errors| panic!("{errors:#?}"));
        for set in catalog.sets() {
            let name = &set.family.name;
            assert!(set.family.models.is_some() == set.family.files.is_empty(), "{name}: models or files");
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
        let graph = include_str!("graphs/sdxl.json");
        let bindings = include_str!("graphs/sdxl.yaml");
        let faults = |from: &str, to: &str| {
            assert!(bindings.contains(from), "{from}");
            let files = [("f.json", graph), ("f.yaml", &bindings.replace(from, to))];
            let catalog = GraphCatalog::read(GRAPH_FORMAT, &files).unwrap();
            let set = catalog.sets().next().unwrap().clone();
            set.templates[&Task::Generate].check_copies()
        };
        assert_eq!(faults("max: 8", "max: 7"), []);
        let clip = faults(", lora.clip2: clip2", "");
        assert!(clip.iter().any(|fault| fault.0.ends_with("leaves out lora_2")), "{clip:?}");
        let all = faults("lora.unet: unet, lora.clip: clip, lora.clip2: clip2", "lora.unet: gone");
        assert!(all.iter().any(|fault| fault.0.starts_with("lora_2: ")), "{all:?}");
    }

    fn main(base: &str, variant: &str, format: &str) -> Value {
        json!({"key": "main", "hash": "h", "name": "Dream", "base": base, "type": "main", "variant": variant,
            "format": format})
    }

    fn entries(listed: Vec<Value>) -> Vec<ListedModel> {
        serde_json::from_value(Value::Array(listed)).unwrap()
    }

    /// `pipeline of BASE VARIANT`, `TYPE BASE VARIANT` or `TYPE BASE`.
    fn other(text: &str) -> Value {
        let words: Vec<_> = text.split(' ').collect();
        let (model_type, base) = (words[0], words[1]);
        let format =
            if model_type == "main" { "diffusers" } else { words.get(3).copied().unwrap_or("checkpoint") };
        json!({"key": text, "hash": "h", "name": text, "base": base, "type": model_type, "format": format,
            "variant": words.get(2).copied()})
    }

    /// The other models that the main one gets, as `input=key`, or what it lacks.
    fn completed(main: Value, others: &[&str]) -> Result<Vec<String>, String> {
        let listed: Vec<_> = others.iter().map(|text| other(text)).chain([main]).collect();
        let models = InstalledModels::read(&entries(listed), catalog());
        let model = models.main.iter().find(|model| model.key == "main").unwrap();
        match &model.runner {
            Runner::Graphs { inputs, .. } => {
                let given = inputs.iter().filter(|(input, _)| input.node == "loader");
                Ok(given
                    .map(|(input, model)| format!("{}={}", input.field, model["key"].as_str().unwrap()))
                    .collect())
            }
            Runner::Incomplete { lacks, .. } => Err(lacks.clone()),
            other => Err(format!("{other:?}")),
        }
    }

    /// The main model, its format, the other models; what each input of the loader gets.
    const COMPLETED: &[(&str, &str, &[&str], &[&str])] = &[
        ("z-image turbo", "diffusers", &[], &["qwen3_source_model=main"]),
        ("z-image turbo", "sdnq_quantized", &[], &[]),
        (
            "z-image turbo",
            "gguf_quantized",
            &["main z-image zbase", "main z-image turbo"],
            &["qwen3_source_model=main z-image turbo"],
        ),
        ("z-image turbo", "checkpoint", &["main z-image zbase"], &["qwen3_source_model=main z-image zbase"]),
        (
            "z-image zbase",
            "checkpoint",
            &["qwen3_encoder any qwen3_8b", "qwen3_encoder any qwen3_4b", "vae flux2", "vae flux"],
            &["qwen3_encoder_model=qwen3_encoder any qwen3_4b", "vae_model=vae flux"],
        ),
        ("flux2 klein_4b", "diffusers", &[], &[]),
        (
            "flux2 klein_4b",
            "gguf_quantized",
            &["main flux2 dev", "main flux2 klein_9b", "main flux2 klein_4b_base"],
            &["qwen3_source_model=main flux2 klein_4b_base"],
        ),
        (
            "flux2 klein_9b_base",
            "checkpoint",
            &["main flux2 klein_4b", "qwen3_encoder any qwen3_8b", "vae flux2"],
            &["qwen3_encoder_model=qwen3_encoder any qwen3_8b", "vae_model=vae flux2"],
        ),
        ("flux2 dev", "gguf_quantized", &["main flux2 dev"], &["mistral_source_model=main flux2 dev"]),
        (
            "flux2 dev",
            "gguf_quantized",
            &["mistral_encoder any", "vae flux2"],
            &["mistral_encoder_model=mistral_encoder any", "vae_model=vae flux2"],
        ),
        ("krea-2 krea2_turbo", "diffusers", &[], &[]),
        (
            "krea-2 krea2_base",
            "checkpoint",
            &["qwen3_vl_encoder any", "vae anima"],
            &["qwen3_vl_encoder_model=qwen3_vl_encoder any", "vae_model=vae anima"],
        ),
        ("qwen-image generate", "diffusers", &[], &[]),
        (
            "qwen-image edit",
            "gguf_quantized",
            &["main qwen-image generate", "main qwen-image edit"],
            &["component_source=main qwen-image edit"],
        ),
        (
            "qwen-image generate",
            "gguf_quantized",
            &["qwen_vl_encoder any x", "qwen_vl_encoder any x qwen_vl_encoder", "vae qwen-image"],
            &["qwen_vl_encoder_model=qwen_vl_encoder any x qwen_vl_encoder", "vae_model=vae qwen-image"],
        ),
        (
            "flux dev",
            "checkpoint",
            &["t5_encoder any", "clip_embed any gigantic", "clip_embed any large", "vae flux"],
            &[
                "clip_embed_model=clip_embed any large",
                "t5_encoder_model=t5_encoder any",
                "vae_model=vae flux",
            ],
        ),
        ("flux schnell", "sdnq_quantized", &[], &[]),
        ("sd-3 x", "diffusers", &[], &[]),
        ("cogview4 x", "diffusers", &[], &[]),
        (
            "anima x",
            "checkpoint",
            &["qwen3_encoder any qwen3_06b", "vae flux", "vae qwen-image"],
            &["qwen3_encoder_model=qwen3_encoder any qwen3_06b", "vae_model=vae qwen-image"],
        ),
        (
            "anima x",
            "checkpoint",
            &["qwen3_encoder any qwen3_06b", "vae flux"],
            &["qwen3_encoder_model=qwen3_encoder any qwen3_06b", "vae_model=vae flux"],
        ),
        ("ernie-image x", "diffusers", &[], &[]),
        ("ideogram-4 x", "diffusers", &[], &[]),
    ];

    #[test]
    fn models_are_completed_as_the_web_page_does() {
        for (model, format, others, expected) in COMPLETED {
            let (base, variant) = model.split_once(' ').unwrap();
            let expected = expected.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(
                completed(main(base, variant, format), others),
                Ok(expected),
                "{model} {format} {others:?}"
            );
        }
    }

    #[test]
    fn a_model_says_what_it_lacks() {
        let cases: &[(&str, &str, &[&str], &str)] = &[
            (
                "z-image turbo",
                "checkpoint",
                &[],
                "a model of type qwen3_encoder, variant qwen3_4b and a model of type vae, base flux",
            ),
            (
                "z-image turbo",
                "checkpoint",
                &["qwen3_encoder any qwen3_4b"],
                "a model of type vae, base flux",
            ),
            (
                "flux2 klein_9b",
                "checkpoint",
                &["main flux2 klein_4b", "vae flux2"],
                "a model of type qwen3_encoder, variant qwen3_8b",
            ),
            ("flux2 dev", "checkpoint", &["mistral_encoder any"], "a model of type vae, base flux2"),
            (
                "krea-2 krea2_turbo",
                "checkpoint",
                &["qwen3_vl_encoder any"],
                "a model of type vae, base qwen-image or anima",
            ),
            ("qwen-image edit", "checkpoint", &["vae qwen-image"], "a model of type qwen_vl_encoder"),
            (
                "flux dev_fill",
                "checkpoint",
                &["clip_embed any large", "vae flux"],
                "a model of type t5_encoder",
            ),
            ("flux dev", "diffusers", &[], "a graph for its format"),
            ("sd-3 x", "checkpoint", &[], "a graph for its format"),
            ("anima x", "checkpoint", &["vae flux"], "a model of type qwen3_encoder, variant qwen3_06b"),
        ];
        for (model, format, others, expected) in cases {
            let (base, variant) = model.split_once(' ').unwrap();
            let lacks = completed(main(base, variant, format), others);
            assert_eq!(lacks, Err((*expected).to_owned()), "{model} {format} {others:?}");
        }
    }

    #[test]
    fn each_variant_has_its_graphs() {
        let cases = [
            ("sd-1", "normal", "Dream", "sd-1"),
            ("z-image", "turbo", "Dream", "z-image-turbo"),
            ("z-image", "zbase", "Dream", "z-image"),
            ("flux2", "klein_4b", "Dream", "flux2-klein"),
            ("flux2", "klein_9b_base", "Dream", "flux2-klein-base"),
            ("flux2", "dev", "Dream", "flux2-dev"),
            ("krea-2", "krea2_turbo", "Dream", "krea-2-turbo"),
            ("krea-2", "krea2_base", "Dream", "krea-2"),
            ("qwen-image", "generate", "Dream", "qwen-image"),
            ("qwen-image", "edit", "Dream", "qwen-image-edit"),
            ("flux", "dev", "Dream", "flux"),
            ("flux", "schnell", "Dream", "flux-schnell"),
            ("flux", "dev_fill", "Dream", "flux-fill"),
            ("flux", "dev", "FLUX.1 Kontext dev", "flux-kontext"),
        ];
        for (base, variant, name, expected) in cases {
            let mut listed = main(base, variant, "checkpoint");
            listed["name"] = json!(name);
            let models = InstalledModels::read(&entries(vec![listed]), Box::leak(Box::default()));
            let kind = &models.main[0].kind;
            let found = catalog().find(kind, Some(variant), name).map(|set| set.family.name.as_str());
            assert_eq!(found, Some(expected), "{base} {variant} {name}");
        }
    }

    #[test]
    fn strength_does_nothing_to_references() {
        for set in catalog().sets() {
            for (task, template) in &set.templates {
                let name = &set.family.name;
                let is_reference =
                    template.takes_references() || name == "flux-fill" || *task == Task::Generate;
                assert_eq!(template.binds(B::Strength), !is_reference, "{name} {task:?}");
            }
        }
    }
}
