//! Pictures that come in, and how much of a picture is kept.

use std::collections::BTreeSet;

use super::{
    draft::Draft,
    graph::{Workflow, input},
    incoming::{Incoming, Role},
    masks::{self, transparency_roles},
};
use crate::images::template::NodeInput;

/// How many nodes a picture may pass on its way to a numbered input.
const MAX_STEPS: usize = 6;

/// Binds pictures, mask and strength.
pub(super) fn bind(workflow: &Workflow<'_>, draft: &mut Draft) {
    let reached = draft.reached(workflow);
    let incoming: Vec<Incoming> =
        reached.iter().flat_map(|node| read(workflow, draft, node, &reached)).collect();
    let (images, masks): (Vec<_>, Vec<_>) =
        incoming.into_iter().partition(|incoming| incoming.role == Role::Picture);
    let transparent: Vec<_> = masks.iter().filter(|mask| mask.role == Role::Transparency).collect();
    bind_images(workflow, draft, &images, &transparent);
    masks::bind(workflow, draft, &masks, &reached);
    if !images.is_empty() {
        bind_strength(workflow, draft, &images, &reached);
    }
}

/// The pictures that a node takes by itself.
fn read(workflow: &Workflow<'_>, draft: &mut Draft, node: &str, reached: &[String]) -> Vec<Incoming> {
    let pictures = &workflow.rules.pictures;
    let is_loader = pictures.loaders.is_empty() || workflow.class_has(node, pictures.loaders);
    let fields = pictures.images.iter().chain(pictures.masks).copied();
    let takes = |field: &&str| workflow.has_input(node, field) && workflow.edge(node, field).is_none();
    let fields: Vec<&str> = fields.filter(takes).collect();
    if !is_loader || fields.is_empty() {
        return Vec::new();
    }
    if workflow.class_has(node, pictures.unusable) {
        let node = workflow.describe(node);
        draft.note(format!(
            "image is not bound to {node}: it does not read an uploaded file, so its picture stays; use {} for edits",
            pictures.loaders.first().unwrap_or(&"another node")
        ));
        return Vec::new();
    }
    let readers: Vec<_> = workflow.readers(node).filter(|edge| reached.contains(&edge.target.node)).collect();
    let incoming =
        |field: &str, role| Incoming { at: input(node, field), key: key(workflow, node, field), role };
    if let Some(roles) = transparency_roles(workflow, draft, node, &readers, reached) {
        let of_field = |field: &&str| roles.iter().map(|role| incoming(field, *role)).collect::<Vec<_>>();
        return fields.iter().flat_map(of_field).collect();
    }
    let becomes_mask = !readers.is_empty()
        && readers.iter().all(|edge| {
            workflow.class_has(&edge.target.node, pictures.to_mask)
                || pictures.masks.contains(&edge.target.field.as_str())
        });
    let of_field = |field: &str| {
        let is_mask = pictures.masks.contains(&field)
            || pictures.mask_loaders.contains(&workflow.class(node))
            || becomes_mask;
        incoming(field, if is_mask { Role::Mask } else { Role::Picture })
    };
    fields.into_iter().map(of_field).collect()
}

/// What tells pictures apart. Where several nodes read a picture each, the same name is the same picture.
fn key(workflow: &Workflow<'_>, node: &str, field: &str) -> String {
    let pictures = &workflow.rules.pictures;
    if !pictures.loaders.is_empty() {
        return node.to_owned();
    }
    match workflow.value(node, field).filter(|value| !value.is_null()) {
        Some(value) => value.to_string(),
        None if pictures.references.contains(&workflow.class(node)) => node.to_owned(),
        None => String::new(),
    }
}

fn bind_images(workflow: &Workflow<'_>, draft: &mut Draft, images: &[Incoming], transparent: &[&Incoming]) {
    let mut groups: Vec<Vec<&Incoming>> = Vec::new();
    for image in images {
        match groups.iter_mut().find(|group| group[0].key == image.key) {
            Some(group) => group.push(image),
            None => groups.push(vec![image]),
        }
    }
    // What is empty and no reference of its own takes the first reference.
    let empty = groups.iter().position(|group| group[0].key.is_empty()).filter(|_| groups.len() > 1);
    let empty = empty.map(|index| groups.remove(index));
    let by = sort(workflow, &mut groups);
    groups.first_mut().into_iter().for_each(|first| first.extend(empty.iter().flatten()));
    // A mask is that of the first picture.
    if let Some(mask) = transparent.first() {
        let masked = groups.iter().position(|group| group[0].key == mask.key).unwrap_or(0);
        groups.get_mut(..=masked).into_iter().for_each(|upto| upto.rotate_right(1));
        match groups.first_mut() {
            Some(first) => first.extend(transparent),
            None => groups.push(transparent.to_vec()),
        }
    }
    let several = groups.len() > 1;
    for (index, group) in groups.into_iter().enumerate() {
        let name = if index == 0 { "image".to_owned() } else { format!("image_{}", index + 1) };
        let mut nodes: Vec<_> = group.iter().map(|image| workflow.describe(&image.at.node)).collect();
        nodes.dedup();
        let order = if several { format!("; in the order of {by}") } else { String::new() };
        let why = format!("{name}: the picture of {}{order}", nodes.join(", "));
        draft.bind(&name, group.into_iter().map(|image| image.at.clone()).collect(), why);
    }
}

