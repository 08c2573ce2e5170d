//! How a graph grows with its images and LoRAs, and shrinks without them.

use serde_json::{Value, json};

use crate::{
    engine::{comfyui, invokeai},
    images::{
        Task,
        template::{Binding, Template, TemplateFile, TemplateTasks},
    },
};

/// `source` → `seen` guides `positive`, whose guidance the output reads; `lora` changes the model of `text` and `sampler`.
const GRAPH: &str = r#"{
    "model": {"class_type": "Loader", "inputs": {}},
    "lora": {"class_type": "LoraLoader", "inputs": {"model": ["model", 0], "clip": ["model", 1], "name": "", "weight": 1}},
    "text": {"class_type": "Encode", "inputs": {"text": "", "clip": ["lora", 1]}},
    "source": {"class_type": "LoadImage", "inputs": {"image": ""}},
    "seen": {"class_type": "VAEEncode", "inputs": {"pixels": ["source", 0], "vae": ["model", 2]}},
    "positive": {"class_type": "ReferenceLatent", "inputs": {"conditioning": ["text", 0], "latent": ["seen", 0]}},
    "sampler": {"class_type": "KSampler", "inputs": {"seed": 0, "model": ["lora", 0], "positive": ["positive", 0]}}}"#;
const BINDINGS: &str = "
output: sampler
bindings: {prompt: [text.text], seed: [sampler.seed], image: [source.image], lora: [lora.name], lora_weight: [lora.weight]}
repeat:
  images: {nodes: [source, seen, positive], chain: {positive.conditioning: '0'}, max: 3}
  loras: {nodes: [lora], chain: {lora.model: '0', lora.clip: '1'}, max: 2}
tasks: {generate: {}, edit: {}}";

fn template(graph: &str, bindings: &str, task: Task) -> Template {
    let file = TemplateFile::read(comfyui::GRAPH_FORMAT, graph, bindings).unwrap();
    let TemplateTasks::Declared(mut templates) = file.tasks else { panic!("tasks are declared") };
    templates.remove(&task).unwrap()
}

/// The graph with its values set: images and LoRAs by number.
fn rendered(template: &Template, images: u8, loras: u8) -> Value {
    template.expand(images, loras).render(|binding, _| match binding {
        Binding::Image(number) | Binding::Lora(number) => Some(json!(format!("{binding}:{number}"))),
        Binding::LoraWeight(number) => Some(json!(number)),
        _ => None,
    })
}

fn input<'a>(graph: &'a Value, node: &str, name: &str) -> &'a Value {
    &graph[node]["inputs"][name]
}

#[test]
fn a_chain_grows_in_order_and_its_last_link_is_used() {
    let edit = template(GRAPH, BINDINGS, Task::Edit);
    assert_eq!((edit.image_counts(), edit.max_loras()), ((1, 3), 2));
    let graph = rendered(&edit, 3, 2);
    assert_eq!(input(&graph, "source", "image"), "image:1");
    assert_eq!(input(&graph, "source__2", "image"), "image_2:2");
    assert_eq!(input(&graph, "seen__3", "pixels"), &json!(["source__3", 0]), "each copy has its own image");
    assert_eq!(input(&graph, "seen__3", "vae"), &json!(["model", 2]), "what lies outside is shared");
    assert_eq!(input(&graph, "positive", "conditioning"), &json!(["text", 0]));
    assert_eq!(input(&graph, "positive__2", "conditioning"), &json!(["positive", 0]));
    assert_eq!(input(&graph, "positive__3", "conditioning"), &json!(["positive__2", 0]));
    assert_eq!(input(&graph, "sampler", "positive"), &json!(["positive__3", 0]));
    assert_eq!(input(&graph, "lora__2", "model"), &json!(["lora", 0]));
    assert_eq!(input(&graph, "lora__2", "clip"), &json!(["lora", 1]));
    assert_eq!(
        (input(&graph, "lora__2", "name"), input(&graph, "lora__2", "weight")),
        (&json!("lora_2:2"), &json!(2))
    );
    assert_eq!(input(&graph, "sampler", "model"), &json!(["lora__2", 0]));
    assert_eq!(input(&graph, "text", "clip"), &json!(["lora__2", 1]));
    let one = rendered(&edit, 1, 1);
    assert_eq!(one.as_object().unwrap().len(), 7, "as it is written");
    assert_eq!(input(&one, "sampler", "positive"), &json!(["positive", 0]));
}

#[test]
fn without_images_and_loras_their_nodes_are_bypassed() {
    let graph = rendered(&template(GRAPH, BINDINGS, Task::Generate), 0, 0);
    let mut nodes: Vec<_> = graph.as_object().unwrap().keys().map(String::as_str).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["model", "sampler", "text"]);
    assert_eq!(input(&graph, "sampler", "positive"), &json!(["text", 0]));
    assert_eq!(input(&graph, "sampler", "model"), &json!(["model", 0]));
    assert_eq!(input(&graph, "text", "clip"), &json!(["model", 1]));
}

#[test]
fn inputs_grow_by_their_numbers() {
    let graph = r#"{
        "source": {"class_type": "LoadImage", "inputs": {"image": ""}},
        "text": {"class_type": "Encode", "inputs": {"prompt": "", "seed": 0, "images.image_1": ["source", 0], "image0": ["source", 0]}}}"#;
    let bindings = "
