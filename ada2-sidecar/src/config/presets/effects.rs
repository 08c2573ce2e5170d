//! Settings of a preset that none of its graphs takes.

use super::is_called;
use crate::images::{
    Task,
    graph_set::GraphCatalog,
    models::Preset,
    template::{Binding, Template},
};

/// A graph that a preset can run, and its task.
type PresetGraph<'a> = (Task, &'a Template);

/// What has no effect, or is not accepted, in each graph that the preset can run. `catalog` has the engine's built-in ones.
pub(super) fn faults(preset: &Preset, catalog: Option<&GraphCatalog>) -> Vec<String> {
    let Some(graphs) = graphs(preset, catalog) else { return Vec::new() };
    let unbound = unbound(preset, &graphs);
    let others = [scheduler(preset, &graphs), size(preset, &graphs), loras(preset, &graphs)];
    unbound.into_iter().chain(others.into_iter().flatten()).collect()
}

/// The graphs. None: those of a model, whose kind is known when the engine lists it.
fn graphs<'a>(preset: &'a Preset, catalog: Option<&'a GraphCatalog>) -> Option<Vec<PresetGraph<'a>>> {
    let own = preset.templates.iter().map(|(task, template)| (*task, template.as_ref()));
    let names_no_model = preset.model.is_none() && preset.family.is_none();
    if preset.templates.contains_key(&Task::Generate) || (names_no_model && !preset.templates.is_empty()) {
        return Some(own.collect());
    }
    let family = preset.family.as_deref()?;
    let sets = catalog?.sets().filter(|set| is_called(&set.family, family));
    let of_family = sets
        .flat_map(|set| &set.templates)
        .map(|(task, template)| (*task, template.as_ref()))
        // Templates replace the built-in graphs for edits, too.
        .filter(|(task, _)| preset.templates.is_empty() || *task == Task::Generate);
    Some(own.chain(of_family).collect())
}

