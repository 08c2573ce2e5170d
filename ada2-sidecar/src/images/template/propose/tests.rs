//! What is bound in small workflows, and what is not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    engine::{comfyui, invokeai},
    images::template::Binding,
};

fn node(class: &str, inputs: &Value) -> Value {
    json!({"class_type": class, "inputs": inputs})
}

/// Text to image with a KSampler.
fn plain() -> Value {
    json!({
        "3": node("KSampler", &json!({"seed": 5, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "normal",
            "denoise": 1, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]})),
        "4": node("CheckpointLoaderSimple", &json!({"ckpt_name": "sd.safetensors"})),
        "5": node("EmptyLatentImage", &json!({"width": 512, "height": 768, "batch_size": 1})),
        "6": node("CLIPTextEncode", &json!({"text": "a cat", "clip": ["4", 1]})),
        "7": node("CLIPTextEncode", &json!({"text": "blurry", "clip": ["4", 1]})),
        "8": node("VAEDecode", &json!({"samples": ["3", 0], "vae": ["4", 2]})),
        "9": node("SaveImage", &json!({"filename_prefix": "x", "images": ["8", 0]}))})
}

/// The same from a picture.
fn from_picture() -> Value {
    changed(&[
        ("10", node("LoadImage", &json!({"image": "a.png"}))),
        ("11", node("VAEEncode", &json!({"pixels": ["10", 0], "vae": ["4", 2]}))),
        ("3.latent_image", json!(["11", 0])),
        ("3.denoise", json!(0.6)),
    ])
}

/// [`plain`] with nodes and inputs in the place of others; null removes a node.
fn changed(changes: &[(&str, Value)]) -> Value {
    change(plain(), changes)
}

fn change(mut graph: Value, changes: &[(&str, Value)]) -> Value {
    for (at, value) in changes {
        match at.split_once('.') {
            Some((node, field)) => graph[node]["inputs"][field] = value.clone(),
            None if value.is_null() => drop(graph.as_object_mut().unwrap().remove(*at)),
            None => graph[*at] = value.clone(),
        }
    }
    graph
}

fn of(graph: &Value) -> Proposal {
    propose(comfyui::GRAPH_FORMAT, &graph.to_string())
}

/// The inputs of a line of the file, as they stand there.
fn bound(proposal: &Proposal, name: &str) -> String {
    let start = format!("  {name}: [");
    let line = proposal.text.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix(']'));
    line.unwrap_or_default().replace('"', "")
}

fn output(proposal: &Proposal) -> String {
    let line = proposal.text.lines().find_map(|line| line.strip_prefix("output: "));
    line.unwrap_or_default().replace('"', "")
}

fn notes(proposal: &Proposal) -> String {
    proposal.notes.join("\n")
}

fn reasons(proposal: &Proposal) -> String {
    proposal.outcome.clone().unwrap_err().join("\n")
}

#[test]
fn a_whole_file() {
    let mut graph = from_picture();
    graph["6"]["_meta"] = json!({"title": "What to\npaint"});
    let proposal = of(&graph);
    assert_eq!(
        proposal.text,
        r#"# Task: edit. It takes a picture and no mask.
# The result is the picture of 9 (SaveImage): no other node saves one.
output: "9"
bindings:
  # prompt: the text of 6 (CLIPTextEncode "What to\npaint"), the positive conditioning nearest to the output
  prompt: ["6.text"]
  # negative_prompt: the text of 7 (CLIPTextEncode), the negative conditioning nearest to the output
  negative_prompt: ["7.text"]
  # seed: every seed that the output depends on, of 3 (KSampler)
  seed: ["3.seed"]
  # steps: the steps of 3 (KSampler)
  steps: ["3.steps"]
  # cfg_scale: the guidance of 3 (KSampler)
  cfg_scale: ["3.cfg"]
  # scheduler: the sampler and schedule of 3 (KSampler)
  scheduler: ["3.sampler_name", "3.scheduler"]
  # image: the picture of 10 (LoadImage)
  image: ["10.image"]
  # strength: 3 (KSampler) starts from the picture
  strength: ["3.denoise"]
  # model: of 4 (CheckpointLoaderSimple), the only loader
  model: ["4.ckpt_name"]
"#
    );
    assert_eq!(proposal.outcome, Ok(Task::Edit));
    assert_eq!(
        proposal.notes,
        [
            "width and height are not bound: no empty latent image has a size of its own; add `size: ignore` for clients that \
          always send a size"
        ]
    );
}

