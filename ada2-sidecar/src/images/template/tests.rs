//! Bindings: what is refused, what is set, and what stays.

use serde_json::json;

use super::*;
use crate::engine::{comfyui, invokeai};

/// `pos` and `noise` lead to `out`; `rnd` feeds the seed, and nothing else does anything.
const GRAPH: &str = r#"{"nodes":{
    "pos":{"id":"pos","type":"compel","prompt":""},
    "rnd":{"id":"rnd","type":"rand_int","low":0},
    "noise":{"id":"noise","type":"noise","seed":5,"width":64,"height":64},
    "out":{"id":"out","type":"l2i","steps":8},
    "lost":{"id":"lost","type":"string","value":""}},
    "edges":[
    {"source":{"node_id":"pos","field":"conditioning"},"destination":{"node_id":"out","field":"positive"}},
    {"source":{"node_id":"rnd","field":"value"},"destination":{"node_id":"noise","field":"seed"}},
    {"source":{"node_id":"noise","field":"noise"},"destination":{"node_id":"out","field":"noise"}}]}"#;

/// The same in ComfyUI's form.
const API: &str = r#"{
    "pos":{"class_type":"CLIPTextEncode","inputs":{"prompt":""}},
    "rnd":{"class_type":"PrimitiveInt","inputs":{"low":0}},
    "noise":{"class_type":"EmptyLatentImage","inputs":{"seed":["rnd",0],"width":64,"height":64}},
    "out":{"class_type":"SaveImage","inputs":{"positive":["pos",0],"noise":["noise",0],"steps":8,"text.a":""}},
    "lost":{"class_type":"PrimitiveString","inputs":{"value":""}}}"#;

const BOTH: [(GraphFormat, &str); 2] = [(invokeai::GRAPH_FORMAT, GRAPH), (comfyui::GRAPH_FORMAT, API)];

fn yaml(more: &str) -> String {
    format!("output: out\nbindings: {{prompt: [pos.prompt], seed: [noise.seed]{more}}}")
}

fn invoke(yaml: &str) -> Result<Template, Vec<TemplateError>> {
    Template::read(invokeai::GRAPH_FORMAT, GRAPH, yaml)
}

fn messages(read: Result<Template, Vec<TemplateError>>) -> Vec<String> {
    read.unwrap_err().into_iter().map(|error| error.0).collect()
}

fn input<'a>(format: GraphFormat, graph: &'a Value, node: &str, field: &str) -> &'a Value {
    if format == invokeai::GRAPH_FORMAT {
        &graph["nodes"][node][field]
    } else {
        &graph[node]["inputs"][field]
    }
}

#[test]
fn a_prompt_cannot_change_the_graph() {
    for (format, graph) in BOTH {
        let template = Template::read(format, graph, &yaml("")).unwrap();
        let bare = template.render(|_, _| Some(json!(0)));
        for prompt in ["\"},\"evil\":{\"id\":\"evil\"", "{{seed}} ${HOME} \\u0000 \u{0}", "ünïcode"] {
            let graph = template.render(|binding, _| match binding {
                Binding::Prompt => Some(json!(prompt)),
                _ => Some(json!(9)),
            });
            assert_eq!(input(format, &graph, "pos", "prompt"), &json!(prompt));
            let keys = |graph: &Value| graph.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&graph), keys(&bare), "no node came in");
        }
    }
}

#[test]
fn inputs_without_value_keep_the_graphs_own() {
    for (format, graph) in BOTH {
        let more = ", steps: [out.steps], width: [noise.width], height: [noise.height]";
        let template = Template::read(format, graph, &yaml(more)).unwrap();
        let open = template.render(|binding, _| binding.is_always_set().then(|| json!(4242)));
        assert_eq!(input(format, &open, "out", "steps"), 8);
        assert_eq!(input(format, &open, "noise", "width"), 64);
        assert_eq!(
            (template.default_steps(), template.default_size()),
            (Some(8), Some(ImageSize::new(64, 64)))
        );
    }
}

#[test]
fn a_value_replaces_the_edge_into_its_input() {
    for (format, graph) in BOTH {
        let template = Template::read(format, graph, &yaml("")).unwrap();
        assert_eq!(template.dropped_edges().len(), 1);
        let (dropped, output) =
            (&template.dropped_edges()[0], if format == invokeai::GRAPH_FORMAT { "value" } else { "0" });
        let edge =
            format!("the edge from rnd.{output} to noise.seed is dropped: the binding seed sets that input");
        assert_eq!(*dropped, edge);
        let rendered = template.render(|_, _| Some(json!(4242)));
        assert_eq!(input(format, &rendered, "noise", "seed"), 4242);
        let left = format.edges(&rendered);
        assert!(left.len() == 2 && left.iter().all(|edge| edge.target.field != "seed"), "{left:?}");
        assert_eq!(format.edges(&template.render(|_, _| None)).len(), 3, "nobody set anything");
    }
}

