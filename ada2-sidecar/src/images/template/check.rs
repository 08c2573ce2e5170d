//! Errors in the bindings of a template: inputs bound twice, bindings without effect.

use std::collections::BTreeMap;

use super::{
    Binding, NodeInput, SizeRule, Template, TemplateError,
    edges::{GraphEdge, upstream_nodes},
    format::BatchInput,
    structure,
};
use crate::images::Task;

/// Checks graph and bindings, whatever the task.
pub(super) fn check_graph(template: &Template, batches: &[BatchInput]) -> Vec<TemplateError> {
    let mut errors = bound_twice(template);
    errors.extend(size(template));
    errors.extend(omitted_and_bound(template));
    errors.extend(unrepeated(template));
    errors.extend(batches.iter().filter_map(|batch| unbound_batch_input(template, batch)));
    errors.extend(structure::check_structure(template, batches));
    let output = &template.output;
    if template.node(output).is_none() {
        errors.push(TemplateError(format!("output: the graph has no node {output:?}")));
    } else {
        errors.extend(without_effect(template));
    }
    errors
}

/// Checks the template for a task.
pub(super) fn check_task(template: &Template, task: Task) -> Vec<TemplateError> {
    let needed: &[Binding] = match task {
        Task::Generate => &[Binding::Prompt, Binding::Seed],
        Task::Edit => &[Binding::Prompt, Binding::Seed, Binding::Image(1)],
        Task::Inpaint => &[Binding::Prompt, Binding::Seed, Binding::Image(1), Binding::Mask],
    };
    let task_name = task.name();
    let may_omit =
        |binding: Binding| task != Task::Generate && matches!(binding, Binding::Prompt | Binding::Seed);
    let is_missing = |binding: &&Binding| {
        let is_omitted = may_omit(**binding) && template.rules.without.contains(*binding);
        !template.binds(**binding) && !is_omitted
    };
    let missing = needed.iter().filter(is_missing).map(|binding| {
        let reason = if may_omit(*binding) {
            format!("if the graph has no input for it, say so in the binding file: `without: [{binding}]`")
        } else {
            "without it every request would give the same image".to_owned()
        };
        TemplateError(format!("{task_name} requires a binding for {binding}: {reason}"))
    });
    let bound = template.bindings.keys().filter(|binding| !binding.applies_to(task));
    let pointless = bound.map(|binding| {
        TemplateError(format!(
            "{binding} has no effect: a request for {task_name} has none; remove the binding"
        ))
    });
    missing.chain(pointless).collect()
}

fn bound_inputs(template: &Template) -> impl Iterator<Item = (Binding, &NodeInput)> {
    template.bindings.iter().flat_map(|(binding, inputs)| inputs.iter().map(move |input| (*binding, input)))
}

fn bound_twice(template: &Template) -> Vec<TemplateError> {
    let mut bound_by: BTreeMap<&NodeInput, Binding> = BTreeMap::new();
    let mut errors = Vec::new();
    for (binding, input) in bound_inputs(template) {
        match bound_by.get(input) {
            Some(first) if *first == binding => {
                errors.push(TemplateError(format!("{input} is bound twice by {binding}: name it once")));
            }
            Some(_) if template.takes_masked_image(input) => {}
            Some(first) => errors.push(TemplateError(format!(
                "{input} is bound twice, by {first} and by {binding}: an input takes one value"
            ))),
            None => drop(bound_by.insert(input, binding)),
        }
    }
    errors
}

fn omitted_and_bound(template: &Template) -> Vec<TemplateError> {
    let both = template.rules.without.iter().filter(|binding| template.binds(**binding));
    both.map(|binding| {
        TemplateError(format!("without: {binding} has no effect: {binding} is bound; remove one of them"))
    })
    .collect()
}

fn size(template: &Template) -> Option<TemplateError> {
    let (width, height) = (template.binds(Binding::Width), template.binds(Binding::Height));
    let message = match (width, height) {
        (true, false) => "width is bound and height is not: bind both, or neither",
        (false, true) => "height is bound and width is not: bind both, or neither",
        (true, true) if template.rules.size == Some(SizeRule::Ignore) => {
            "size: ignore has no effect: width and height are bound; remove one of them"
        }
        _ => return None,
    };
    Some(TemplateError(message.to_owned()))
}

/// LoRAs and numbered images in a graph that says nothing, or something else, about how many there are.
fn unrepeated(template: &Template) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    let lora =
        [Binding::Lora(1), Binding::LoraWeight(1)].into_iter().find(|binding| template.binds(*binding));
    if let Some(lora) = lora.filter(|_| template.repeats.loras.is_none()) {
        errors.push(format!("{lora} needs repeat.loras: a request may have none, or several"));
    }
    if template.repeats.images.is_some() && template.binds(Binding::Image(2)) {
        errors.push(
            "image_2 is bound, but repeat.images makes further images by itself: remove one".to_owned(),
        );
    }
    errors.into_iter().map(TemplateError).collect()
}

/// An input that would get a batch of values from InvokeAI's page, and has no binding.
fn unbound_batch_input(template: &Template, batch: &BatchInput) -> Option<TemplateError> {
    let BatchInput { node_type: kind, edge: GraphEdge { source: node, target, .. } } = batch;
    let is_set = bound_inputs(template).any(|(binding, input)| binding.is_always_set() && input == target);
    (!is_set).then(|| {
        TemplateError(format!(
            "the node {node:?} ({kind}) feeds {target} with a batch of values, which only InvokeAI's page can run: give \
             {target} one value, or bind it to prompt, seed or image"
        ))
    })
}

/// Bound inputs that the output does not depend on. Edges that a value replaces do not count.
fn without_effect(template: &Template) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    for (binding, inputs) in &template.bindings {
        let is_set = |input: &NodeInput| {
            bound_inputs(template)
                .any(|(other, at)| at == input && (other.is_always_set() || is_set_together(*binding, other)))
        };
        let reached = upstream_nodes(&template.edges, &template.output, is_set);
        let unreached = inputs.iter().filter(|input| !reached.contains(input.node.as_str()));
        errors.extend(unreached.map(|input| {
            let (node, output) = (&input.node, &template.output);
            TemplateError(format!(
                "{binding}: {input} has no effect: the output {output:?} does not depend on the node {node:?}"
            ))
        }));
    }
    errors
}

/// Whether one of them is set whenever the other is.
fn is_set_together(one: Binding, other: Binding) -> bool {
    let is_side = |binding| matches!(binding, Binding::Width | Binding::Height);
    one == other || (is_side(one) && is_side(other))
}