#[test]
fn the_task_follows_from_what_is_taken() {
    assert_eq!(of(&plain()).outcome, Ok(Task::Generate));
    assert_eq!(of(&from_picture()).outcome, Ok(Task::Edit));
    assert_eq!(of(&inpaint()).outcome, Ok(Task::Inpaint));
}

#[test]
fn the_output_is_what_saves_the_last_picture() {
    let save = |from: &str| node("SaveImage", &json!({"images": [from, 0]}));
    let show = |from: &str| node("PreviewImage", &json!({"images": [from, 0]}));
    for (changes, expected, reason) in [
        (vec![], "9", "no other node saves one"),
        (vec![("1", show("8"))], "9", "it saves, the others only show"),
        (vec![("9", show("8"))], "9", "no other node saves one"),
        (vec![("9", node("Image Save", &json!({"images": ["8", 0]})))], "9", "no other node saves one"),
        (vec![("9", node("Sender", &json!({"image": ["8", 0]})))], "9", "no other node saves one"),
        (
            vec![("9", node("All in one", &json!({"image_output": "Save", "pipe": ["8", 0]})))],
            "9",
            "no other node",
        ),
        (
            vec![("12", node("Sharpen", &json!({"image": ["8", 0]}))), ("13", save("12"))],
            "13",
            "the last step, which depends on most nodes",
        ),
        (
            vec![("1", node("LoadImage", &json!({"image": "x"}))), ("2", save("1"))],
            "9",
            "the only one that comes from a seed",
        ),
        (vec![("12", save("8"))], "9", "the first of several that are alike"),
    ] {
        let proposal = of(&changed(&changes));
        assert_eq!(output(&proposal), expected, "{changes:?}");
        assert!(proposal.text.contains(reason), "{reason}: {}", proposal.text);
        assert_eq!(proposal.outcome, Ok(Task::Generate), "{changes:?}");
    }
    let several = of(&changed(&[("1", show("8"))]));
    assert!(notes(&several).contains("not part of the answer: 1 (PreviewImage)"), "{several:?}");
}

#[test]
fn films_and_what_leaves_no_file_are_refused() {
    let film = |class: &str| ("9", node(class, &json!({"images": ["8", 0]})));
    for class in ["SaveAnimatedWEBP", "VHS_VideoCombine", "CreateVideo"] {
        let refused = reasons(&of(&changed(&[film(class)])));
        assert!(refused.starts_with("the workflow makes a film or sound (9 ("), "{refused}");
    }
    let frames = of(&changed(&[(
        "5",
        node("EmptyHunyuanLatentVideo", &json!({"width": 64, "height": 64, "length": 33})),
    )]));
    assert!(reasons(&frames).contains("makes a film of 33 pictures"), "{frames:?}");
    let single = of(&changed(&[(
        "5",
        node("EmptyHunyuanLatentVideo", &json!({"width": 64, "height": 64, "length": 1})),
    )]));
    assert_eq!(single.outcome, Ok(Task::Generate));
    let socket = of(&changed(&[film("SaveImageWebsocket")]));
    assert!(reasons(&socket).contains("use SaveImage"), "{socket:?}");
    let none = of(&changed(&[("9", Value::Null)]));
    assert!(reasons(&none).starts_with("no node saves a picture"), "{none:?}");
    let beside = of(&changed(&[("12", film("SaveAnimatedWEBP").1)]));
    assert!(
        beside.outcome.is_ok() && notes(&beside).contains("not served, since only pictures are"),
        "{beside:?}"
    );
}