/// What numbers pictures.
type Number<'a> = dyn Fn(&NodeInput) -> Option<u64> + 'a;

/// Sorts pictures by the first kind of number that all of them have; returns what that is.
fn sort(workflow: &Workflow<'_>, groups: &mut [Vec<&Incoming>]) -> &'static str {
    let titles = |at: &NodeInput| workflow.title(&at.node).and_then(last_number);
    let readers = |at: &NodeInput| reader_number(workflow, &at.node);
    let ids = |at: &NodeInput| Some(last_number(&at.node).unwrap_or_default());
    let kinds: [(&str, &Number<'_>); 3] = [
        ("the numbers in their titles", &titles),
        ("the numbers of the inputs that they go to", &readers),
        ("their ids", &ids),
    ];
    let tells_apart = |number: &Number<'_>| {
        let numbers: BTreeSet<_> = groups.iter().filter_map(|group| number(&group[0].at)).collect();
        numbers.len() == groups.len()
    };
    let (by, number) = kinds.iter().find(|(_, number)| tells_apart(number)).unwrap_or(&kinds[2]);
    groups.sort_by_key(|group| (number(&group[0].at), group[0].at.clone()));
    by
}

/// The number of the input that a picture goes to, through nodes that scale or encode it.
fn reader_number(workflow: &Workflow<'_>, node: &str) -> Option<u64> {
    let is_picture = |field: &str| field.starts_with("image") || field.starts_with("pixels");
    let mut open = BTreeSet::from([node.to_owned()]);
    for _ in 0..MAX_STEPS {
        let readers = open.iter().flat_map(|node| workflow.readers(node));
        let edges: Vec<_> = readers.filter(|edge| is_picture(&edge.target.field)).collect();
        let numbers: BTreeSet<_> = edges.iter().filter_map(|edge| last_number(&edge.target.field)).collect();
        if !numbers.is_empty() {
            return numbers.first().copied().filter(|_| numbers.len() == 1);
        }
        open = edges.into_iter().map(|edge| edge.target.node.clone()).collect();
    }
    None
}

/// The number that a text ends with.
fn last_number(text: &str) -> Option<u64> {
    let text = text.trim_end();
    let digits = text.chars().rev().take_while(char::is_ascii_digit).count();
    text[text.len() - digits..].parse().ok()
}

/// How much of the picture may change: of a sampler that starts from the picture, not from an empty latent image.
fn bind_strength(workflow: &Workflow<'_>, draft: &mut Draft, images: &[Incoming], reached: &[String]) {
    let pictures = &workflow.rules.pictures;
    let mut bound = Vec::new();
    for node in reached {
        let fields = pictures.strength.iter().map(|field| (*field, false));
        for (field, is_start) in fields.chain(pictures.start.iter().map(|field| (*field, true))) {
            let Some(number) = workflow.number(node, field) else { continue };
            let Some(is_masked) = starts_from_picture(workflow, node, images) else { continue };
            let keeps_some = if is_start { number > 0.0 } else { number < 1.0 };
            if keeps_some || is_masked {
                bound.push(input(node, field));
            }
        }
    }
    if bound.is_empty() {
        draft.note(
            "strength is not bound: no sampler starts from the picture and keeps a share of it".to_owned(),
        );
    }
    let nodes: Vec<_> = bound.iter().map(|at| workflow.describe(&at.node)).collect();
    let why = format!("strength: {} starts from the picture", nodes.join(", "));
    draft.bind("strength", bound, why);
}

/// Whether the sampler that a node is, or plans for, starts from one of the pictures; if so, whether a mask restricts it.
fn starts_from_picture(workflow: &Workflow<'_>, node: &str, images: &[Incoming]) -> Option<bool> {
    let (pictures, sizes) = (&workflow.rules.pictures, workflow.rules.sizes.latents);
    let latent = |node: &str| pictures.latents.iter().find_map(|field| workflow.edge(node, field));
    let planned =
        || workflow.readers(node).map(|edge| edge.target.node.as_str()).find(|node| latent(node).is_some());
    // Some take the picture itself and encode it.
    let own = || pictures.images.iter().find_map(|field| workflow.edge(node, field));
    let (sampler, start) = match latent(node).or_else(own) {
        Some(start) => (node, start),
        None => planned().and_then(|node| Some((node, latent(node)?)))?,
    };
    let is_sampler = |node: &str| latent(node).is_some();
    let mut is_masked =
        pictures.noise_mask_inputs.iter().any(|field| workflow.edge(sampler, field).is_some());
    let (mut seen, mut open) = (BTreeSet::new(), vec![start.source.clone()]);
    let mut from_picture = false;
    while let Some(node) = open.pop() {
        if is_sampler(&node) || !seen.insert(node.clone()) {
            continue;
        }
        is_masked |= workflow.class_has(&node, pictures.noise_masks);
        from_picture |= images.iter().any(|image| image.at.node == node);
        // A latent image that only has the size of a picture has nothing of it.
        let is_size = |field: &str| sizes.iter().any(|(_, width, height)| [*width, *height].contains(&field));
        let content = workflow.edges_into(&node).filter(|edge| !is_size(&edge.target.field));
        open.extend(content.map(|edge| edge.source.clone()));
    }
    from_picture.then_some(is_masked)
}