#[test]
fn an_edge_stays_without_a_value() {
    let graph = GRAPH.replace("\"field\":\"seed\"}", "\"field\":\"width\"}");
    let bindings = yaml(", width: [noise.width], height: [noise.height]");
    let template = Template::read(invokeai::GRAPH_FORMAT, &graph, &bindings).unwrap();
    let dropped = "the edge from rnd.value to noise.width is dropped whenever a request or the preset gives width: \
                the binding width sets that input";
    assert_eq!(template.dropped_edges(), [dropped]);
    let rendered = template.render(|binding, _| binding.is_always_set().then(|| json!(1)));
    assert_eq!(invokeai::GRAPH_FORMAT.edges(&rendered).len(), 3);
    assert_eq!(template.default_size(), None, "another node decides it");
}

#[test]
fn missing_inputs_are_named_and_all_errors_are_reported_at_once() {
    let read = |more: &str| messages(invoke(&yaml(more)));
    assert_eq!(
        read(", width: [nose.width], height: [noise.girth], steps: [noise], model: [pos.type]"),
        [
            "width: the graph has no node \"nose\"",
            "height: the node \"noise\" has no input \"girth\"",
            "steps: \"noise\" is not node.input",
            "model: the node \"pos\" has no input \"type\"",
        ]
    );
    assert!(read(", mood: [noise.seed]")[0].contains("mood"));
    let elsewhere = messages(invoke("output: x\nbindings: {prompt: [pos.prompt], seed: [noise.seed]}"));
    assert_eq!(elsewhere, ["output: the graph has no node \"x\""]);
    assert!(Template::read(invokeai::GRAPH_FORMAT, "[", &yaml("")).is_err());
    assert!(messages(invoke(&format!("{}\nsize: big", yaml(""))))[0].contains("ignore"));
}

#[test]
fn an_input_with_only_an_edge_can_be_bound() {
    let template = invoke(&yaml(", negative_prompt: [out.positive]")).unwrap();
    let rendered = template.render(|binding, _| (binding != Binding::Seed).then(|| json!("no dogs")));
    assert_eq!(rendered["nodes"]["out"]["positive"], "no dogs");
}

#[test]
fn two_bindings_of_one_input_are_rejected() {
    for (format, graph) in BOTH {
        let read = |more: &str| messages(Template::read(format, graph, &yaml(more)));
        let both = "noise.seed is bound twice, by seed and by steps: an input takes one value";
        assert_eq!(read(", steps: [noise.seed]"), [both]);
        assert_eq!(
            read(", steps: [out.steps, out.steps]"),
            ["out.steps is bound twice by steps: name it once"]
        );
        assert!(read(", seed: [noise.width]")[0].contains("duplicate"), "the key itself given twice");
    }
}

#[test]
fn bindings_without_effect_are_rejected() {
    for (format, graph) in BOTH {
        let read = |more: &str| messages(Template::read(format, graph, &yaml(more)));
        let lost = |binding: &str, node: &str, field: &str| {
            format!(
                "{binding}: {node}.{field} has no effect: the output \"out\" does not depend on the node {node:?}"
            )
        };
        assert_eq!(read(", negative_prompt: [lost.value]"), [lost("negative_prompt", "lost", "value")]);
        assert_eq!(read(", steps: [out.steps, lost.value]"), [lost("steps", "lost", "value")]);
        // What feeds only an input that is set counts for nothing any more.
        assert_eq!(read(", steps: [rnd.low]"), [lost("steps", "rnd", "low")]);
        let one_side = "width is bound and height is not: bind both, or neither";
        assert_eq!(read(", width: [noise.width]"), [one_side]);
        let sides = yaml(", width: [noise.width], height: [noise.height]");
        let ignored = messages(Template::read(format, graph, &format!("{sides}\nsize: ignore")));
        assert!(ignored[0].starts_with("size: ignore has no effect"), "{ignored:?}");
    }
}

#[test]
fn an_edge_replaced_by_the_same_binding_only_still_counts_for_others() {
    let graph = GRAPH.replace("\"field\":\"seed\"}", "\"field\":\"width\"}");
    let read = |more: &str| {
        let sides = format!(", width: [noise.width], height: [noise.height]{more}");
        Template::read(invokeai::GRAPH_FORMAT, &graph, &yaml(&sides))
    };
    assert!(read(", steps: [rnd.low]").is_ok(), "while nobody asks for a size");
    let twice = "output: out\nbindings: {prompt: [pos.prompt], seed: [noise.seed], width: [noise.width, rnd.low], \
                 height: [noise.height]}";
    assert!(
        messages(Template::read(invokeai::GRAPH_FORMAT, &graph, twice))[0]
            .starts_with("width: rnd.low has no effect")
    );
}

