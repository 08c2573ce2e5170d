//! What is wrong with a template although all its places exist: values that would meet in one input, or have no effect.

use std::collections::BTreeMap;

use super::{
    Binding, NodeInput, Template, TemplateError,
    edges::{GraphEdge, upstream_nodes},
    format::BatchInput,
    structure,
};
use crate::images::Task;

/// Of the graph with its bindings, whatever it is used for.
pub(super) fn check_graph(template: &Template, batches: &[BatchInput]) -> Vec<TemplateError> {
    let mut faults = bound_twice(template);
    faults.extend(size(template));
    faults.extend(batches.iter().filter_map(|batch| unbound_batch_input(template, batch)));
    faults.extend(structure::check_structure(template, batches));
    let output = &template.output;
    if template.node(output).is_none() {
        faults.push(TemplateError(format!("output: the graph has no node {output:?}")));
    } else {
        faults.extend(without_effect(template));
    }
    faults
}

/// Of the template in use for a task.
pub(super) fn check_task(template: &Template, task: Task) -> Vec<TemplateError> {
    let needed: &[Binding] = match task {
        Task::Generate => &[Binding::Prompt, Binding::Seed],
        Task::Edit => &[Binding::Prompt, Binding::Seed, Binding::Image],
        Task::Inpaint => &[Binding::Prompt, Binding::Seed, Binding::Image, Binding::Mask],
    };
    let task_name = task.name();
    let missing = needed.iter().filter(|binding| !template.binds(**binding)).map(|binding| {
        TemplateError(format!(
            "{binding} is bound to no input: for {task_name} it must be, or every request would give the same picture"
        ))
    });
    let bound = template.bindings.keys().filter(|binding| !binding.applies_to(task));
    let pointless = bound.map(|binding| {
        TemplateError(format!(
            "{binding} has no effect: a request for {task_name} has none; take the binding out"
        ))
    });
    missing.chain(pointless).collect()
}

fn bound_inputs(template: &Template) -> impl Iterator<Item = (Binding, &NodeInput)> {
    template.bindings.iter().flat_map(|(binding, places)| places.iter().map(move |place| (*binding, place)))
}

fn bound_twice(template: &Template) -> Vec<TemplateError> {
    let mut known: BTreeMap<&NodeInput, Binding> = BTreeMap::new();
    let mut faults = Vec::new();
    for (binding, place) in bound_inputs(template) {
        match known.get(place) {
            Some(first) if *first == binding => {
                faults.push(TemplateError(format!("{place} is bound twice by {binding}: name it once")));
            }
            Some(first) => faults.push(TemplateError(format!(
                "{place} is bound twice, by {first} and by {binding}: an input takes one value"
            ))),
            None => drop(known.insert(place, binding)),
        }
    }
    faults
}

fn size(template: &Template) -> Option<TemplateError> {
    let (width, height) = (template.binds(Binding::Width), template.binds(Binding::Height));
    let message = match (width, height) {
        (true, false) => "width is bound and height is not: bind both, or neither",
        (false, true) => "height is bound and width is not: bind both, or neither",
        (true, true) if template.ignores_size => {
            "size: ignore has no effect: width and height are bound; take out one or the other"
        }
        _ => return None,
    };
    Some(TemplateError(message.to_owned()))
}

/// An input that the page would give several values in turn, and that nothing here gives one.
fn unbound_batch_input(template: &Template, batch: &BatchInput) -> Option<TemplateError> {
    let BatchInput { node_type: kind, edge: GraphEdge { source: node, target: into, .. } } = batch;
    let is_set = bound_inputs(template).any(|(binding, place)| binding.is_always_set() && place == into);
    (!is_set).then(|| {
        TemplateError(format!(
            "the node {node:?} ({kind}) feeds {into} with a batch of values, which only InvokeAI's page can run: give \
             {into} one value, or bind it to prompt, seed or image"
        ))
    })
}

/// Places that the output does not depend on. What gives way to a value counts for nothing.
fn without_effect(template: &Template) -> Vec<TemplateError> {
    let mut faults = Vec::new();
    for (binding, own) in &template.bindings {
        let is_set = |input: &NodeInput| {
            bound_inputs(template)
                .any(|(other, at)| at == input && (other.is_always_set() || is_set_together(*binding, other)))
        };
        let reached = upstream_nodes(&template.edges, &template.output, is_set);
        let lost = own.iter().filter(|input| !reached.contains(input.node.as_str()));
        faults.extend(lost.map(|input| {
            let (node, output) = (&input.node, &template.output);
            TemplateError(format!(
                "{binding}: {input} has no effect: the output {output:?} does not depend on the node {node:?}"
            ))
        }));
    }
    faults
}

/// Whether one of them is set whenever the other is.
fn is_set_together(one: Binding, other: Binding) -> bool {
    let is_side = |binding| matches!(binding, Binding::Width | Binding::Height);
    one == other || (is_side(one) && is_side(other))
}
