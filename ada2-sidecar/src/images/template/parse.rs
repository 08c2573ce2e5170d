//! Reads a graph and its binding file.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Binding, GraphFormat, NodeInput, Template, TemplateError, check, format::ParsedGraph};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingFile {
    output: String,
    bindings: BTreeMap<Binding, Vec<String>>,
    size: Option<SizeRule>,
}

/// What happens to a size that the graph does not take.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum SizeRule {
    Ignore,
}

/// See [`Template::read`].
pub(super) fn parse(
    format: GraphFormat,
    graph: &str,
    declaration: &str,
) -> Result<Template, Vec<TemplateError>> {
    let document: Value = serde_json::from_str(strip_bom(graph))
        .map_err(|error| vec![TemplateError(format!("the graph is not JSON: {error}"))])?;
    let declared: BindingFile = serde_saphyr::from_str(strip_bom(declaration))
        .map_err(|error| vec![TemplateError(format!("the bindings: {}", error.without_snippet()))])?;
    let ParsedGraph { graph, inputs, batches } = format.parse(document).map_err(|error| vec![error])?;
    let of_batches = batches.iter().map(|batch| batch.edge.clone());
    let mut template = Template {
        format,
        edges: format.edges(&graph).into_iter().chain(of_batches).collect(),
        graph,
        bindings: BTreeMap::new(),
        output: declared.output,
        ignores_size: declared.size == Some(SizeRule::Ignore),
    };
    let mut errors = Vec::new();
    for (binding, names) in declared.bindings {
        for name in names {
            match resolve_input(&template, &inputs, binding, &name) {
                Ok(input) => template.bindings.entry(binding).or_default().push(input),
                Err(error) => errors.push(error),
            }
        }
    }
    errors.extend(check::check_graph(&template, &batches));
    if errors.is_empty() { Ok(template) } else { Err(errors) }
}

/// Editors on Windows write a byte order mark.
pub(super) fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The input, if it exists: with a value, with an edge, or known to the page that exported the workflow.
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
    let input = NodeInput { node: id.to_owned(), field: field.to_owned() };
    let is_known =
        node.contains_key(field) || inputs.contains(&input) || template.incoming_edge(&input).is_some();
    if template.format.is_input(field) && is_known {
        Ok(input)
    } else {
        Err(TemplateError(format!("{binding}: the node {id:?} has no input {field:?}")))
    }
}