#[test]
fn texts_are_found_behind_other_nodes() {
    let guidance = || node("FluxGuidance", &json!({"guidance": 3.5, "conditioning": ["6", 0]}));
    let text = |text: &str| node("PrimitiveStringMultiline", &json!({"value": text}));
    let zero = || node("ConditioningZeroOut", &json!({"conditioning": ["6", 0]}));
    for (changes, prompt, negative) in [
        (vec![], "6.text", "7.text"),
        (vec![("1", guidance()), ("3.positive", json!(["1", 0]))], "6.text", "7.text"),
        // Both conditionings through one node, each by its own output.
        (
            vec![
                ("1", node("ControlNetApplyAdvanced", &json!({"positive": ["6", 0], "negative": ["7", 0]}))),
                ("3.positive", json!(["1", 0])),
                ("3.negative", json!(["1", 1])),
            ],
            "6.text",
            "7.text",
        ),
        (vec![("1", text("a dog")), ("6.text", json!(["1", 0]))], "1.value", "7.text"),
        // The longest part of a text that is put together.
        (
            vec![
                ("1", text("a long description")),
                ("2", text("best")),
                ("6.text", json!(["13", 0])),
                (
                    "13",
                    node(
                        "StringConcatenate",
                        &json!({"string_a": ["2", 0], "string_b": ["1", 0], "delimiter": ", "}),
                    ),
                ),
            ],
            "1.value",
            "7.text",
        ),
        // No text behind the link: it is replaced.
        (
            vec![("1", node("Describe", &json!({"model": "x"}))), ("6.text", json!(["1", 0]))],
            "6.text",
            "7.text",
        ),
        (vec![("1", zero()), ("3.negative", json!(["1", 0]))], "6.text", ""),
        (vec![("3.negative", json!(["6", 0]))], "6.text", ""),
    ] {
        let proposal = of(&changed(&changes));
        assert_eq!(
            (bound(&proposal, "prompt"), bound(&proposal, "negative_prompt")),
            (prompt.into(), negative.into())
        );
        assert_eq!(proposal.outcome, Ok(Task::Generate), "{changes:?}");
    }
}

#[test]
fn encoders_with_several_texts_get_all_that_are_filled() {
    for (changes, prompt, negative) in [
        (
            vec![(
                "6",
                node(
                    "CLIPTextEncodeFlux",
                    &json!({"clip_l": "a", "t5xxl": "b", "guidance": 3, "clip": ["4", 1]}),
                ),
            )],
            "6.clip_l, 6.t5xxl",
            "7.text",
        ),
        (
            vec![(
                "6",
                node(
                    "CLIPTextEncodeFlux",
                    &json!({"clip_l": "", "t5xxl": "b", "guidance": 3, "clip": ["4", 1]}),
                ),
            )],
            "6.t5xxl",
            "7.text",
        ),
        (
            vec![
                ("6", Value::Null),
                ("7", Value::Null),
                ("4", node("Efficient Loader", &json!({"ckpt_name": "x", "positive": "a", "negative": "b"}))),
                ("3.positive", json!(["4", 1])),
                ("3.negative", json!(["4", 2])),
            ],
            "4.positive",
            "4.negative",
        ),
    ] {
        let proposal = of(&changed(&changes));
        assert_eq!(
            (bound(&proposal, "prompt"), bound(&proposal, "negative_prompt")),
            (prompt.into(), negative.into())
        );
        assert_eq!(proposal.outcome, Ok(Task::Generate), "{changes:?}");
    }
}

#[test]
fn other_texts_stay_and_are_named() {
    let combined = changed(&[
        ("1", node("CLIPTextEncode", &json!({"text": "a dog", "clip": ["4", 1]}))),
        ("2", node("ConditioningCombine", &json!({"conditioning_1": ["6", 0], "conditioning_2": ["1", 0]}))),
        ("3.positive", json!(["2", 0])),
    ]);
    let proposal = of(&combined);
    assert_eq!(bound(&proposal, "prompt"), "6.text");
    assert!(notes(&proposal).contains("prompt is not bound to 1.text: another text"), "{proposal:?}");
    let same = of(&change(combined, &[("1.text", json!("a cat"))]));
    assert_eq!(bound(&same, "prompt"), "6.text, 1.text");
}

