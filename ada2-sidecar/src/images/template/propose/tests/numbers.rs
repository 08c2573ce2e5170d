//! Seeds, steps, guidance, schedulers and sizes.

use super::*;

/// With the sampler in parts, as FLUX has it.
pub(super) fn in_parts() -> Value {
    changed(&[
        (
            "3",
            node(
                "SamplerCustomAdvanced",
                &json!({"noise": ["25", 0], "guider": ["22", 0], "sampler": ["16", 0],
            "sigmas": ["17", 0], "latent_image": ["5", 0]}),
            ),
        ),
        ("16", node("KSamplerSelect", &json!({"sampler_name": "euler"}))),
        (
            "17",
            node(
                "BasicScheduler",
                &json!({"scheduler": "simple", "steps": 20, "denoise": 1, "model": ["4", 0]}),
            ),
        ),
        ("22", node("BasicGuider", &json!({"model": ["4", 0], "conditioning": ["26", 0]}))),
        ("25", node("RandomNoise", &json!({"noise_seed": 3}))),
        ("26", node("FluxGuidance", &json!({"guidance": 3.5, "conditioning": ["6", 0]}))),
    ])
}

#[test]
fn settings_are_found_on_whatever_node_has_them() {
    let proposal = of(&in_parts());
    for (name, inputs) in [
        ("prompt", "6.text"),
        ("seed", "25.noise_seed"),
        ("steps", "17.steps"),
        ("cfg_scale", "26.guidance"),
        ("scheduler", "16.sampler_name, 17.scheduler"),
        ("width", "5.width"),
        ("model", "4.ckpt_name"),
        ("negative_prompt", ""),
    ] {
        assert_eq!(bound(&proposal, name), inputs, "{name}: {proposal:?}");
    }
    let guided =
        node("CFGGuider", &json!({"cfg": 4, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}));
    let proposal = of(&change(in_parts(), &[("22", guided)]));
    assert_eq!(
        (bound(&proposal, "cfg_scale"), bound(&proposal, "negative_prompt")),
        ("22.cfg".into(), "7.text".into())
    );
}

#[test]
fn a_guidance_of_1_is_fixed_and_needs_no_negative_prompt() {
    let turbo = of(&changed(&[("3.cfg", json!(1.0))]));
    assert_eq!(
        (bound(&turbo, "cfg_scale"), bound(&turbo, "negative_prompt")),
        (String::new(), String::new())
    );
    assert!(notes(&turbo).contains("it is 1, as distilled models need it"), "{turbo:?}");
    assert!(turbo.text.ends_with("\nfixed: {cfg_scale: 1}\n"), "{}", turbo.text);
    let guidance = node("FluxGuidance", &json!({"guidance": 3.5, "conditioning": ["6", 0]}));
    let flux = of(&changed(&[("3.cfg", json!(1)), ("1", guidance), ("3.positive", json!(["1", 0]))]));
    assert_eq!((bound(&flux, "cfg_scale"), flux.text.contains("fixed")), ("1.guidance".into(), false));
}

#[test]
fn values_are_bound_where_they_are_held() {
    let int = |value: u64| node("PrimitiveInt", &json!({"value": value}));
    let held = of(&changed(&[
        ("1", int(7)),
        ("3.seed", json!(["1", 0])),
        ("2", int(30)),
        ("3.steps", json!(["2", 0])),
    ]));
    assert_eq!((bound(&held, "seed"), bound(&held, "steps")), ("1.value".into(), "2.value".into()));
    // One number for two sides would be bound twice.
    let square =
        of(&changed(&[("1", int(512)), ("5.width", json!(["1", 0])), ("5.height", json!(["1", 0]))]));
    assert_eq!((bound(&square, "width"), bound(&square, "height")), ("5.width".into(), "5.height".into()));
    let random = node("SeedGenerator", &json!({"low": 0, "high": 9}));
    let made = of(&changed(&[("1", random), ("3.seed", json!(["1", 0]))]));
    assert_eq!(bound(&made, "seed"), "3.seed", "the link is replaced");
    for proposal in [held, square, made] {
        assert_eq!(proposal.outcome, Ok(Task::Generate), "{proposal:?}");
    }
}

