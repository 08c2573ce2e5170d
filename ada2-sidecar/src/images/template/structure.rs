//! Errors in the structure of a graph: dangling edges, cycles, and what its format finds in single inputs.

use std::collections::BTreeSet;

use super::{
    NodeInput, Template, TemplateError,
    edges::{GraphEdge, upstream_nodes},
    format::BatchInput,
};

pub(super) fn check_structure(template: &Template, batches: &[BatchInput]) -> Vec<TemplateError> {
    let is_set = |input: &NodeInput| {
        template
            .bindings
            .iter()
            .any(|(binding, inputs)| binding.is_always_set() && inputs.iter().any(|at| at == input))
    };
    let is_of_batch = |edge: &GraphEdge| batches.iter().any(|batch| batch.edge == *edge);
    let edges: Vec<&GraphEdge> =
        template.edges.iter().filter(|edge| !is_set(&edge.target) && !is_of_batch(edge)).collect();
    let nodes: BTreeSet<&str> = template.nodes().map(|(id, ..)| id).collect();
    let reached = upstream_nodes(&template.edges, &template.output, is_set);
    let mut errors: Vec<_> = edges.iter().filter_map(|edge| dangling_edge(edge, &nodes)).collect();
    let within = if template.format.rejects_unused_cycles() { &nodes } else { &reached };
    errors.extend(find_cycle(&edges, within));
    let inputs = template.nodes().flat_map(|(id, _, inputs)| {
        let input = |field: &String| NodeInput { node: id.to_owned(), field: field.clone() };
        inputs.iter().map(move |(field, value)| (input(field), value))
    });
    for (input, value) in inputs.filter(|(input, _)| !is_set(input)) {
        let is_used = reached.contains(input.node.as_str());
        errors.extend(template.format.input_errors(&input, value, &nodes, is_used));
    }
    errors
}

fn dangling_edge(edge: &GraphEdge, nodes: &BTreeSet<&str>) -> Option<TemplateError> {
    let missing =
        [&edge.source, &edge.target.node].into_iter().find(|node| !nodes.contains(node.as_str()))?;
    let target = &edge.target;
    Some(TemplateError(format!(
        "{target}: {edge} refers to node {missing:?}, which does not exist: fix the id or remove the edge"
    )))
}