#[test]
fn an_edit_may_take_no_prompt_and_no_seed_and_says_so() {
    let without = |proposal: &Proposal| {
        let line = proposal.text.lines().find_map(|line| line.strip_prefix("without: "));
        (line.unwrap_or_default().to_owned(), proposal.outcome.clone())
    };
    let cut_out = |inputs: &Value| {
        json!({
            "1": node("LoadImage", &json!({"image": "x.png"})),
            "2": node("RemoveBackground", inputs),
            "3": node("SaveImage", &json!({"images": ["2", 0]}))})
    };
    let proposal = of(&cut_out(&json!({"image": ["1", 0]})));
    assert_eq!(without(&proposal), ("[prompt, seed]".to_owned(), Ok(Task::Edit)));
    assert!(proposal.text.contains("# No prompt: the output depends on no text"), "{}", proposal.text);
    let searched = of(&cut_out(&json!({"image": ["1", 0], "prompt": "the cat", "text": "a caption"})));
    assert_eq!(without(&searched), ("[seed]".to_owned(), Ok(Task::Edit)));
    assert_eq!(bound(&searched, "prompt"), "2.prompt");
    assert!(!searched.text.contains("conditioning"), "there is none: {}", searched.text);
    let refused = reasons(&of(&cut_out(&json!({"image": 7}))));
    assert!(refused.starts_with("no prompt: ") && refused.contains("\nno seed: "), "{refused}");
    let sampled =
        of(&change(from_picture(), &[("3.positive", json!(["4", 3])), ("3.negative", json!(["4", 3]))]));
    assert!(reasons(&sampled).starts_with("no prompt: "), "a sampler takes one, wherever it is");
    let by_pictures = of(&change(
        from_picture(),
        &[
            ("1", node("ConditioningZeroOut", &json!({"conditioning": ["6", 0]}))),
            ("3.positive", json!(["1", 0])),
        ],
    ));
    assert_eq!(without(&by_pictures), ("[prompt]".to_owned(), Ok(Task::Edit)));
}

#[test]
fn new_pictures_need_a_prompt_and_a_seed() {
    let zeroed = changed(&[
        ("1", node("ConditioningZeroOut", &json!({"conditioning": ["6", 0]}))),
        ("3.positive", json!(["1", 0])),
    ]);
    assert!(reasons(&of(&zeroed)).contains("1 (ConditioningZeroOut) empties the positive conditioning"));
    let service = json!({
        "1": node("IdeogramV3", &json!({"prompt": "", "seed": 4})),
        "2": node("SaveImage", &json!({"images": ["1", 0]}))});
    let proposal = of(&service);
    assert_eq!((bound(&proposal, "prompt"), bound(&proposal, "seed")), ("1.prompt".into(), "1.seed".into()));
    assert_eq!(proposal.outcome, Ok(Task::Generate));
}

/// With the sampler in parts, as FLUX has it.
fn in_parts() -> Value {
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

#[test]
fn several_pictures_have_an_order_with_a_reason() {
    let load =
        |title: &str| json!({"class_type": "LoadImage", "inputs": {"image": "x"}, "_meta": {"title": title}});
    let edit = |first: &str, second: &str| {
        let encode =
            json!({"prompt": "make it red", "clip": ["4", 1], "image1": [first, 0], "image2": [second, 0]});
        node("TextEncodeQwenImageEditPlus", &encode)
    };
    for (changes, first, second, reason) in [
        (
            [("20", load("Picture 2")), ("21", load("Picture 1")), ("6", edit("20", "21"))],
            "21",
            "20",
            "titles",
        ),
        (
            [("20", load("a")), ("21", load("b")), ("6", edit("21", "20"))],
            "21",
            "20",
            "inputs that they go to",
        ),
        ([("20", load("a")), ("21", load("b")), ("6", edit("20", "20"))], "20", "", ""),
    ] {
        let proposal = of(&changed(&changes));
        let file = |node: &str| if node.is_empty() { String::new() } else { format!("{node}.image") };
        assert_eq!((bound(&proposal, "image"), bound(&proposal, "image_2")), (file(first), file(second)));
        assert!(proposal.text.contains(reason), "{reason}: {}", proposal.text);
    }
    let chained = changed(&[
        ("20", load("a")),
        ("21", load("b")),
        ("22", node("ReferenceLatent", &json!({"conditioning": ["6", 0], "latent": ["24", 0]}))),
        ("23", node("ReferenceLatent", &json!({"conditioning": ["22", 0], "latent": ["25", 0]}))),
        ("24", node("VAEEncode", &json!({"pixels": ["20", 0]}))),
        ("25", node("VAEEncode", &json!({"pixels": ["21", 0]}))),
        ("3.positive", json!(["23", 0])),
    ]);
    let proposal = of(&chained);
    assert_eq!(
        (bound(&proposal, "image"), bound(&proposal, "image_2")),
        ("20.image".into(), "21.image".into())
    );
    assert!(proposal.text.contains("in the order of their ids"), "{}", proposal.text);
    assert_eq!(bound(&proposal, "prompt"), "6.text");
}

#[test]
fn a_picture_that_is_no_uploaded_file_stays() {
    let proposal =
        of(&change(from_picture(), &[("10", node("ETN_LoadImageBase64", &json!({"image": "iVBO"})))]));
    assert_eq!((bound(&proposal, "image"), proposal.outcome.clone()), (String::new(), Ok(Task::Generate)));
    assert!(notes(&proposal).contains("image is not bound to 10 (ETN_LoadImageBase64)"), "{proposal:?}");
}

#[test]
fn strength_is_that_of_a_sampler_that_starts_from_the_picture() {
    let inputs = |graph: &Value| bound(&of(graph), "strength");
    assert_eq!(inputs(&from_picture()), "3.denoise");
    assert_eq!(inputs(&change(from_picture(), &[("3.denoise", json!(1))])), "", "nothing of it is kept");
    assert_eq!(inputs(&change(from_picture(), &[("3.latent_image", json!(["5", 0]))])), "", "it is not used");
    assert_eq!(inputs(&inpaint()), "3.denoise", "a mask keeps the rest");
    let parts = change(
        in_parts(),
        &[
            ("10", node("LoadImage", &json!({"image": "a.png"}))),
            ("11", node("VAEEncode", &json!({"pixels": ["10", 0], "vae": ["4", 2]}))),
            ("3.latent_image", json!(["11", 0])),
            ("17.denoise", json!(0.5)),
        ],
    );
    assert_eq!(inputs(&parts), "17.denoise");
    let upscaler = json!({"image": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0], "seed": 1,
        "steps": 20, "cfg": 8, "denoise": 0.2});
    let enlarged =
        change(from_picture(), &[("3", node("UltimateSDUpscale", &upscaler)), ("9.images", json!(["3", 0]))]);
    assert_eq!(inputs(&enlarged), "3.denoise", "it encodes the picture itself");
    let made = json!({"image": ["8", 0], "positive": ["6", 0], "negative": ["7", 0], "seed": 1, "steps": 20, "denoise": 0.5});
    let detailed = changed(&[("20", node("FaceDetailer", &made)), ("9.images", json!(["20", 0]))]);
    assert_eq!(inputs(&detailed), "", "its picture is made from nothing");
}

