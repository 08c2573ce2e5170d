//! Width and height.

use std::collections::BTreeSet;

use super::{
    draft::Draft,
    graph::{Workflow, input},
    numbers::source,
};
use crate::images::template::NodeInput;

/// Where a node takes its size.
#[derive(Debug, Clone)]
struct Size {
    node: String,
    width: NodeInput,
    height: NodeInput,
    /// None: it is not known.
    value: Option<(f64, f64)>,
}

/// Binds both sides of the empty latent image, and of the nodes that must agree with it.
pub(super) fn bind(workflow: &Workflow<'_>, draft: &mut Draft) {
    let (sizes, reached) = (&workflow.rules.sizes, draft.reached(workflow));
    let mut latents = Vec::new();
    for node in &reached {
        for (words, width, height) in sizes.latents {
            let class = workflow.class(node);
            let is_latent = words.iter().all(|word| class.contains(word));
            if is_latent && workflow.has_input(node, width) && workflow.has_input(node, height) {
                latents.push((node.clone(), *width, *height));
            }
        }
    }
    if let Some((node, ..)) =
        latents.iter().find(|(node, width, height)| follows_picture(workflow, node, &[width, height]))
    {
        let node = workflow.describe(node);
        draft.note(format!("width and height are not bound: {node} gets them from the picture"));
        return;
    }
    let latents: Vec<Size> =
        latents.iter().map(|(node, width, height)| read(workflow, node, width, height)).collect();
    let mut agreeing: Vec<Size> = Vec::new();
    for (class, width, height) in sizes.agreeing {
        let nodes = reached.iter().filter(|node| workflow.class(node) == *class);
        let nodes = nodes.filter(|node| workflow.has_input(node, width) && workflow.has_input(node, height));
        agreeing.extend(nodes.map(|node| read(workflow, node, width, height)));
    }
    let is_scaler =
        |node: &&String| workflow.class_has(node, sizes.scalers) && !workflow.class_has(node, &["Loader"]);
    let scalers: Vec<&String> = reached.iter().filter(is_scaler).collect();
    let Some(first) = latents.first().or_else(|| agreeing.first().filter(|_| scalers.is_empty())).cloned()
    else {
        return note_without(workflow, draft, &scalers);
    };
    if let Some(other) = latents.iter().find(|size| size.value != first.value) {
        draft.note(format!(
            "width and height are not bound: {} and {} have different sizes",
            workflow.describe(&first.node),
            workflow.describe(&other.node)
        ));
        return;
    }
    let (same, others): (Vec<Size>, Vec<Size>) =
        agreeing.into_iter().partition(|size| size.value == first.value);
    for other in others {
        let node = workflow.describe(&other.node);
        draft.note(format!("width and height are not bound to {node}: its size is another one, and stays"));
    }
    for scaler in scalers {
        let node = workflow.describe(scaler);
        draft.note(format!("{node} scales: its size or factor stays, whatever size is requested"));
    }
    let all = [latents, same].concat();
    let mut nodes: Vec<_> = all.iter().map(|size| workflow.describe(&size.node)).collect();
    nodes.dedup();
    let why = |side: &str| format!("{side}: the size of {}", nodes.join(", "));
    draft.bind("width", all.iter().map(|size| size.width.clone()).collect(), why("width"));
    draft.bind("height", all.iter().map(|size| size.height.clone()).collect(), why("height"));
}

/// Why no size can be asked for.
fn note_without(workflow: &Workflow<'_>, draft: &mut Draft, scalers: &[&String]) {
    let why = if scalers.is_empty() {
        "no empty latent image has a size of its own".to_owned()
    } else {
        let names: Vec<_> = scalers.iter().map(|node| workflow.describe(node)).collect();
        format!("the size comes from {}", names.join(", "))
    };
    draft.note(format!(
        "width and height are not bound: {why}; add `size: ignore` for clients that always send a size"
    ));
}

fn read(workflow: &Workflow<'_>, node: &str, width: &str, height: &str) -> Size {
    let (mut w, mut h) = (source(workflow, node, width), source(workflow, node, height));
    let number = |at: &NodeInput| workflow.number(&at.node, &at.field);
    let value = number(&w).zip(number(&h));
    if w == h {
        // One number for both sides: each side gets its own.
        (w, h) = (input(node, width), input(node, height));
    }
    Size { node: node.to_owned(), width: w, height: h, value }
}

/// Whether a picture decides the size.
fn follows_picture(workflow: &Workflow<'_>, node: &str, fields: &[&str]) -> bool {
    let pictures = &workflow.rules.pictures;
    fields.iter().filter_map(|field| workflow.edge(node, field)).any(|edge| {
        let above = workflow.upstream(&edge.source, &BTreeSet::new());
        let mut above = above.keys();
        above.any(|node| !pictures.loaders.is_empty() && workflow.class_has(node, pictures.loaders))
    })
}
