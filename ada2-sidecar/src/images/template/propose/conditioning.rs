//! The prompts: from the sampler back to the texts.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write,
};

use super::{
    draft::Draft,
    graph::{Workflow, input},
    numbers::{has_no_guidance, samples},
};
use crate::images::template::NodeInput;

/// The input of a node with what it looks for.
const SEARCHED: &str = "prompt";

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Neither,
    Positive,
    Negative,
}

/// An input with a text.
#[derive(Debug, Clone)]
struct Text {
    side: Side,
    /// The node that encodes it.
    encoder: String,
    at: NodeInput,
    value: String,
    how: String,
}

/// What a walk from the output finds.
#[derive(Debug, Default)]
struct Walk {
    texts: Vec<Text>,
    zeroed: Vec<(Side, String)>,
    positive_nodes: BTreeSet<String>,
}

/// Binds the prompt and, where guidance uses it, the negative prompt.
pub(super) fn bind_texts(workflow: &Workflow<'_>, draft: &mut Draft) {
    let walk = walk(workflow, &draft.output);
    draft.positive_nodes.clone_from(&walk.positive_nodes);
    let positive: Vec<Text> = of_side(&walk, Side::Positive);
    if positive.is_empty() {
        if let Some((_, node)) = walk.zeroed.iter().find(|(side, _)| *side == Side::Positive) {
            let node = workflow.describe(node);
            let reason = format!("{node} empties the positive conditioning, so no text has an effect");
            draft.lack("prompt", reason, false);
        } else {
            let reason = "the output depends on no text that says what to paint".to_owned();
            draft.lack("prompt", reason, samples(workflow, draft));
        }
        return;
    }
    bind_side(workflow, draft, "prompt", &positive);
    let bound: BTreeSet<NodeInput> = draft.bound.iter().flat_map(|bound| bound.inputs.clone()).collect();
    let negative: Vec<Text> =
        of_side(&walk, Side::Negative).into_iter().filter(|text| !bound.contains(&text.at)).collect();
    let zeroed = walk.zeroed.iter().find(|(side, _)| *side == Side::Negative);
    if let Some((_, node)) = zeroed.filter(|_| negative.is_empty()) {
        let node = workflow.describe(node);
        draft.note(format!("negative_prompt is not bound: {node} empties the negative conditioning"));
    } else if negative.is_empty() {
        draft.note(
            "negative_prompt is not bound: the sampler has no negative conditioning of its own".to_owned(),
        );
    } else if has_no_guidance(workflow, draft) {
        draft.note(
            "negative_prompt is not bound: with a guidance of 1 a negative conditioning is not computed"
                .to_owned(),
        );
    } else {
        bind_side(workflow, draft, "negative_prompt", &negative);
    }
}

fn of_side(walk: &Walk, side: Side) -> Vec<Text> {
    walk.texts.iter().filter(|text| text.side == side).cloned().collect()
}

/// The texts of the encoder nearest to the output, and those that say the same.
fn bind_side(workflow: &Workflow<'_>, draft: &mut Draft, name: &str, texts: &[Text]) {
    let encoder = &texts[0].encoder;
    let is_filled = texts.iter().any(|text| text.encoder == *encoder && !text.value.trim().is_empty());
    let is_own = |text: &&Text| text.encoder == *encoder && (!is_filled || !text.value.trim().is_empty());
    let own: Vec<&Text> = texts.iter().filter(is_own).collect();
    let is_same = |text: &&Text| own.iter().any(|own| own.value == text.value);
    let (same, kept): (Vec<&Text>, Vec<&Text>) =
        texts.iter().partition(|text| is_own(text) || (is_same(text) && text.encoder != *encoder));
    let which = if name == "prompt" { "positive" } else { "negative" };
    let mut why = format!("{name}: {}", own[0].how);
    if !draft.positive_nodes.is_empty() {
        let _ = write!(why, ", the {which} conditioning nearest to the output");
    }
    if same.len() > own.len() {
        why += "; the other inputs have the same text";
    }
    for text in kept {
        let at = &text.at;
        let reason = if text.encoder == *encoder {
            "it is empty beside the text that is bound"
        } else {
            "another text of the workflow, which stays as it is"
        };
        if !same.iter().any(|same| same.at == *at) {
            draft.note(format!("{name} is not bound to {at}: {reason} ({})", workflow.describe(&at.node)));
        }
    }
    draft.bind(name, same.into_iter().map(|text| text.at.clone()).collect(), why);
}

