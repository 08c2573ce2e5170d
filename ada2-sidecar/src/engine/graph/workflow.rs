//! Workflows as InvokeAI's web page exports them, turned into the graph that its queue takes: lists of nodes with labelled
//! inputs, and edges between handles.

use serde_json::{Map, Value, json};

use super::Fault;

/// A graph stays as it is; an exported workflow becomes one.
pub(super) fn to_graph(document: Value) -> Result<Value, Fault> {
    match &document["nodes"] {
        Value::Object(_) => Ok(document),
        Value::Array(nodes) => converted(nodes, document["edges"].as_array().map_or(&[], Vec::as_slice)),
        _ => Err(Fault("the graph has no nodes".to_owned())),
    }
}

fn converted(nodes: &[Value], edges: &[Value]) -> Result<Value, Fault> {
    let mut graph = Map::new();
    // Notes and the like are no invocations.
    for node in nodes.iter().filter(|node| node["type"] == "invocation") {
        let (id, inputs) = invocation(&node["data"])?;
        graph.insert(id, inputs);
    }
    let edges = edges.iter().filter(|edge| edge["type"] != "collapsed").map(|edge| {
        let end = |node: &str, field: &str| {
            let text = |name: &str| edge[name].as_str().map(str::to_owned);
            Some(json!({"node_id": text(node)?, "field": text(field)?}))
        };
        let source = end("source", "sourceHandle");
        let destination = end("target", "targetHandle");
        let both = source.zip(destination);
        both.map(|(source, destination)| json!({"source": source, "destination": destination}))
            .ok_or_else(|| Fault("an edge of the workflow has no handles".to_owned()))
    });
    let edges = edges.collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"id": "graph", "nodes": graph, "edges": edges}))
}

fn invocation(data: &Value) -> Result<(String, Value), Fault> {
    let (Some(id), Some(kind)) = (data["id"].as_str(), data["type"].as_str()) else {
        return Err(Fault("a node of the workflow has no id and type".to_owned()));
    };
    let mut inputs = Map::new();
    inputs.insert("id".to_owned(), json!(id));
    inputs.insert("type".to_owned(), json!(kind));
    for name in ["isIntermediate", "useCache"] {
        if let Some(value) = data.get(name).filter(|value| value.is_boolean()) {
            let name = if name == "useCache" { "use_cache" } else { "is_intermediate" };
            inputs.insert(name.to_owned(), value.clone());
        }
    }
    for (name, input) in data["inputs"].as_object().into_iter().flatten() {
        // An input that an edge feeds has none, or one that counts for nothing.
        inputs.insert(name.clone(), input.get("value").cloned().unwrap_or(Value::Null));
    }
    inputs.retain(|name, value| !value.is_null() || data["inputs"].get(name).is_some());
    Ok((id.to_owned(), Value::Object(inputs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::graph::{Form, Template};

    #[test]
    fn an_exported_workflow_becomes_a_graph() {
        let workflow = json!({"name": "mine", "nodes": [
            {"id": "n1", "type": "invocation", "data": {"id": "n1", "type": "noise", "isIntermediate": true, "useCache": false,
                "inputs": {"seed": {"name": "seed", "label": "", "value": 7}, "width": {"name": "width", "value": 512}}}},
            {"id": "n2", "type": "invocation", "data": {"id": "n2", "type": "denoise_latents",
                "inputs": {"noise": {"name": "noise"}, "prompt": {"name": "prompt", "value": ""}}}},
            {"id": "n3", "type": "notes", "data": {"notes": "hello"}}],
            "edges": [{"type": "default", "source": "n1", "sourceHandle": "noise", "target": "n2", "targetHandle": "noise"},
                {"type": "collapsed", "source": "n1", "target": "n2"}]});
        let graph = to_graph(workflow.clone()).unwrap();
        assert_eq!(
            graph["nodes"]["n1"],
            json!({"id": "n1", "type": "noise", "is_intermediate": true, "use_cache": false, "seed": 7, "width": 512})
        );
        assert_eq!(
            graph["edges"],
            json!([{"source": {"node_id": "n1", "field": "noise"}, "destination": {"node_id": "n2", "field": "noise"}}])
        );
        let yaml = "output: n2\nbindings: {prompt: [n2.prompt], seed: [n1.seed]}";
        assert!(Template::read(Form::InvokeAi, &workflow.to_string(), yaml).is_ok());
        assert!(to_graph(json!({"nodes": 1})).is_err());
    }
}