/// A second pass over what the first one makes.
fn two_passes(second: &Value) -> Value {
    let graph = changed(&[
        ("12", plain()["3"].clone()),
        ("12.latent_image", json!(["3", 0])),
        ("8.samples", json!(["12", 0])),
    ]);
    let second = second.as_object().unwrap().iter();
    second.fold(graph, |graph, (field, value)| {
        change(graph, &[(format!("12.{field}").as_str(), value.clone())])
    })
}

#[test]
fn of_several_passes_the_first_counts_where_they_differ() {
    let same = of(&two_passes(&json!({})));
    assert_eq!(
        (bound(&same, "steps"), bound(&same, "seed")),
        ("12.steps, 3.steps".into(), "12.seed, 3.seed".into())
    );
    let hires = of(&two_passes(&json!({"steps": 14, "denoise": 0.5, "sampler_name": "lcm"})));
    assert_eq!(bound(&hires, "steps"), "3.steps");
    assert_eq!(bound(&hires, "scheduler"), "3.sampler_name, 12.scheduler, 3.scheduler");
    assert_eq!(bound(&hires, "seed"), "12.seed, 3.seed");
    assert_eq!(bound(&hires, "strength"), "", "no picture comes in");
    assert!(notes(&hires).contains("steps is not bound to 12.steps: a later pass"), "{hires:?}");
    let unclear = of(&two_passes(&json!({"steps": 14})));
    assert_eq!(bound(&unclear, "steps"), "");
    assert!(notes(&unclear).contains("3.steps have different values"), "{unclear:?}");
    let staged = of(&two_passes(&json!({"start_at_step": 15, "end_at_step": 100})));
    assert_eq!(bound(&staged, "steps"), "");
    assert!(notes(&staged).contains("12 (KSampler) runs a part of the steps"), "{staged:?}");
}

#[test]
fn the_size_is_that_of_the_empty_latent_image_and_what_must_agree() {
    let flux = node("ModelSamplingFlux", &json!({"width": 512, "height": 768, "model": ["4", 0]}));
    let agreeing = of(&changed(&[("1", flux), ("3.model", json!(["1", 0]))]));
    assert_eq!(
        (bound(&agreeing, "width"), bound(&agreeing, "height")),
        ("5.width, 1.width".into(), "5.height, 1.height".into())
    );
    let other = change(
        changed(&[("3.model", json!(["1", 0]))]),
        &[("1", node("ModelSamplingFlux", &json!({"width": 64, "height": 64, "model": ["4", 0]})))],
    );
    assert_eq!(bound(&of(&other), "width"), "5.width");
    let upscaled = of(&changed(&[
        ("12", node("ImageScale", &json!({"width": 2048, "height": 2048, "image": ["8", 0]}))),
        ("9.images", json!(["12", 0])),
    ]));
    assert_eq!(bound(&upscaled, "width"), "5.width");
    assert!(notes(&upscaled).contains("12 (ImageScale) scales"), "{upscaled:?}");
    let measured = of(&change(
        from_picture(),
        &[
            ("12", node("GetImageSize", &json!({"image": ["10", 0]}))),
            ("5.width", json!(["12", 0])),
            ("5.height", json!(["12", 1])),
            ("3.latent_image", json!(["5", 0])),
        ],
    ));
    assert_eq!(bound(&measured, "width"), "");
    assert_eq!(bound(&measured, "strength"), "", "an empty latent image has nothing of the picture");
    assert!(notes(&measured).contains("5 (EmptyLatentImage) gets them from the picture"), "{measured:?}");
}

#[test]
fn the_model_is_bound_if_there_is_one_and_the_batch_if_it_is_not_1() {
    let two =
        of(&changed(&[("1", node("UNETLoader", &json!({"unet_name": "x"}))), ("3.model", json!(["1", 0]))]));
    assert_eq!(bound(&two, "model"), "");
    assert!(notes(&two).contains("several are loaded (4.ckpt_name, 1.unet_name)"), "{two:?}");
    let batch = of(&changed(&[("5.batch_size", json!(4))]));
    assert_eq!((bound(&batch, "n"), batch.outcome), ("5.batch_size".into(), Ok(Task::Generate)));
}
