//! Reading a graph and its binding file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Binding, GraphFormat, NodeInput, Template, TemplateError, check, edges, workflow};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingFile {
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
pub(super) fn parse(
    form: GraphFormat,
    graph: &str,
    declaration: &str,
) -> Result<Template, Vec<TemplateError>> {
    let document: Value = serde_json::from_str(strip_bom(graph))
        .map_err(|error| vec![TemplateError(format!("the graph is not JSON: {error}"))])?;
    let declared: BindingFile = serde_saphyr::from_str(strip_bom(declaration))
        .map_err(|error| vec![TemplateError(format!("the bindings: {}", error.without_snippet()))])?;
    let (graph, inputs, batches) = match form {
        GraphFormat::InvokeAi => {
            let converted = workflow::convert_workflow(document).map_err(|fault| vec![fault])?;
            (converted.graph, converted.inputs, converted.batches)
        }
        GraphFormat::ComfyUi => {
            (parse_comfyui_graph(document).map_err(|fault| vec![fault])?, BTreeSet::new(), Vec::new())
        }
    };
    let of_batches = batches.iter().map(|batch| batch.edge.clone());
    let mut template = Template {
        format: form,
        edges: edges::all(form, &graph).into_iter().chain(of_batches).collect(),
        graph,
        bindings: BTreeMap::new(),
        output: declared.output,
        ignores_size: declared.size == Some(SizeRule::Ignore),
    };
    let mut faults = Vec::new();
    for (binding, places) in declared.bindings {
        for text in places {
            match resolve_input(&template, &inputs, binding, &text) {
                Ok(place) => template.bindings.entry(binding).or_default().push(place),
                Err(fault) => faults.push(fault),
            }
        }
    }
    faults.extend(check::check_graph(&template, &batches));
    if faults.is_empty() { Ok(template) } else { Err(faults) }
}

/// Editors on Windows begin a file with a byte order mark.
fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// An input that exists: with a value, fed by an edge, or known to the page that exported the workflow.
fn resolve_input(
    template: &Template,
    inputs: &BTreeSet<NodeInput>,
    binding: Binding,
    text: &str,
) -> Result<NodeInput, TemplateError> {
    let (id, field) = text
        .split_once('.')
        .ok_or_else(|| TemplateError(format!("{binding}: {text:?} is not node.input")))?;
    let node =
        template.node(id).ok_or_else(|| TemplateError(format!("{binding}: the graph has no node {id:?}")))?;
    let place = NodeInput { node: id.to_owned(), field: field.to_owned() };
    // A node of InvokeAI's has its inputs beside its own name.
    let is_input = template.format == GraphFormat::ComfyUi || !matches!(field, "id" | "type");
    let is_known =
        node.contains_key(field) || inputs.contains(&place) || template.incoming_edge(&place).is_some();
    if is_input && is_known {
        Ok(place)
    } else {
        Err(TemplateError(format!("{binding}: the node {id:?} has no input {field:?}")))
    }
}

/// As posted to `/prompt`, the graph lies in `prompt`, perhaps with a `client_id` and `extra_data` beside it.
fn unwrap_prompt(mut document: Value) -> Value {
    let is_node = |value: &Value| value.get("class_type").is_some();
    let members = document.as_object();
    let is_wrapped = members.is_some_and(|members| {
        members.get("prompt").is_some_and(Value::is_object) && !members.values().any(is_node)
    });
    if is_wrapped { document["prompt"].take() } else { document }
}

/// The web page's own format has lists of nodes and links, and cannot be run.
fn parse_comfyui_graph(document: Value) -> Result<Value, TemplateError> {
    let graph = unwrap_prompt(document);
    if graph.get("nodes").is_some_and(Value::is_array) {
        return Err(TemplateError(
            "this is ComfyUI's own workflow format: export it with Export (API)".to_owned(),
        ));
    }
    let is_node = |node: &Value| node["class_type"].is_string() && node["inputs"].is_object();
    match graph.as_object().map(|nodes| nodes.iter().find(|(_, node)| !is_node(node))) {
        None => Err(TemplateError("the graph is not an object of nodes".to_owned())),
        Some(Some((id, _))) => Err(TemplateError(format!("the node {id:?} has no class_type and inputs"))),
        Some(None) => Ok(graph),
    }
}