/// The mask inverted, as ComfyUI needs it.
fn inpaint() -> Value {
    change(
        from_picture(),
        &[
            ("12", node("LoadImageMask", &json!({"image": "m.png", "channel": "red"}))),
            ("13", node("InvertMask", &json!({"mask": ["12", 0]}))),
            ("14", node("SetLatentNoiseMask", &json!({"samples": ["11", 0], "mask": ["13", 0]}))),
            ("3.latent_image", json!(["14", 0])),
            ("3.denoise", json!(1)),
        ],
    )
}

#[test]
fn a_mask_is_used_the_right_way_round() {
    assert_eq!(bound(&of(&inpaint()), "mask"), "12.image");
    let as_it_is = change(inpaint(), &[("14.mask", json!(["12", 0]))]);
    assert!(reasons(&of(&as_it_is)).contains("put InvertMask behind it"));
    let picture = change(
        inpaint(),
        &[
            ("12", node("LoadImage", &json!({"image": "m.png"}))),
            ("15", node("ImageToMask", &json!({"image": ["12", 0], "channel": "red"}))),
            ("13.mask", json!(["15", 0])),
        ],
    );
    let proposal = of(&picture);
    assert_eq!((bound(&proposal, "mask"), bound(&proposal, "image")), ("12.image".into(), "10.image".into()));
    let attention = change(
        from_picture(),
        &[
            ("12", node("LoadImageMask", &json!({"image": "m.png", "channel": "red"}))),
            ("13", node("IPAdapter", &json!({"model": ["4", 0], "attn_mask": ["12", 0]}))),
            ("3.model", json!(["13", 0])),
        ],
    );
    let proposal = of(&attention);
    assert_eq!((bound(&proposal, "mask"), proposal.outcome.clone()), (String::new(), Ok(Task::Edit)));
    assert!(notes(&proposal).contains("it does not say where to repaint"), "{proposal:?}");
}