output: text
bindings: {prompt: [text.prompt], seed: [text.seed], image: [source.image]}
repeat: {images: {nodes: [source], inputs: ['text.images.image_{1..16}', 'text.image{0..2}']}}
tasks: {edit: {}}";
    let edit = template(graph, bindings, Task::Edit);
    assert_eq!(edit.image_counts(), (1, 3), "the shorter range counts");
    let graph = rendered(&edit, 3, 0);
    for (name, source) in
        [("images.image_1", "source"), ("images.image_3", "source__3"), ("image2", "source__3")]
    {
        assert_eq!(input(&graph, "text", name), &json!([source, 0]), "{name}");
    }
}

#[test]
fn edges_beside_the_nodes_are_copied_too() {
    let edge = |from: &str, target: &str, field: &str| json!({"source": {"node_id": from, "field": "out"}, "destination": {"node_id": target, "field": field}});
    let node = |id: &str| json!({"id": id, "type": "x", "value": null, "prompt": "", "seed": 0});
    let graph = json!({"id": "graph",
        "nodes": {"ref": node("ref"), "refs": node("refs"), "denoise": node("denoise")},
        "edges": [edge("ref", "refs", "item"), edge("refs", "denoise", "references")]});
    let bindings = "
output: denoise
bindings: {prompt: [denoise.prompt], seed: [denoise.seed], image: [ref.value]}
repeat: {images: {nodes: [ref, refs], chain: {refs.collection: out}, max: 4}}
tasks: {generate: {}, edit: {}}";
    let file = TemplateFile::read(invokeai::GRAPH_FORMAT, &graph.to_string(), bindings).unwrap();
    let TemplateTasks::Declared(templates) = file.tasks else { panic!("tasks are declared") };
    let graph = templates[&Task::Edit].expand(2, 0).render(|_, _| None);
    assert_eq!(graph["nodes"]["refs__2"]["id"], "refs__2");
    let edges = graph["edges"].as_array().unwrap();
    for expected in [
        edge("ref", "refs", "item"),
        edge("ref__2", "refs__2", "item"),
        edge("refs", "refs__2", "collection"),
        edge("refs__2", "denoise", "references"),
    ] {
        assert!(edges.contains(&expected), "{expected} in {edges:?}");
    }
    assert_eq!(edges.len(), 4);
    let bare = templates[&Task::Generate].expand(0, 0).render(|_, _| None);
    assert_eq!(bare["edges"], json!([]), "nothing fed the chain");
}

#[test]
fn errors_say_what_is_expected() {
    let messages = |change: &dyn Fn(&str) -> String| -> Vec<String> {
        let read = TemplateFile::read(comfyui::GRAPH_FORMAT, GRAPH, &change(BINDINGS));
        read.err().unwrap_or_default().into_iter().map(|error| error.0).collect()
    };
    for (from, to, expected) in [
        ("nodes: [lora]", "nodes: [lara]", "repeat.loras: the graph has no node \"lara\""),
        (
            "lora.model: '0'",
            "model.x: '0'",
            "repeat.loras: chain: \"model.x\" is not an input of one of its nodes",
        ),
        (", max: 3", "", "repeat.images: max is missing"),
        (", max: 3", ", max: 17", "repeat.images: max: expected at most 16"),
        (", max: 2}", ", max: 9}", "repeat.loras: max: expected at most 8"),
        (
            "nodes: [source, seen, positive]",
            "nodes: [seen, positive]",
            "none of its nodes is bound to image:",
        ),
        ("lora: [lora.name]", "lora: [text.text]", "repeat.loras: none of its nodes is bound to lora:"),
        ("chain: {positive.conditioning: '0'}", "inputs: ['x.y{0..4294967295}']", "nothing feeds x.y0"),
        ("chain: {positive.conditioning: '0'}", "inputs: ['x.y{4294967295..4294967295}']", "x.y4294967295"),
        ("chain: {positive.conditioning: '0'}", "inputs: ['text.y_{1..3}']", "nothing feeds text.y_1"),
        ("chain: {positive.conditioning: '0'}", "inputs: [y]", "\"y\" is not node.input_{FIRST..LAST}"),
        (
            "edit: {}",
            "edit: {connect: {sampler.x: gone.0}}",
            "tasks.edit: connect: sampler.x: gone.0: expected",
        ),
        ("edit: {}", "edit: {values: {gone.x: 1}}", "tasks.edit: values: gone.x: expected"),
        ("generate: {}, edit: {}", "generate: {}", "image: source.image has no effect in any of the tasks"),
        ("image: [source.image], ", "", "tasks.edit: edit requires a binding for image"),
    ] {
        assert!(BINDINGS.contains(from), "{from}");
        let messages = messages(&|bindings: &str| bindings.replace(from, to));
        assert!(messages.iter().any(|message| message.contains(expected)), "{expected}: {messages:?}");
    }
    let unrepeated = messages(&|bindings: &str| {
        bindings.replace("  loras: {nodes: [lora], chain: {lora.model: '0', lora.clip: '1'}, max: 2}\n", "")
    });
    assert!(unrepeated.iter().any(|message| message.contains("lora needs repeat.loras")), "{unrepeated:?}");
}

#[test]
fn a_copy_never_replaces_a_node_of_the_graph() {
    let read = |other: &str| {
        let graph =
            GRAPH.replacen('{', &format!("{{{other:?}: {{\"class_type\": \"Note\", \"inputs\": {{}}}},"), 1);
        let read = TemplateFile::read(comfyui::GRAPH_FORMAT, &graph, BINDINGS);
        read.err().unwrap_or_default().into_iter().map(|error| error.0).collect::<Vec<_>>()
    };
    let taken = "repeat.images: a copy has the name of the node \"seen__3\": give it another";
    assert_eq!(read("seen__3"), [taken]);
    assert_eq!(read("seen__4"), [""; 0], "there is no fourth copy");
}
