//! The mask: a file of its own, or the transparency of the picture.

use std::collections::BTreeSet;

use super::{
    draft::Draft,
    graph::Workflow,
    incoming::{Incoming, Role},
};
use crate::images::template::GraphEdge;

/// Binds the one mask that a request has.
pub(super) fn bind(workflow: &Workflow<'_>, draft: &mut Draft, masks: &[Incoming], reached: &[String]) {
    let mut bound = Vec::new();
    for mask in masks {
        if mask.role == Role::Transparency {
            bound.push(mask);
            continue;
        }
        let node = workflow.describe(&mask.at.node);
        if !repaints(workflow, &mask.at.node, reached) {
            draft.note(format!("mask is not bound to {node}: it does not say where to repaint, and stays"));
            continue;
        }
        if let Some(problem) = wrong_way_round(workflow, &mask.at.node, reached) {
            draft.problems.push(problem);
        }
        bound.push(mask);
    }
    let is_other = |mask: &&&Incoming| mask.key != bound[0].key;
    if let Some(other) = bound.iter().skip(1).find(is_other) {
        let (one, other) = (&bound[0].at, &other.at);
        draft.problems.push(format!("mask: {one} and {other} are two masks, and a request has one"));
    }
    let names: Vec<_> = bound.iter().map(|mask| workflow.describe(&mask.at.node)).collect();
    let how = if bound.iter().any(|mask| mask.role == Role::Transparency) {
        "gets it as the transparency of the picture, in one file"
    } else {
        "says where to repaint; black is repainted"
    };
    let why = format!("mask: {} {how}", names.join(", "));
    draft.bind("mask", bound.into_iter().map(|mask| mask.at.clone()).collect(), why);
}

/// Whether a node, or what depends on it, repaints or pastes by a mask.
fn repaints(workflow: &Workflow<'_>, node: &str, reached: &[String]) -> bool {
    let words = workflow.rules.pictures.repaint;
    let does = |node: &str| workflow.class_has(node, words);
    let below = workflow.downstream(node);
    words.is_empty() || does(node) || below.iter().any(|node| reached.contains(node) && does(node))
}

/// Where an engine repaints white, something has to invert the sidecar's mask.
fn wrong_way_round(workflow: &Workflow<'_>, node: &str, reached: &[String]) -> Option<String> {
    let pictures = &workflow.rules.pictures;
    if pictures.inverters.is_empty() {
        return None;
    }
    let at = workflow.describe(node);
    let is_inverter = |node: &String| inverts(workflow, node) && repaints(workflow, node, reached);
    let is_inverted = workflow.downstream(node).iter().any(is_inverter);
    (!is_inverted).then(|| {
        format!(
            "mask: {at} is used as it is, and the sidecar's mask is black where to repaint, where this engine repaints white: \
             put InvertMask behind it"
        )
    })
}

/// Whether an edge carries the transparency of a loaded picture, as a mask that is white where it is transparent.
fn is_transparency(workflow: &Workflow<'_>, edge: &GraphEdge) -> bool {
    let pictures = &workflow.rules.pictures;
    if pictures.mask_loaders.contains(&workflow.class(&edge.source)) {
        workflow.value(&edge.source, "channel").is_some_and(|channel| channel == "alpha")
    } else {
        pictures.transparency == Some(&*edge.output)
    }
}

/// What a node with these readers takes, if it gives the transparency of its picture as a mask.
pub(super) fn transparency_roles(
    workflow: &Workflow<'_>,
    draft: &mut Draft,
    node: &str,
    readers: &[&GraphEdge],
    reached: &[String],
) -> Option<Vec<Role>> {
    let edges: Vec<_> = readers.iter().copied().filter(|edge| is_transparency(workflow, edge)).collect();
    if edges.is_empty() {
        return None;
    }
    let (at, is_only_mask) = (workflow.describe(node), edges.len() == readers.len());
    let picture = (!is_only_mask).then_some(Role::Picture);
    if !edges.iter().any(|edge| repaints(workflow, &edge.target.node, reached)) {
        draft.note(if is_only_mask {
            format!("mask is not bound to {at}: it does not say where to repaint, and stays")
        } else {
            format!(
                "{at} also gives the picture's transparency as a mask, and the sidecar sends pictures without"
            )
        });
        return Some(picture.into_iter().collect());
    }
    if !repaints_uninverted(workflow, &edges, reached) {
        draft.problems.push(format!(
            "mask: the transparency of {at} is inverted, and would repaint what a request wants to keep: remove the node \
             that inverts it"
        ));
    }
    Some(picture.into_iter().chain([Role::Transparency]).collect())
}

/// Whether one of these masks gets to where it repaints as it is.
fn repaints_uninverted(workflow: &Workflow<'_>, masks: &[&GraphEdge], reached: &[String]) -> bool {
    let mut open: Vec<&str> = masks.iter().map(|edge| edge.target.node.as_str()).collect();
    let mut seen = BTreeSet::new();
    while let Some(node) = open.pop() {
        if inverts(workflow, node) || !reached.iter().any(|id| id == node) || !seen.insert(node) {
            continue;
        }
        if workflow.class_has(node, workflow.rules.pictures.repaint) {
            return true;
        }
        open.extend(workflow.readers(node).map(|edge| edge.target.node.as_str()));
    }
    false
}

fn inverts(workflow: &Workflow<'_>, node: &str) -> bool {
    workflow.class_has(node, workflow.rules.pictures.inverters)
        || workflow.value(node, "flip_input").is_some_and(|flip| flip == true)
}