fn walk(workflow: &Workflow<'_>, output: &str) -> Walk {
    let mut found = Walk::default();
    let start = (output.to_owned(), Side::Neither);
    let (mut seen, mut open) = (BTreeSet::from([start.clone()]), VecDeque::from([start]));
    while let Some((node, side)) = open.pop_front() {
        for next in visit(workflow, &mut found, &node, side) {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    if !found.texts.iter().any(|text| text.side == Side::Positive) {
        find_self_contained(workflow, &mut found, output);
    }
    found
}

/// Collects a node's texts; returns where to go from there.
fn visit(workflow: &Workflow<'_>, found: &mut Walk, node: &str, side: Side) -> Vec<(String, Side)> {
    let rules = &workflow.rules.texts;
    if workflow.is_record(node) {
        return Vec::new();
    }
    if side != Side::Neither && workflow.class_has(node, rules.zeroed) {
        found.zeroed.push((side, node.to_owned()));
        return Vec::new();
    }
    if side == Side::Positive {
        found.positive_nodes.insert(node.to_owned());
    }
    let before = found.texts.len();
    collect(workflow, found, node, side);
    let has_text = found.texts.len() > before;
    let mut next = Vec::new();
    let edges: Vec<_> = workflow.edges_into(node).collect();
    let is_relay = edges.len() == 1 && !has_text;
    for edge in edges {
        let field = edge.target.field.as_str();
        let passes = rules.passes.iter().any(|prefix| field.starts_with(prefix));
        let step = if rules.negative.contains(&field) {
            (side != Side::Positive).then_some(Side::Negative)
        } else if rules.positive.contains(&field) {
            (side != Side::Negative).then_some(Side::Positive)
        } else if rules.encoder.contains(&field) {
            None
        } else if passes {
            Some(if side == Side::Neither { Side::Positive } else { side })
        } else {
            Some(if is_relay { side } else { Side::Neither })
        };
        next.extend(step.map(|side| (edge.source.clone(), side)));
    }
    next
}

/// The texts of a node that conditioning of this side comes from. A node that takes both as text says itself which is which.
fn collect(workflow: &Workflow<'_>, found: &mut Walk, node: &str, side: Side) {
    let rules = &workflow.rules.texts;
    let is_text =
        |field: &&&str| workflow.value(node, field).is_some_and(|value| value.is_string() || value.is_null());
    let named = |names: &'static [&'static str]| names.iter().filter(is_text).collect::<Vec<_>>();
    let (positive, negative) = (named(rules.positive), named(rules.negative));
    let both: &[(Side, &[&&str])] = &[(Side::Positive, &positive), (Side::Negative, &negative)];
    for (of, fields) in both.iter().filter(|(of, _)| side == Side::Neither || side == *of) {
        for field in *fields {
            add(workflow, found, *of, node, field);
        }
    }
    let has_own = both.iter().any(|(of, fields)| *of == side && !fields.is_empty());
    if side == Side::Neither || has_own {
        return;
    }
    let exists = |field: &&&str| {
        workflow.edge(node, field).is_some() || (is_text(field) && workflow.has_input(node, field))
    };
    for field in rules.encoder.iter().filter(exists) {
        add(workflow, found, side, node, field);
    }
    // A node for texts that a pipe's loader reads.
    let is_source = workflow.edges_into(node).next().is_none();
    if is_source && !found.texts.iter().any(|text| text.side == side && text.encoder == node) {
        for (at, text) in parts(workflow, node) {
            let how = format!("the text of {}", workflow.describe(node));
            found.texts.push(Text { side, encoder: node.to_owned(), at, value: text, how });
        }
    }
}

/// Adds the text of an input, which may come from other nodes.
fn add(workflow: &Workflow<'_>, found: &mut Walk, side: Side, node: &str, field: &str) {
    let encoder = workflow.describe(node);
    let mut push = |at: NodeInput, text: &str, how: String| {
        found.texts.push(Text { side, encoder: node.to_owned(), at, value: text.to_owned(), how });
    };
    let Some(edge) = workflow.edge(node, field) else {
        let text = workflow.value(node, field).and_then(|value| value.as_str()).unwrap_or_default();
        return push(input(node, field), text, format!("the text of {encoder}"));
    };
    let mut sources = sources(workflow, &edge.source);
    // Without a better hint, the prompt is the longest part.
    sources.sort_by_key(|(_, text)| std::cmp::Reverse(text.trim().chars().count()));
    match sources.as_slice() {
        [] => {
            let how =
                format!("the text of {encoder}, in place of what {} gives", workflow.describe(&edge.source));
            push(input(node, field), "", how);
        }
        [(at, text)] => {
            push(at.clone(), text, format!("{}, the text that {encoder} gets", workflow.describe(&at.node)));
        }
        [(at, text), others @ ..] => {
            let others: Vec<_> = others.iter().map(|(at, _)| at.to_string()).collect();
            let how = format!(
                "{}, the longest part of the text that {encoder} gets; {} stay",
                workflow.describe(&at.node),
                others.join(", ")
            );
            push(at.clone(), text, how);
        }
    }
}

/// The texts that a chain of nodes for texts is made of.
fn sources(workflow: &Workflow<'_>, from: &str) -> Vec<(NodeInput, String)> {
    let (mut seen, mut open, mut found) = (BTreeSet::new(), vec![from.to_owned()], Vec::new());
    while let Some(node) = open.pop() {
        if !seen.insert(node.clone()) {
            continue;
        }
        found.extend(parts(workflow, &node).into_iter().filter(|(_, text)| !text.trim().is_empty()));
        let is_part = |field: &str| workflow.rules.texts.parts.iter().any(|prefix| field.starts_with(prefix));
        let edges: Vec<_> = workflow.edges_into(&node).collect();
        let is_relay = edges.len() == 1;
        let texts = edges.iter().filter(|edge| is_relay || is_part(&edge.target.field));
        open.extend(texts.map(|edge| edge.source.clone()));
    }
    if found.is_empty() && seen.len() == 1 {
        found = parts(workflow, from);
    }
    found
}

/// The texts that a node holds itself.
fn parts(workflow: &Workflow<'_>, node: &str) -> Vec<(NodeInput, String)> {
    let is_part = |field: &&str| workflow.rules.texts.parts.iter().any(|prefix| field.starts_with(prefix));
    let fields = workflow.fields(node).filter(is_part);
    let text = |field: &str| Some((input(node, field), workflow.value(node, field)?.as_str()?.to_owned()));
    fields.filter_map(text).collect()
}

/// A node that makes the picture by itself, from a prompt and a seed; else one that looks for something in a picture.
fn find_self_contained(workflow: &Workflow<'_>, found: &mut Walk, output: &str) {
    let reached = workflow.upstream(output, &BTreeSet::new());
    let has_seed = |node: &&String| workflow.rules.seeds.iter().any(|field| workflow.has_input(node, field));
    for node in reached.keys().filter(has_seed) {
        collect(workflow, found, node, Side::Positive);
        if !workflow.rules.texts.negative.is_empty() {
            for field in workflow.rules.texts.negative {
                if workflow.value(node, field).is_some_and(serde_json::Value::is_string) {
                    add(workflow, found, Side::Negative, node, field);
                }
            }
        }
    }
    if found.texts.is_empty() && found.zeroed.is_empty() {
        let has_prompt =
            |node: &&String| workflow.value(node, SEARCHED).is_some_and(serde_json::Value::is_string);
        for node in reached.keys().filter(has_prompt) {
            add(workflow, found, Side::Positive, node, SEARCHED);
        }
    }
}
