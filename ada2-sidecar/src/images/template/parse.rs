//! Reads a graph and its binding file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Binding, GraphEdge, GraphFormat, GraphRules, NodeInput, Repeats, Template, TemplateError, TemplateFile,
    TemplateTasks,
    binding_file::{BindingFile, RepeatDeclaration, TaskChanges},
    check,
    format::{BatchInput, ParsedGraph},
    repeat::{Repeat, RepeatKind},
    rules,
};
use crate::images::Task;

/// See [`TemplateFile::read`].
pub(super) fn parse(
    format: GraphFormat,
    graph: &str,
    declaration: &str,
) -> Result<TemplateFile, Vec<TemplateError>> {
    let document: Value = serde_json::from_str(strip_bom(graph))
        .map_err(|error| vec![TemplateError(format!("the graph is not JSON: {error}"))])?;
    let declared = parse_bindings(declaration)?;
    let ParsedGraph { graph, inputs, batches } = format.parse(document).map_err(|error| vec![error])?;
    let of_batches = batches.iter().map(|batch| batch.edge.clone());
    let mut template = Template {
        format,
        edges: format.edges(&graph).into_iter().chain(of_batches).collect(),
        graph,
        bindings: BTreeMap::new(),
        output: declared.output.clone(),
        repeats: Repeats::default(),
        rules: GraphRules::read(&declared),
    };
    let mut errors = rules::check(&declared, format);
    for (binding, names) in &declared.bindings {
        for name in names {
            match resolve_input(&template, &inputs, *binding, name) {
                Ok(input) => template.bindings.entry(*binding).or_default().push(input),
                Err(error) => errors.push(error),
            }
        }
    }
    let mut repeat = |kind, declared: Option<&RepeatDeclaration>| {
        declared.and_then(|declared| {
            Repeat::read(kind, declared, &template).map_err(|faults| errors.extend(faults)).ok()
        })
    };
    let images = repeat(RepeatKind::Images, declared.repeat.images.as_ref());
    let loras = repeat(RepeatKind::Loras, declared.repeat.loras.as_ref());
    template.repeats = Repeats { images, loras };
    let tasks = match &declared.tasks {
        None => {
            errors.extend(check::check_graph(&template, &batches));
            TemplateTasks::Undeclared(Box::new(template))
        }
        Some(tasks) => TemplateTasks::Declared(by_task(&template, tasks, &batches, &mut errors)),
    };
    if errors.is_empty() { Ok(TemplateFile { family: declared.family, tasks }) } else { Err(errors) }
}

/// The binding file alone.
pub(super) fn parse_bindings(declaration: &str) -> Result<BindingFile, Vec<TemplateError>> {
    serde_saphyr::from_str(strip_bom(declaration))
        .map_err(|error| vec![TemplateError(format!("the bindings: {}", error.without_snippet()))])
}

/// Editors on Windows write a byte order mark.
pub(super) fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The graph of each task. Bindings that a task does not need are left out; each must have an effect in one of them.
fn by_task(
    template: &Template,
    tasks: &BTreeMap<Task, TaskChanges>,
    batches: &[BatchInput],
    errors: &mut Vec<TemplateError>,
) -> BTreeMap<Task, Template> {
    let mut templates = BTreeMap::new();
    for (task, changes) in tasks {
        match for_task(template, *task, changes) {
            Ok(of_task) => {
                let faults = check::check_graph(&of_task, &batches_within(&of_task, batches));
                let faults = faults.into_iter().chain(check::check_task(&of_task, *task));
                let named = |fault: TemplateError| TemplateError(format!("tasks.{}: {fault}", task.name()));
                errors.extend(faults.map(named));
                templates.insert(*task, of_task);
            }
            Err(faults) => errors.extend(faults),
        }
    }
    if errors.is_empty() {
        let is_bound = |input: &NodeInput| {
            templates.values().any(|template| template.bound_inputs().any(|bound| bound == input))
        };
        for (binding, inputs) in &template.bindings {
            let unused = inputs.iter().filter(|input| !is_bound(input));
            errors.extend(unused.map(|input| {
                TemplateError(format!(
                    "{binding}: {input} has no effect in any of the tasks; remove the binding"
                ))
            }));
        }
    }
    templates
}

/// The batches whose values a node of the task's graph would get.
fn batches_within(template: &Template, batches: &[BatchInput]) -> Vec<BatchInput> {
    batches.iter().filter(|batch| template.has_nodes([&batch.edge.target.node])).cloned().collect()
}

/// The graph with a task's changes, without what its output does not need.
fn for_task(template: &Template, task: Task, changes: &TaskChanges) -> Result<Template, Vec<TemplateError>> {
    let mut template = template.clone();
    let (format, mut errors) = (template.format, Vec::new());
    let mut fault = |message| errors.push(TemplateError(format!("tasks.{}: {message}", task.name())));
    if let Some(output) = &changes.output {
        template.output.clone_from(output);
    }
    for (target, source) in &changes.connect {
        match (NodeInput::parse(target), NodeInput::parse(source)) {
            (Some(target), Some(NodeInput { node, field })) if template.has_nodes([&target.node, &node]) => {
                let edge = GraphEdge { source: node, output: field, target };
                format.connect(&mut template.graph, &edge);
            }
            _ => fault(format!("connect: {target}: {source}: expected node.input: node.output of the graph")),
        }
    }
    for (input, value) in &changes.values {
        match NodeInput::parse(input).filter(|input| template.has_nodes([&input.node])) {
            Some(input) => *format.input_mut(&mut template.graph, &input) = value.clone(),
            None => fault(format!("values: {input}: expected node.input of the graph")),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    template.edges = format.edges(&template.graph);
    if let Some(size) = changes.size {
        template.rules.size = Some(size);
    }
    template.bindings.retain(|binding, _| binding.applies_to(task));
    template.restrict_to(task);
    if template.takes_references() {
        // The result does not start from them: there is nothing of which strength could leave a part.
        template.bindings.remove(&Binding::Strength);
    }
    Ok(template)
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