#[test]
fn a_mask_may_be_the_transparency_of_the_picture() {
    let own = of(&change(inpaint(), &[("14.mask", json!(["10", 1]))]));
    assert_eq!((bound(&own, "image"), bound(&own, "mask")), ("10.image".into(), "10.image".into()));
    assert_eq!(own.outcome, Ok(Task::Inpaint));
    let alpha = change(inpaint(), &[("12.channel", json!("alpha")), ("14.mask", json!(["12", 0]))]);
    let other = of(&alpha);
    assert_eq!(
        (bound(&other, "image"), bound(&other, "mask")),
        ("10.image, 12.image".into(), "12.image".into())
    );
    assert_eq!(other.outcome, Ok(Task::Inpaint));
    for inverted in [
        change(inpaint(), &[("13.mask", json!(["10", 1]))]),
        change(inpaint(), &[("12.channel", json!("alpha"))]),
    ] {
        assert!(reasons(&of(&inverted)).contains("remove the node that inverts it"), "{inverted}");
    }
    let second = of(&change(
        inpaint(),
        &[
            ("15", node("LoadImage", &json!({"image": "b.png"}))),
            ("16", node("IPAdapter", &json!({"model": ["4", 0], "image": ["10", 0]}))),
            ("3.model", json!(["16", 0])),
            ("11.pixels", json!(["15", 0])),
            ("14.mask", json!(["15", 1])),
        ],
    ));
    assert_eq!((bound(&second, "image"), bound(&second, "image_2")), ("15.image".into(), "10.image".into()));
    let attention = of(&change(
        from_picture(),
        &[
            ("12", node("LoadImage", &json!({"image": "m.png"}))),
            ("13", node("IPAdapter", &json!({"model": ["4", 0], "attn_mask": ["12", 1]}))),
            ("3.model", json!(["13", 0])),
        ],
    ));
    assert_eq!((bound(&attention, "image"), attention.outcome.clone()), ("10.image".into(), Ok(Task::Edit)));
    assert!(
        !attention.text.contains("12.image") && notes(&attention).contains("does not say where to repaint")
    );
}

#[test]
fn the_workflows_own_lora_stays_and_is_named() {
    let lora = |name: &str| {
        changed(&[
            ("1", node("LoraLoader", &json!({"lora_name": name, "model": ["4", 0]}))),
            ("3.model", json!(["1", 0])),
        ])
    };
    assert!(
        notes(&of(&lora("style.safetensors"))).contains("the LoRA of 1 (LoraLoader) is part of the workflow")
    );
    assert!(!notes(&of(&lora("None"))).contains("lora"));
}

#[test]
fn wrapped_workflows_are_unwrapped() {
    let bare = of(&plain());
    for wrapped in [
        json!({"prompt": plain()}),
        json!({"workflow": plain(), "images": []}),
        json!({"input": {"workflow": plain(), "images": []}}),
    ] {
        let proposal = of(&wrapped);
        assert_eq!((&proposal.text, &proposal.outcome), (&bare.text, &Ok(Task::Generate)), "{wrapped}");
        assert!(comfyui::GRAPH_FORMAT.recognizes(&wrapped) && !invokeai::GRAPH_FORMAT.recognizes(&wrapped));
    }
    let page = json!({"nodes": [], "links": [], "version": 0.4});
    assert!(comfyui::GRAPH_FORMAT.recognizes(&page) && !invokeai::GRAPH_FORMAT.recognizes(&page));
    assert!(reasons(&of(&page)).contains("Export (API)"));
}

fn edge(from: &str, output: &str, to: &str, field: &str) -> Value {
    json!({"source": {"node_id": from, "field": output}, "destination": {"node_id": to, "field": field}})
}

fn invoke_graph() -> Value {
    json!({"nodes": {
        "loader": {"id": "loader", "type": "sdxl_model_loader", "model": null},
        "pos": {"id": "pos", "type": "sdxl_compel_prompt", "prompt": "a cat", "style": "", "original_width": 1024,
            "original_height": 1024, "target_width": 512, "target_height": 512},
        "neg": {"id": "neg", "type": "sdxl_compel_prompt", "prompt": "", "style": ""},
        "noise": {"id": "noise", "type": "noise", "seed": 1, "width": 1024, "height": 1024},
        "denoise": {"id": "denoise", "type": "denoise_latents", "steps": 30, "cfg_scale": 7.5, "scheduler": "euler",
            "denoising_start": 0.3},
        "i2l": {"id": "i2l", "type": "i2l", "image": null},
        "mask": {"id": "mask", "type": "create_denoise_mask", "image": null, "mask": null},
        "l2i": {"id": "l2i", "type": "l2i"},
        "paste": {"id": "paste", "type": "canvas_paste_back", "source_image": null, "mask": null},
        "meta": {"id": "meta", "type": "core_metadata", "positive_prompt": "", "seed": 0, "cfg_scale": 7.5}},
     "edges": [
        edge("pos", "conditioning", "denoise", "positive_conditioning"),
        edge("neg", "conditioning", "denoise", "negative_conditioning"),
        edge("loader", "unet", "denoise", "unet"), edge("noise", "noise", "denoise", "noise"),
        edge("i2l", "latents", "denoise", "latents"), edge("mask", "denoise_mask", "denoise", "denoise_mask"),
        edge("denoise", "latents", "l2i", "latents"), edge("l2i", "image", "paste", "target_image"),
        edge("meta", "metadata", "paste", "metadata")]})
}

