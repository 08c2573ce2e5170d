//! What is bound in small workflows, and what is not.

mod invokeai_graphs;
mod numbers;
mod pictures;
mod texts;

use proptest::prelude::*;
use serde_json::{Value, json};

use self::pictures::inpaint;
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
