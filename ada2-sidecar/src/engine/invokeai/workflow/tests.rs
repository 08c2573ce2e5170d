//! Exports, and the graph that InvokeAI's page would send of each.

use super::*;
use crate::{
    engine::invokeai,
    images::template::{Template, TemplateFile},
};

fn node(id: &str, kind: &str, inputs: &Value) -> Value {
    json!({"id": id, "type": "invocation", "data": {"id": id, "type": kind, "isIntermediate": true, "useCache": false,
        "inputs": inputs}})
}

fn edge(source: (&str, &str), target: (&str, &str)) -> Value {
    json!({"type": "default", "source": source.0, "sourceHandle": source.1, "target": target.0, "targetHandle": target.1})
}

fn sent(source: (&str, &str), target: (&str, &str)) -> Value {
    json!({"source": {"node_id": source.0, "field": source.1}, "destination": {"node_id": target.0, "field": target.1}})
}

fn converted(nodes: &[Value], edges: &[Value]) -> ParsedGraph {
    convert_workflow(json!({"name": "mine", "nodes": nodes, "edges": edges})).unwrap()
}

#[test]
fn an_exported_workflow_becomes_a_graph() {
    let nodes = [
        node(
            "n1",
            "noise",
            &json!({"seed": {"name": "seed", "label": "", "value": 7}, "width": {"value": 512}}),
        ),
        node(
            "n2",
            "denoise_latents",
            &json!({"noise": {"name": "noise"}, "prompt": {"name": "prompt", "value": ""}}),
        ),
        json!({"id": "n3", "type": "notes", "data": {"notes": "hello"}}),
        json!({"id": "n4", "type": "current_image", "data": {}}),
    ];
    let edges = [
        edge(("n1", "noise"), ("n2", "noise")),
        json!({"type": "collapsed", "source": "n1", "target": "n2"}),
        edge(("n3", "x"), ("n2", "prompt")),
        json!({"type": "default", "source": "n1", "target": "n2"}),
        edge(("gone", "x"), ("n2", "prompt")),
    ];
    let ParsedGraph { graph, .. } = converted(&nodes, &edges);
    assert_eq!(
        graph["nodes"],
        json!({
            "n1": {"id": "n1", "type": "noise", "is_intermediate": true, "use_cache": false, "seed": 7, "width": 512},
            "n2": {"id": "n2", "type": "denoise_latents", "is_intermediate": true, "use_cache": false, "prompt": ""},
        }),
        "what has no value is not sent as null"
    );
    assert_eq!(graph["edges"], json!([sent(("n1", "noise"), ("n2", "noise"))]));
    let yaml = "output: n2\nbindings: {prompt: [n2.prompt], seed: [n1.seed]}";
    let workflow = json!({"nodes": nodes, "edges": edges}).to_string();
    assert!(Template::read(invokeai::GRAPH_FORMAT, &workflow, yaml).is_ok());
    assert!(convert_workflow(json!({"nodes": 1})).is_err());
    assert!(convert_workflow(json!({"nodes": [{"type": "invocation", "data": {"id": "a"}}]})).is_err());
}

#[test]
fn an_input_with_an_edge_has_no_value() {
    let nodes = [
        node("a", "add", &json!({})),
        node("b", "sub", &json!({"a": {"value": "no number"}, "b": {"value": 2}})),
    ];
    let ParsedGraph { graph, inputs, .. } = converted(&nodes, &[edge(("a", "value"), ("b", "a"))]);
    assert_eq!(graph["nodes"]["b"].get("a"), None);
    assert_eq!(graph["nodes"]["b"]["b"], 2);
    assert!(
        inputs.contains(&NodeInput { node: "b".into(), field: "a".into() }),
        "and can be bound all the same"
    );
}

#[test]
fn edges_are_followed_through_connectors() {
    let connector =
        |id: &str| json!({"id": id, "type": "connector", "data": {"id": id, "type": "connector"}});
    let nodes = [
        node("a", "add", &json!({})),
        node("b", "sub", &json!({"a": {"value": 1}, "b": {"value": 2}, "c": {"value": 3}})),
        connector("c1"),
        connector("c2"),
        connector("open"),
        connector("round"),
    ];
    let edges = [
        edge(("a", "value"), ("c1", "in")),
        edge(("c1", "out"), ("c2", "in")),
        edge(("c2", "out"), ("b", "a")),
        edge(("c1", "out"), ("b", "a")),
        edge(("a", "value"), ("b", "a")),
        edge(("open", "out"), ("b", "b")),
        edge(("round", "out"), ("round", "in")),
        edge(("round", "out"), ("b", "c")),
    ];
    let ParsedGraph { graph, .. } = converted(&nodes, &edges);
    assert_eq!(graph["edges"], json!([sent(("a", "value"), ("b", "a"))]), "once, and none from nowhere");
    assert_eq!(graph["nodes"].as_object().unwrap().len(), 2);
    assert_eq!((&graph["nodes"]["b"]["b"], &graph["nodes"]["b"]["c"]), (&json!(2), &json!(3)));
}