#[test]
fn invokeais_graphs_are_read_the_same_way() {
    let proposal = propose(invokeai::GRAPH_FORMAT, &invoke_graph().to_string());
    assert_eq!(output(&proposal), "paste");
    for (name, inputs) in [
        ("prompt", "pos.prompt, meta.positive_prompt"),
        ("negative_prompt", "neg.prompt, neg.style"),
        ("width", "noise.width, pos.original_width"),
        ("seed", "noise.seed, meta.seed"),
        ("steps", "denoise.steps"),
        ("cfg_scale", "denoise.cfg_scale, meta.cfg_scale"),
        ("scheduler", "denoise.scheduler"),
        ("image", "paste.source_image, i2l.image, mask.image"),
        ("mask", "paste.mask, mask.mask"),
        ("strength", "denoise.denoising_start"),
        ("model", "loader.model"),
    ] {
        assert_eq!(bound(&proposal, name), inputs, "{name}: {proposal:?}");
    }
    assert_eq!(proposal.outcome, Ok(Task::Inpaint));
    let mut flux = invoke_graph();
    for id in ["noise", "i2l", "mask", "paste", "meta", "neg"] {
        flux["nodes"].as_object_mut().unwrap().remove(id);
    }
    flux["nodes"]["pos"] = json!({"id": "pos", "type": "flux_text_encoder", "prompt": "a cat"});
    flux["nodes"]["denoise"] = json!({"id": "denoise", "type": "flux_denoise", "num_steps": 20, "cfg_scale": 1, "guidance": 4,
        "scheduler": "euler", "seed": 4, "width": 512, "height": 512});
    flux["edges"] = json!([
        edge("pos", "conditioning", "denoise", "positive_text_conditioning"),
        edge("denoise", "latents", "l2i", "latents")
    ]);
    let proposal = propose(invokeai::GRAPH_FORMAT, &flux.to_string());
    assert_eq!(
        (bound(&proposal, "cfg_scale"), bound(&proposal, "scheduler")),
        ("denoise.guidance".into(), "denoise.scheduler".into())
    );
    assert!(proposal.text.contains("\nschedulers: [euler, heun, lcm]\n"), "{}", proposal.text);
    assert_eq!(
        (bound(&proposal, "width"), proposal.outcome.clone()),
        ("denoise.width".into(), Ok(Task::Generate))
    );
    flux["nodes"]["denoise"]["type"] = json!("new_denoise");
    let unknown = propose(invokeai::GRAPH_FORMAT, &flux.to_string());
    assert_eq!((bound(&unknown, "scheduler"), unknown.text.contains("schedulers:")), (String::new(), false));
    assert!(notes(&unknown).contains("takes other names"), "{unknown:?}");
}

#[test]
fn invokeais_exports_are_read_too() {
    let node = |id: &str, kind: &str, inputs: Value| {
        let inputs: serde_json::Map<String, Value> = inputs
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), json!({"value": value})))
            .collect();
        json!({"id": id, "type": "invocation", "data": {"id": id, "type": kind, "inputs": inputs}})
    };
    let edge = |from: &str, output: &str, to: &str, field: &str| json!({"type": "default", "source": from, "sourceHandle": output, "target": to, "targetHandle": field});
    let export = json!({"name": "mine", "nodes": [
        node("text", "string", json!({"value": "a cat"})),
        node("random", "rand_int", json!({"low": 0, "high": 9})),
        node("pos", "z_image_text_encoder", json!({"prompt": ""})),
        node("denoise", "z_image_denoise", json!({"steps": 9, "guidance_scale": 1, "seed": 0, "width": 64, "height": 64})),
        node("decode", "z_image_l2i", json!({"latents": null}))],
        "edges": [edge("text", "value", "pos", "prompt"), edge("random", "value", "denoise", "seed"),
            edge("pos", "conditioning", "denoise", "positive_conditioning"), edge("denoise", "latents", "decode", "latents")]});
    assert!(invokeai::GRAPH_FORMAT.recognizes(&export));
    let proposal = propose(invokeai::GRAPH_FORMAT, &export.to_string());
    assert_eq!(
        (bound(&proposal, "prompt"), bound(&proposal, "seed")),
        ("text.value".into(), "denoise.seed".into())
    );
    assert_eq!(proposal.outcome, Ok(Task::Generate), "{proposal:?}");
}