/// The first cycle among these nodes.
fn find_cycle(edges: &[&GraphEdge], within: &BTreeSet<&str>) -> Option<TemplateError> {
    let mut remaining = within.clone();
    let incoming = |node: &str, remaining: &BTreeSet<&str>| {
        edges
            .iter()
            .find(|edge| edge.target.node == node && remaining.contains(edge.source.as_str()))
            .copied()
    };
    // Remove nodes without incoming edges until none is left. The remaining ones depend on a cycle.
    loop {
        let runnable: Vec<_> =
            remaining.iter().copied().filter(|node| incoming(node, &remaining).is_none()).collect();
        if runnable.is_empty() {
            break;
        }
        remaining.retain(|node| !runnable.contains(node));
    }
    let (mut visited, mut node) = (Vec::new(), *remaining.first()?);
    while !visited.contains(&node) {
        visited.push(node);
        node = incoming(node, &remaining)?.source.as_str();
    }
    let edge = incoming(node, &remaining)?;
    let mut cycle: Vec<_> = visited.into_iter().skip_while(|visited| *visited != node).collect();
    cycle.reverse();
    Some(TemplateError(format!(
        "{}: the nodes {} form a cycle: remove {edge} or another of their edges",
        edge.target,
        cycle.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::{comfyui, invokeai};

    fn comfy(change: impl FnOnce(&mut Value), bindings: &str) -> Vec<String> {
        let mut graph = json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["4", 0], "positive": ["6", 0], "latent": ["5", 0]}},
            "4": {"class_type": "Loader", "inputs": {"ckpt_name": "x"}},
            "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
            "20": {"class_type": "Lost", "inputs": {"a": ["21", 0], "batch_size": 4}},
            "21": {"class_type": "Lost", "inputs": {"a": ["20", 0], "size": [64, 64]}}});
        change(&mut graph);
        let yaml = format!("output: '9'\nbindings: {{prompt: ['6.text'], seed: ['3.seed']{bindings}}}");
        let read = Template::read(comfyui::GRAPH_FORMAT, &graph.to_string(), &yaml);
        read.err().unwrap_or_default().into_iter().map(|error| error.0).collect()
    }

    #[test]
    fn a_dangling_link_names_node_and_input() {
        assert_eq!(comfy(|_| {}, ""), [""; 0], "a circle that no output needs runs");
        let missing = comfy(|graph| graph["3"]["inputs"]["model"] = json!(["99", 0]), "");
        assert_eq!(
            missing,
            [
                "3.model: the edge from 99.0 to 3.model refers to node \"99\", which does not exist: fix the id or remove \
                 the edge"
            ]
        );
        let number = comfy(|graph| graph["6"]["inputs"]["clip"] = json!([4, 1]), "");
        assert!(number[0].starts_with("6.clip: [4, 1] is not a link") && number.len() == 1, "{number:?}");
        assert!(number[0].ends_with("[\"4\", 1]"), "{number:?}");
        assert_eq!(comfy(|graph| graph["3"]["inputs"]["seed"] = json!(["99", 0]), ""), [""; 0], "it is set");
    }

    #[test]
    fn a_cycle_that_the_output_needs_is_an_error() {
        let messages = comfy(|graph| graph["4"]["inputs"]["ckpt_name"] = json!(["3", 0]), "");
        assert_eq!(messages.len(), 1);
        assert!(
            messages[0].contains("3.model") && messages[0].contains("the nodes 4, 3 form a cycle"),
            "{messages:?}"
        );
        let itself = comfy(|graph| graph["5"]["inputs"]["width"] = json!(["5", 0]), "");
        assert!(itself[0].starts_with("5.width: the nodes 5 form a cycle"), "{itself:?}");
    }

    #[test]
    fn the_batch_size_is_1_unless_n_is_bound_to_it() {
        let four = |graph: &mut Value| graph["5"]["inputs"]["batch_size"] = json!(4);
        let messages = comfy(four, "");
        assert!(
            messages.len() == 1 && messages[0].starts_with("5.batch_size is 4, but a request's n"),
            "{messages:?}"
        );
        assert_eq!(comfy(four, ", n: ['5.batch_size']"), [""; 0]);
        assert_eq!(comfy(|graph| graph["5"]["inputs"]["batch_size"] = json!(1.0), ""), [""; 0]);
    }

    #[test]
    fn invokeais_edges_are_checked_too() {
        let edge = |from: &str, target: &str, field: &str| json!({"source": {"node_id": from, "field": "value"}, "destination": {"node_id": target, "field": field}});
        let messages = |edges: Value| -> Vec<String> {
            let graph = json!({"nodes": {
                "a": {"id": "a", "type": "string", "value": "", "seed": 1}, "b": {"id": "b", "type": "l2i"},
                "c": {"id": "c", "type": "add"}}, "edges": edges});
            let yaml = "output: b\nbindings: {prompt: [a.value], seed: [a.seed]}";
            let read = Template::read(invokeai::GRAPH_FORMAT, &graph.to_string(), yaml);
            read.err().unwrap_or_default().into_iter().map(|error| error.0).collect()
        };
        let good = edge("a", "b", "x");
        assert_eq!(messages(json!([good])), [""; 0]);
        for missing in [edge("gone", "b", "y"), edge("a", "gone", "y")] {
            assert!(messages(json!([good, missing]))[0].contains("refers to node \"gone\""));
        }
        assert!(messages(json!([good, edge("c", "c", "a")]))[0].starts_with("c.a: the nodes c form a cycle"));
    }
}