#[test]
fn automatic_boards_and_empty_values_are_left_out() {
    let sent =
        |kind: &str, inputs: Value| converted(&[node("n", kind, &inputs)], &[]).graph["nodes"]["n"].clone();
    for open in ["auto", "none", ""] {
        assert_eq!(sent("l2i", json!({"board": {"value": open}})).get("board"), None, "{open}");
    }
    let board = json!({"board_id": "b1"});
    assert_eq!(sent("l2i", json!({"board": {"value": board}}))["board"], board);
    assert_eq!(sent("string", json!({"value": {"value": "auto"}}))["value"], "auto", "a text is a text");
    assert_eq!(sent("l2i", json!({"vae": {"value": null}})).get("vae"), None);
    let metadata = sent("core_metadata", json!({"vae": {"value": null}, "guidance": {"value": 4}}));
    assert_eq!((metadata.get("vae"), &metadata["guidance"]), (Some(&Value::Null), &json!(4)));
    assert!(
        accepts_undeclared_input("core_metadata", "guidance") && !accepts_undeclared_input("l2i", "guidance")
    );
}

#[test]
fn a_nested_workflow_has_its_inputs_in_one_input() {
    let name = "saved_workflow_input::node-1::a";
    let inputs =
        json!({name: {"value": 23}, "workflow_inputs": {"value": {"old": 1}}, "workflow_id": {"value": "w"}});
    let nodes = [node("n", "call_saved_workflow", &inputs), node("m", "add", &json!({}))];
    let graph = converted(&nodes, &[]).graph;
    assert_eq!(
        (&graph["nodes"]["n"]["workflow_inputs"], &graph["nodes"]["n"]["workflow_id"]),
        (&json!({name: 23}), &json!("w"))
    );
    let fed = converted(&nodes, &[edge(("m", "value"), ("n", name))]).graph;
    assert_eq!(fed["nodes"]["n"]["workflow_inputs"], json!({}));
    assert_eq!(fed["edges"], json!([sent(("m", "value"), ("n", name))]));
    let yaml = format!("output: n\nbindings: {{seed: ['n.{name}']}}");
    let workflow = json!({"nodes": nodes, "edges": []}).to_string();
    let template = Template::read(invokeai::GRAPH_FORMAT, &workflow, &yaml).unwrap();
    let rendered = template.render(|_, _| Some(json!(7)));
    assert_eq!(rendered["nodes"]["n"]["workflow_inputs"], json!({name: 7}));
}

#[test]
fn a_batch_is_rejected_unless_its_input_is_bound() {
    let nodes = [
        node("many", "integer_batch", &json!({"integers": {"value": [1, 2]}})),
        node("made", "integer_generator", &json!({"generator": {"value": {}}})),
        node("pos", "compel", &json!({"prompt": {"value": ""}})),
        node("noise", "noise", &json!({"seed": {"value": 5}, "width": {"value": 64}, "clip": {}})),
    ];
    let mut edges = vec![
        edge(("made", "integers"), ("many", "integers")),
        edge(("many", "value"), ("noise", "seed")),
        edge(("pos", "conditioning"), ("noise", "clip")),
    ];
    let read = |edges: &[Value]| {
        let yaml = "output: noise\nbindings: {prompt: [pos.prompt], seed: [noise.seed]}";
        Template::read(invokeai::GRAPH_FORMAT, &json!({"nodes": nodes, "edges": edges}).to_string(), yaml)
    };
    let template = read(&edges).unwrap();
    let dropped = "the edge from many.value to noise.seed is dropped: the binding seed sets that input";
    assert_eq!(template.dropped_edges(), [dropped]);
    let graph = template.render(|_, _| Some(json!(1)));
    assert_eq!(graph["nodes"].as_object().unwrap().keys().collect::<Vec<_>>(), ["noise", "pos"]);
    assert_eq!(graph["edges"], json!([sent(("pos", "conditioning"), ("noise", "clip"))]));
    edges.push(edge(("many", "value"), ("noise", "width")));
    let faults = read(&edges).unwrap_err();
    assert!(
        faults[0].0.starts_with("the node \"many\" (integer_batch) feeds noise.width with a batch"),
        "{faults:?}"
    );
}

#[test]
fn a_batch_of_a_node_that_a_task_dropped_is_skipped() {
    let nodes = [
        node("many", "image_batch", &json!({"images": {"value": []}})),
        node("pos", "compel", &json!({"prompt": {"value": ""}})),
        node("encode", "i2l", &json!({"image": {}})),
        node("out", "l2i", &json!({"seed": {"value": 5}, "positive": {}, "latents": {}})),
        node("empty", "noise", &json!({"width": {"value": 64}})),
    ];
    let edges = [
        edge(("many", "image"), ("encode", "image")),
        edge(("pos", "conditioning"), ("out", "positive")),
        edge(("encode", "latents"), ("out", "latents")),
    ];
    let read = |image: &str| {
        let yaml = format!(
            "output: out\nbindings: {{prompt: [pos.prompt], seed: [out.seed]{image}}}\ntasks: {{generate: \
             {{connect: {{out.latents: empty.noise}}}}, edit: {{}}}}"
        );
        let workflow = json!({"nodes": nodes, "edges": edges}).to_string();
        let read = TemplateFile::read(invokeai::GRAPH_FORMAT, &workflow, &yaml);
        read.err().unwrap_or_default().into_iter().map(|error| error.0).collect::<Vec<_>>()
    };
    assert_eq!(read(", image: [encode.image]"), [""; 0]);
    let unbound = read("");
    assert!(unbound.iter().all(|fault| fault.starts_with("tasks.edit: ")), "{unbound:?}");
    assert!(unbound.iter().any(|fault| fault.contains("(image_batch) feeds encode.image")), "{unbound:?}");
}
