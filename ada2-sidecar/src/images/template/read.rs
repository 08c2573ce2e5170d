//! Reading a graph and its binding file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Binding, Fault, Form, Place, Template, check, edges, workflow};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    output: String,
    bindings: BTreeMap<Binding, Vec<String>>,
    size: Option<SizeRule>,
}

/// What becomes of a size that the graph does not take.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum SizeRule {
    Ignore,
}

/// See [`Template::read`].
pub(super) fn read(form: Form, graph: &str, declaration: &str) -> Result<Template, Vec<Fault>> {
    let document: Value = serde_json::from_str(without_mark(graph))
        .map_err(|error| vec![Fault(format!("the graph is not JSON: {error}"))])?;
    let declared: Declaration = serde_saphyr::from_str(without_mark(declaration))
        .map_err(|error| vec![Fault(format!("the bindings: {}", error.without_snippet()))])?;
    let (graph, inputs, batches) = match form {
        Form::InvokeAi => {
            let converted = workflow::to_graph(document).map_err(|fault| vec![fault])?;
            (converted.graph, converted.inputs, converted.batches)
        }
        Form::ComfyUi => (api_format(document).map_err(|fault| vec![fault])?, BTreeSet::new(), Vec::new()),
    };
    let of_batches = batches.iter().map(|batch| batch.edge.clone());
    let mut template = Template {
        form,
        edges: edges::all(form, &graph).into_iter().chain(of_batches).collect(),
        graph,
        bindings: BTreeMap::new(),
        output: declared.output,
        ignores_size: declared.size == Some(SizeRule::Ignore),
    };
    let mut faults = Vec::new();
    for (binding, places) in declared.bindings {
        for text in places {
            match place(&template, &inputs, binding, &text) {
                Ok(place) => template.bindings.entry(binding).or_default().push(place),
                Err(fault) => faults.push(fault),
            }
        }
    }
    faults.extend(check::of_graph(&template, &batches));
    if faults.is_empty() { Ok(template) } else { Err(faults) }
}

/// Editors on Windows begin a file with a byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// An input that exists: with a value, fed by an edge, or known to the page that exported the workflow.
fn place(
    template: &Template,
    inputs: &BTreeSet<Place>,
    binding: Binding,
    text: &str,
) -> Result<Place, Fault> {
    let (id, field) =
        text.split_once('.').ok_or_else(|| Fault(format!("{binding}: {text:?} is not node.input")))?;
    let node = template.node(id).ok_or_else(|| Fault(format!("{binding}: the graph has no node {id:?}")))?;
    let place = Place { node: id.to_owned(), field: field.to_owned() };
    // A node of InvokeAI's has its inputs beside its own name.
    let is_input = template.form == Form::ComfyUi || !matches!(field, "id" | "type");
    let is_known = node.contains_key(field) || inputs.contains(&place) || template.feeding(&place).is_some();
    if is_input && is_known {
        Ok(place)
    } else {
        Err(Fault(format!("{binding}: the node {id:?} has no input {field:?}")))
    }
}

/// As posted to `/prompt`, the graph lies in `prompt`, perhaps with a `client_id` and `extra_data` beside it.
fn unwrapped(mut document: Value) -> Value {
    let is_node = |value: &Value| value.get("class_type").is_some();
    let members = document.as_object();
    let is_wrapped = members.is_some_and(|members| {
        members.get("prompt").is_some_and(Value::is_object) && !members.values().any(is_node)
    });
    if is_wrapped { document["prompt"].take() } else { document }
}

/// The web page's own format has lists of nodes and links, and cannot be run.
fn api_format(document: Value) -> Result<Value, Fault> {
    let graph = unwrapped(document);
    if graph.get("nodes").is_some_and(Value::is_array) {
        return Err(Fault("this is ComfyUI's own workflow format: export it with Export (API)".to_owned()));
    }
    let is_node = |node: &Value| node["class_type"].is_string() && node["inputs"].is_object();
    match graph.as_object().map(|nodes| nodes.iter().find(|(_, node)| !is_node(node))) {
        None => Err(Fault("the graph is not an object of nodes".to_owned())),
        Some(Some((id, _))) => Err(Fault(format!("the node {id:?} has no class_type and inputs"))),
        Some(None) => Ok(graph),
    }
}