#[test]
fn a_task_needs_its_bindings_and_has_no_others() {
    let errors = |template: &Template, task| match template.check_task(task) {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.0).collect(),
    };
    let bare = invoke("output: out\nbindings: {prompt: [pos.prompt]}").unwrap();
    assert!(errors(&bare, Task::Generate)[0].starts_with("generate requires a binding for seed"));
    let complete = invoke(&yaml("")).unwrap();
    assert_eq!(complete.check_task(Task::Generate), Ok(()));
    assert!(errors(&complete, Task::Edit)[0].starts_with("edit requires a binding for image"));
    let edit = invoke(&yaml(", image: [noise.width], strength: [out.steps]")).unwrap();
    assert_eq!(edit.check_task(Task::Edit), Ok(()));
    let messages = errors(&edit, Task::Generate);
    assert!(
        messages.len() == 2 && messages[0].starts_with("image has no effect: a request for generate"),
        "{messages:?}"
    );
}

#[test]
fn an_edit_may_have_no_input_for_prompt_and_seed_if_it_says_so() {
    for (format, graph) in BOTH {
        let read = |yaml: &str| Template::read(format, graph, yaml);
        let bindings = "output: out\nbindings: {image: [pos.prompt], mask: [out.steps]}";
        let silent = read(bindings).unwrap().check_task(Task::Inpaint).unwrap_err();
        let hint = "inpaint requires a binding for seed: if the graph has no input for it, say so in the binding file: \
                    `without: [seed]`";
        assert_eq!((silent.len(), silent[1].0.as_str()), (2, hint));
        let template = read(&format!("{bindings}\nwithout: [prompt, seed]")).unwrap();
        assert_eq!(template.check_task(Task::Inpaint), Ok(()));
        let new = template.check_task(Task::Generate).unwrap_err();
        assert!(new[0].0.starts_with("generate requires a binding for prompt: without it every"), "{new:?}");
        let both = messages(read(&format!("{}\nwithout: [seed]", yaml(""))));
        assert_eq!(both, ["without: seed has no effect: seed is bound; remove one of them"]);
        assert!(messages(read(&format!("{bindings}\nwithout: [steps]")))[0].contains("prompt"));
    }
}

#[test]
fn one_file_may_have_image_and_mask_where_the_engine_reads_transparency() {
    let bindings =
        |input: &str| yaml(&format!(", image: [noise.height, {input}], mask: [out.steps, {input}]"));
    let template = Template::read(comfyui::GRAPH_FORMAT, API, &bindings("noise.width")).unwrap();
    let takes = |node: &str, field: &str| {
        template.takes_masked_image(&NodeInput { node: node.to_owned(), field: field.to_owned() })
    };
    assert!(takes("noise", "width") && !takes("noise", "height") && !takes("out", "steps"));
    let refused = messages(Template::read(invokeai::GRAPH_FORMAT, GRAPH, &bindings("noise.width")));
    assert_eq!(refused, ["noise.width is bound twice, by image and by mask: an input takes one value"]);
    let second = yaml(", image: [noise.height], image_2: [noise.width], mask: [noise.width]");
    let refused = messages(Template::read(comfyui::GRAPH_FORMAT, API, &second));
    assert_eq!(refused, ["noise.width is bound twice, by image_2 and by mask: an input takes one value"]);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    for (format, graph) in BOTH {
        let read = Template::read(format, &format!("\u{feff}{graph}"), &format!("\u{feff}{}", yaml("")));
        assert_eq!(read.map(|template| template.output), Ok("out".to_owned()));
    }
}

#[test]
fn a_posted_body_is_unwrapped_and_a_node_may_be_called_prompt() {
    for around in
        [r#"{"prompt":GRAPH}"#, r#"{"client_id":"c","prompt":GRAPH,"extra_data":{"extra_pnginfo":{}}}"#]
    {
        let posted = around.replace("GRAPH", API);
        assert_eq!(
            Template::read(comfyui::GRAPH_FORMAT, &posted, &yaml("")),
            Template::read(comfyui::GRAPH_FORMAT, API, &yaml(""))
        );
    }
    let named = API.replace("\"lost\":", "\"prompt\":");
    assert!(Template::read(comfyui::GRAPH_FORMAT, &named, &yaml("")).is_ok());
}

#[test]
fn comfyuis_own_workflow_format_is_rejected() {
    let read = |graph: &str| {
        let yaml = "output: '9'\nbindings: {prompt: ['6.text'], seed: ['3.seed']}";
        messages(Template::read(comfyui::GRAPH_FORMAT, graph, yaml)).remove(0)
    };
    assert!(read(r#"{"nodes":[],"links":[]}"#).contains("Export (API)"));
    assert!(read(r#"{"3":{"inputs":{}}}"#).contains("\"3\" has no class_type"));
    assert!(read("[]").contains("not an object"));
}