/// Classes of nodes with their inputs; `@` is a link.
const CLASSES: [(&str, &str); 14] = [
    (
        "KSampler",
        r#"{"seed":1,"steps":4,"cfg":2,"denoise":1,"positive":"@","negative":"@","latent_image":"@","model":"@"}"#,
    ),
    ("CLIPTextEncode", r#"{"text":"a","clip":"@"}"#),
    ("CLIPTextEncode", r#"{"text":"@","clip":"@"}"#),
    ("StringConcatenate", r#"{"string_a":"@","string_b":"b"}"#),
    ("PrimitiveInt", r#"{"value":7}"#),
    ("KSampler", r#"{"seed":"@","steps":"@","cfg":1,"denoise":0.5,"positive":"@","latent_image":"@"}"#),
    ("EmptyLatentImage", r#"{"width":"@","height":64,"batch_size":2}"#),
    ("VAEDecode", r#"{"samples":"@"}"#),
    ("VAEEncode", r#"{"pixels":"@"}"#),
    ("LoadImage", r#"{"image":"x.png"}"#),
    ("LoadImageMask", r#"{"image":"x.png","channel":"red"}"#),
    ("SetLatentNoiseMask", r#"{"samples":"@","mask":"@"}"#),
    ("Flux2Scheduler", r#"{"width":64,"height":64,"steps":"@"}"#),
    ("SaveImage", r#"{"images":"@"}"#),
];

fn any_graph() -> impl Strategy<Value = Value> {
    let id = || {
        prop::sample::select(vec![
            "1", "2", "10", "a b", "\"q\"", "7:3", "ü", "#", "- x", "null", "1.5", "c: d",
        ])
    };
    let node = (id(), 0..CLASSES.len(), prop::collection::vec((id(), 0..3_u64), 8), any::<String>());
    let links = prop::collection::vec(node, 1..14);
    (links, any::<bool>()).prop_map(|(nodes, with_plain)| {
        let mut graph = if with_plain { plain() } else { json!({}) };
        for (id, class, links, title) in nodes {
            let (class, inputs) = CLASSES[class];
            let mut inputs: Value = serde_json::from_str(inputs).unwrap();
            let values = inputs.as_object_mut().unwrap().values_mut().filter(|value| *value == "@");
            for (value, (to, slot)) in values.zip(links) {
                *value = json!([to, slot]);
            }
            graph[id] = json!({"class_type": class, "inputs": inputs, "_meta": {"title": title}});
        }
        graph
    })
}

proptest! {
    #[test]
    fn what_is_proposed_as_usable_is_read_back_as_it_is_written(graph in any_graph()) {
        let proposal = of(&graph);
        if let Ok(task) = proposal.outcome {
            let template = Template::read(comfyui::GRAPH_FORMAT, &graph.to_string(), &proposal.text).unwrap();
            prop_assert_eq!(template.check_task(task), Ok(()));
            for needed in [Binding::Prompt, Binding::Seed] {
                prop_assert!(template.binds(needed) != template.rules.without.contains(&needed));
            }
            let mut written = 0;
            for line in proposal.text.lines().filter(|line| line.starts_with("  ") && !line.starts_with("  #")) {
                let (name, inputs) = line.trim().split_once(": ").unwrap();
                let inputs: Vec<String> = serde_json::from_str(inputs).unwrap();
                let binding: Binding = serde_json::from_value(json!(name)).unwrap();
                let read: Vec<_> = template.inputs_bound_to(binding).iter().map(ToString::to_string).collect();
                prop_assert_eq!(read, inputs);
                written += 1;
            }
            prop_assert_eq!(written, template.summary().matches(" (").count());
        }
    }
}
