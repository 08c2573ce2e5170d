//! What is wrong with a template although all its places exist: values that would meet in one input, or have no effect.

use std::collections::BTreeMap;

use super::{
    Binding, Fault, Place, Template,
    edges::{self, Edge},
    structure,
    workflow::Batch,
};
use crate::images::Task;

/// Of the graph with its bindings, whatever it is used for.
pub(super) fn of_graph(template: &Template, batches: &[Batch]) -> Vec<Fault> {
    let mut faults = bound_twice(template);
    faults.extend(size(template));
    faults.extend(batches.iter().filter_map(|batch| unfilled(template, batch)));
    faults.extend(structure::faults(template, batches));
    let output = &template.output;
    if template.node(output).is_none() {
        faults.push(Fault(format!("output: the graph has no node {output:?}")));
    } else {
        faults.extend(without_effect(template));
    }
    faults
}

/// Of the template in use for a task.
pub(super) fn of_task(template: &Template, task: Task) -> Vec<Fault> {
    let needed: &[Binding] = match task {
        Task::Generate => &[Binding::Prompt, Binding::Seed],
        Task::Edit => &[Binding::Prompt, Binding::Seed, Binding::Image],
        Task::Inpaint => &[Binding::Prompt, Binding::Seed, Binding::Image, Binding::Mask],
    };
    let task_name = task.name();
    let missing = needed.iter().filter(|binding| !template.binds(**binding)).map(|binding| {
        Fault(format!(
            "{binding} is bound to no input: for {task_name} it must be, or every request would give the same picture"
        ))
    });
    let bound = template.bindings.keys().filter(|binding| !binding.applies_to(task));
    let pointless = bound.map(|binding| {
        Fault(format!("{binding} has no effect: a request for {task_name} has none; take the binding out"))
    });
    missing.chain(pointless).collect()
}

fn places(template: &Template) -> impl Iterator<Item = (Binding, &Place)> {
    template.bindings.iter().flat_map(|(binding, places)| places.iter().map(move |place| (*binding, place)))
}

fn bound_twice(template: &Template) -> Vec<Fault> {
    let mut known: BTreeMap<&Place, Binding> = BTreeMap::new();
    let mut faults = Vec::new();
    for (binding, place) in places(template) {
        match known.get(place) {
            Some(first) if *first == binding => {
                faults.push(Fault(format!("{place} is bound twice by {binding}: name it once")));
            }
            Some(first) => faults.push(Fault(format!(
                "{place} is bound twice, by {first} and by {binding}: an input takes one value"
            ))),
            None => drop(known.insert(place, binding)),
        }
    }
    faults
}

fn size(template: &Template) -> Option<Fault> {
    let (width, height) = (template.binds(Binding::Width), template.binds(Binding::Height));
    let words = match (width, height) {
        (true, false) => "width is bound and height is not: bind both, or neither",
        (false, true) => "height is bound and width is not: bind both, or neither",
        (true, true) if template.ignores_size => {
            "size: ignore has no effect: width and height are bound; take out one or the other"
        }
        _ => return None,
    };
    Some(Fault(words.to_owned()))
}

/// An input that the page would give several values in turn, and that nothing here gives one.
fn unfilled(template: &Template, batch: &Batch) -> Option<Fault> {
    let Batch { kind, edge: Edge { source: node, into, .. } } = batch;
    let is_set = places(template).any(|(binding, place)| binding.is_always_set() && place == into);
    (!is_set).then(|| {
        Fault(format!(
            "the node {node:?} ({kind}) feeds {into} with a batch of values, which only InvokeAI's page can run: give \
             {into} one value, or bind it to prompt, seed or image"
        ))
    })
}

/// Places that the output does not depend on. What gives way to a value counts for nothing.
fn without_effect(template: &Template) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (binding, own) in &template.bindings {
        let is_set = |place: &Place| {
            places(template)
                .any(|(other, at)| at == place && (other.is_always_set() || goes_with(*binding, other)))
        };
        let reached = edges::reaching(&template.edges, &template.output, is_set);
        let lost = own.iter().filter(|place| !reached.contains(place.node.as_str()));
        faults.extend(lost.map(|place| {
            let (node, output) = (&place.node, &template.output);
            Fault(format!(
                "{binding}: {place} has no effect: the output {output:?} does not depend on the node {node:?}"
            ))
        }));
    }
    faults
}

/// Whether one of them is set whenever the other is.
fn goes_with(one: Binding, other: Binding) -> bool {
    let is_side = |binding| matches!(binding, Binding::Width | Binding::Height);
    one == other || (is_side(one) && is_side(other))
}