/// Settings that no graph binds.
fn unbound(preset: &Preset, graphs: &[PresetGraph<'_>]) -> Vec<String> {
    let settings = [
        ("model", preset.model.is_some(), Binding::Model, "model"),
        ("steps", preset.steps.is_some(), Binding::Steps, "steps"),
        ("cfg_scale", preset.cfg_scale.is_some(), Binding::CfgScale, "cfg_scale"),
        ("scheduler", preset.scheduler.is_some(), Binding::Scheduler, "scheduler"),
        ("size", preset.size.is_some(), Binding::Width, "width and height"),
    ];
    let is_lost = |key: &str, binding| {
        !graphs.iter().any(|graph| takes(*graph, binding) || is_fixed_as_set(graph.1, preset, key))
    };
    let lost = settings.into_iter().filter(|(key, is_set, binding, _)| *is_set && is_lost(key, *binding));
    lost.map(|(key, _, _, inputs)| match preset.family.as_deref().filter(|_| preset.templates.is_empty()) {
        None => format!(
            "{key}: has no effect: no template of this preset binds {inputs}; add a binding, or remove {key}"
        ),
        Some(family) => match graphs.iter().find_map(|(_, template)| fixed(template, key)) {
            Some(fixed) => format!("{key}: has no effect: {family} runs with {fixed}; remove it"),
            None => format!("{key}: has no effect: {family} takes none; remove it"),
        },
    })
    .collect()
}

/// Whether a graph takes the preset's value. An edit has the size of its input image.
fn takes((task, template): PresetGraph<'_>, binding: Binding) -> bool {
    template.binds(binding) && (binding != Binding::Width || task == Task::Generate)
}

/// The value that the graph always has.
fn fixed(template: &Template, key: &str) -> Option<f64> {
    match key {
        "steps" => template.rules.fixed_steps.map(f64::from),
        "cfg_scale" => template.rules.fixed_cfg_scale,
        _ => None,
    }
}

/// Whether the preset says what the graph does anyway.
fn is_fixed_as_set(template: &Template, preset: &Preset, key: &str) -> bool {
    let set = match key {
        "steps" => preset.steps.map(f64::from),
        "cfg_scale" => preset.cfg_scale,
        _ => None,
    };
    set.is_some() && set == fixed(template, key)
}

/// A scheduler that no graph accepts.
fn scheduler(preset: &Preset, graphs: &[PresetGraph<'_>]) -> Option<String> {
    let scheduler = preset.scheduler.as_ref()?;
    let taking = graphs.iter().filter(|graph| takes(**graph, Binding::Scheduler));
    // Without a list a graph takes all of the engine's.
    let lists: Option<Vec<_>> = taking.map(|(_, template)| template.rules.schedulers.as_ref()).collect();
    let lists = lists?;
    let expected = lists.first().filter(|_| !lists.iter().any(|list| list.contains(scheduler)))?;
    Some(format!("scheduler: expected one of {}: its graphs take no other", expected.join(", ")))
}

/// A size that no graph can make.
fn size(preset: &Preset, graphs: &[PresetGraph<'_>]) -> Option<String> {
    let size = preset.size?;
    let taking = graphs.iter().filter(|graph| takes(**graph, Binding::Width));
    let multiples: Vec<_> = taking.map(|(_, template)| template.rules.multiple).collect();
    let fits = |multiple: &u32| size.width.is_multiple_of(*multiple) && size.height.is_multiple_of(*multiple);
    let expected = multiples.iter().min().filter(|_| !multiples.iter().any(fits))?;
    Some(format!("size: expected WIDTHxHEIGHT, multiples of {expected}: its graphs make no other"))
}

/// LoRAs that no graph has room for.
fn loras(preset: &Preset, graphs: &[PresetGraph<'_>]) -> Option<String> {
    let most = graphs.iter().map(|(_, template)| usize::from(template.max_loras())).max()?;
    match preset.loras.len() {
        0 => None,
        _ if most == 0 => Some("loras: has no effect: its graphs take none; remove it".to_owned()),
        count => (count > most).then(|| format!("loras: expected at most {most}: its graphs take no more")),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use wire::openai::images::ImageSize;

    use super::*;
    use crate::{config::EngineKind, engine::comfyui, images::models::LoraChoice};

    fn preset(change: impl FnOnce(&mut Preset)) -> Preset {
        let mut preset = Preset::default();
        change(&mut preset);
        preset
    }

    fn some_loras(count: usize) -> Vec<LoraChoice> {
        vec![LoraChoice { name: "style".to_owned(), weight: 1.0 }; count]
    }

    #[test]
    fn a_familys_preset_sets_only_what_one_of_its_graphs_takes() {
        type Change = fn(&mut Preset);
        let cases: &[(&str, Change, &[&str])] = &[
            ("z-image-turbo", |_| {}, &[]),
            (
                "z-image-turbo",
                |preset| preset.cfg_scale = Some(5.0),
                &["cfg_scale: has no effect: z-image-turbo runs with 1; remove it"],
            ),
            ("z-image-turbo", |preset| preset.cfg_scale = Some(1.0), &[]),
            ("z-image", |preset| preset.cfg_scale = Some(5.0), &[]),
            (
                "flux1-kontext",
                |preset| preset.size = Some(ImageSize::new(1024, 1024)),
                &["size: has no effect: flux1-kontext takes none; remove it"],
            ),
            (
                "z-image-turbo",
                |preset| preset.size = Some(ImageSize::new(1032, 1024)),
                &["size: expected WIDTHxHEIGHT, multiples of 16: its graphs make no other"],
            ),
            ("z-image-turbo", |preset| preset.size = Some(ImageSize::new(1040, 1024)), &[]),
            (
                "z-image-turbo",
                |preset| preset.scheduler = Some("ddim".to_owned()),
                &["scheduler: expected one of euler, "],
            ),
            ("z-image-turbo", |preset| preset.scheduler = Some("euler".to_owned()), &[]),
            ("sd-1", |preset| preset.scheduler = Some("ddim".to_owned()), &[]),
            (
                "z-image-turbo",
                |preset| preset.loras = some_loras(9),
                &["loras: expected at most 8: its graphs take no more"],
            ),
            ("z-image-turbo", |preset| preset.loras = some_loras(8), &[]),
        ];
        for (family, change, expected) in cases {
            let preset = preset(|preset| {
                preset.family = Some((*family).to_owned());
                change(preset);
            });
            let found = faults(&preset, EngineKind::ComfyUi.graphs());
            let is_expected = found.len() == expected.len()
                && found.iter().zip(*expected).all(|(found, expected)| found.starts_with(expected));
            assert!(is_expected, "{family}: {found:?} instead of {expected:?}");
            assert_eq!(faults(&preset, None), [""; 0], "without an engine nothing is known");
        }
    }

    #[test]
    fn a_templates_rules_hold_for_its_preset() {
        let graph = r#"{
            "size": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
            "out": {"class_type": "KSampler", "inputs": {"latent": ["size", 0], "prompt": "", "seed": 0, "sampler_name": "euler"}}}"#;
        let bindings = "output: out\nbindings: {prompt: [out.prompt], seed: [out.seed], width: [size.width], height: \
                        [size.height], scheduler: [out.sampler_name]}\nmultiple: 32\nschedulers: [euler, heun]";
        let template = Arc::new(Template::read(comfyui::GRAPH_FORMAT, graph, bindings).unwrap());
        let with = |change: fn(&mut Preset)| {
            let preset = preset(|preset| {
                preset.templates = BTreeMap::from([(Task::Generate, template.clone())]);
                change(preset);
            });
            faults(&preset, EngineKind::ComfyUi.graphs())
        };
        assert_eq!(with(|preset| preset.size = Some(ImageSize::new(96, 64))), [""; 0]);
        assert_eq!(
            with(|preset| preset.size = Some(ImageSize::new(96, 80))),
            ["size: expected WIDTHxHEIGHT, multiples of 32: its graphs make no other"]
        );
        assert_eq!(
            with(|preset| preset.scheduler = Some("ddim".to_owned())),
            ["scheduler: expected one of euler, heun: its graphs take no other"]
        );
        assert_eq!(with(|preset| preset.scheduler = Some("heun".to_owned())), [""; 0]);
        assert_eq!(
            with(|preset| preset.loras = some_loras(1)),
            ["loras: has no effect: its graphs take none; remove it"]
        );
        let unbound = with(|preset| preset.cfg_scale = Some(5.0));
        assert!(
            unbound[0].starts_with("cfg_scale: has no effect: no template of this preset binds"),
            "{unbound:?}"
        );
    }
}
