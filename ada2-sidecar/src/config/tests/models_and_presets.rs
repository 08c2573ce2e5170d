//! What is declared of models, and the presets.

use super::*;

#[test]
fn models_are_declared_and_every_problem_is_named() {
    let file = "models: {dreamshaper_8: {base: sd-1}, 'My XL.ckpt': {base: SDXL, variant: inpaint}}";
    let config = read_with(&[], &[], Some(file)).unwrap().config;
    let models = &config.models;
    let declared: Vec<_> =
        models.iter().map(|one| (one.model.as_str(), one.family.name, one.variant)).collect();
    assert_eq!(
        declared,
        [
            ("My XL.ckpt", "sdxl", Some(crate::images::models::ModelVariant::Inpaint)),
            ("dreamshaper_8", "sd-1", None)
        ]
    );
    let variable = [("ADA2_MODELS", "{a: {base: flux}}")];
    assert_eq!(read_with(&[], &variable, None).unwrap().config.models[0].family.name, "flux");
    let lines = problems(
        &[],
        &[],
        Some(
            "models: {a: {base: sdxk}, b: {bace: sdxl}, c: 7, d: {base: sdxl, variant: painting}, e: {base: 1.5}}",
        ),
    );
    for expected in [
        "models: a: base: unknown family \"sdxk\"; did you mean \"sdxl\"? The families are sd-1, sdxl, sd-2",
        "models: b: bace: unknown key; did you mean \"base\"?",
        "models: b: base: expected one of sd-1, sdxl",
        "models: c: expected a map of settings, like {base: sdxl}",
        "models: d: variant: expected one of main, inpaint, refiner, edit, other",
        "models: e: base: unknown family \"1.5\"",
    ] {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected}: {lines:#?}");
    }
    assert!(problems(&[], &[], Some("models: [a]"))[0].contains("a map of names"));
}

#[test]
fn presets_take_numbers_as_requests_do_and_nothing_is_reported_twice() {
    let file = "presets: {a: {steps: 8.0, cfg_scale: 0}, b: {steps: 8, cfg_scale: 0.0}}";
    for preset in read_with(&[], &[], Some(file)).unwrap().config.presets {
        assert_eq!((preset.steps, preset.cfg_scale), (Some(8), Some(1.0)));
    }
    for (file, expected) in [
        ("presets: {a: {steps: 8.5}}", "a whole number from 1 to 150"),
        ("presets: {a: {cfg_scale: 0.5}}", "0 (none) or a number from 1 to 30"),
        ("presets: {a: {template: {}}}", "template: expected a file, or {generate"),
        ("models: {Mine: {base: sdxl}, mine: {base: sd-1}}", "duplicates \"Mine\""),
    ] {
        let found = problems(&[], &[], Some(file));
        assert!(found.len() == 1 && found[0].contains(expected), "{file}: {found:?}");
    }
}

#[test]
fn a_misspelled_engine_is_the_only_problem_of_presets_that_fit_the_intended_one() {
    let file =
        "engine: comfyyui\npresets: {a: {scheduler: sa_solver, template: /no/such/graph.json, steps: 8}}";
    let found = problems(&[], &[], Some(file));
    assert!(found.len() == 1 && found[0].contains("engine"), "{found:?}");
    let wrong = "engine: comfyyui\npresets: {a: {scheduler: [], steps: 0}}";
    assert_eq!(problems(&[], &[], Some(wrong)).len(), 3, "what no engine takes");
}

#[test]
fn presets_are_read_and_every_problem_in_them_is_named() {
    let file = "presets: {fast: {model: k, steps: 4, cfg_scale: 1.5, scheduler: lcm, size: 512x512}, plain: {model: k}}";
    let presets = read_with(&[], &[], Some(file)).unwrap().config.presets;
    assert_eq!(presets.iter().map(|preset| preset.name.as_str()).collect::<Vec<_>>(), ["fast", "plain"]);
    assert_eq!((presets[0].steps, presets[0].scheduler.as_deref()), (Some(4), Some("lcm")));
    let broken =
        "presets: {a: {modle: k, steps: 0, size: 5x5, scheduler: magic}, b: 7, c: {template: no.json}}";
    let lines = problems(&[], &[], Some(broken)).join("\n");
    for expected in [
        "presets: a: modle: unknown key; did you mean \"model\"?",
        "presets: a: steps: expected a whole number from 1 to 150",
        "presets: a: size: expected WIDTHxHEIGHT",
        "presets: a: scheduler: expected one of ddim",
        "presets: b: expected a map of settings",
        "no.json",
    ] {
        assert!(lines.contains(expected), "{expected}:\n{lines}");
    }
    assert!(problems(&[], &[], Some("presets: [a]"))[0].contains("a map of names"));
}
