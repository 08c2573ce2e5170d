//! The node whose picture is the result.

use std::{cmp::Reverse, collections::BTreeSet};

use super::graph::Workflow;

pub(super) struct OutputChoice {
    pub(super) node: String,
    pub(super) reason: String,
    pub(super) notes: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// The rank of a node that takes a picture and gives none, and whose name does not say that it saves it.
const UNNAMED: u8 = 1;

/// A node that could be the output, with what speaks for it.
struct Candidate<'a> {
    node: &'a str,
    /// Whether its picture comes from a seed.
    is_made: bool,
    rank: u8,
    depends_on: usize,
}

/// What its last node saves, if it saves pictures at all.
pub(super) fn find(workflow: &Workflow<'_>) -> Result<OutputChoice, String> {
    let mut candidates: Vec<_> =
        workflow.ids().into_iter().filter_map(|id| candidate(workflow, id)).collect();
    candidates.sort_by_key(|one| Reverse((one.is_made, one.rank, one.depends_on)));
    let Some(best) = candidates.first() else { return Err(no_output(workflow)) };
    let mut choice = OutputChoice {
        node: best.node.to_owned(),
        reason: "no other node saves one".to_owned(),
        notes: Vec::new(),
        problems: problems(workflow, best.node),
    };
    if let Some(next) = candidates.get(1) {
        choice.reason = if best.is_made != next.is_made {
            "the only one that comes from a seed".to_owned()
        } else if best.rank != next.rank {
            "it saves, the others only show".to_owned()
        } else if best.depends_on != next.depends_on {
            "the last step, which depends on most nodes".to_owned()
        } else {
            "the first of several that are alike".to_owned()
        };
        let others = candidates[1..].iter().filter(|other| other.rank != UNNAMED);
        let others: Vec<_> = others.map(|other| workflow.describe(other.node)).collect();
        if !others.is_empty() {
            choice.notes.push(format!(
                "also saved or shown, and not part of the answer: {}; nodes that only these need cost time, so remove them",
                others.join(", ")
            ));
        }
    }
    let films = films(workflow);
    if !films.is_empty() {
        choice.notes.push(format!("not served, since only pictures are: {}; remove them", films.join(", ")));
    }
    Ok(choice)
}

fn candidate<'a>(workflow: &Workflow<'a>, id: &'a str) -> Option<Candidate<'a>> {
    let rules = workflow.rules;
    let is_film = workflow.class_has(id, rules.films);
    let gets_picture = rules.saved.iter().any(|field| workflow.edge(id, field).is_some());
    let saves_itself = rules.self_saving.iter().any(|(field, values)| {
        workflow
            .value(id, field)
            .and_then(|value| value.as_str())
            .is_some_and(|value| values.contains(&value))
    });
    let is_saver = saves_itself || rules.savers.contains(&workflow.class(id));
    let is_end = workflow.readers(id).next().is_none();
    if is_film || !(gets_picture || saves_itself) || !(is_saver || is_end) {
        return None;
    }
    let reached = workflow.upstream(id, &BTreeSet::new());
    let has_seed = |node: &String| rules.seeds.iter().any(|field| workflow.has_input(node, field));
    let is_unreadable = rules.unreadable.iter().any(|(word, _)| workflow.class(id).contains(word));
    let rank = match () {
        () if is_unreadable => 0,
        () if workflow.class_has(id, rules.previews) => 2,
        () if is_saver || workflow.class_has(id, &["Save", "save"]) => 3,
        () => UNNAMED,
    };
    Some(Candidate { node: id, is_made: reached.keys().any(has_seed), rank, depends_on: reached.len() })
}

/// Why this output does not do.
fn problems(workflow: &Workflow<'_>, output: &str) -> Vec<String> {
    let (rules, class) = (workflow.rules, workflow.class(output));
    let unreadable = rules.unreadable.iter().find(|(word, _)| class.contains(word));
    let mut problems: Vec<String> = unreadable
        .map(|(_, fix)| format!("output: {}: {fix}", workflow.describe(output)))
        .into_iter()
        .collect();
    for node in workflow.upstream(output, &BTreeSet::new()).keys() {
        let frames = rules.frames.iter().find_map(|field| workflow.number(node, field)).unwrap_or(1.0);
        if workflow.class_has(node, rules.films) && frames > 1.0 {
            let node = workflow.describe(node);
            problems.push(format!(
                "{node} makes a film of {frames} pictures, and a request asks for single ones: set it to 1 if the model \
                 can, or use a workflow for pictures"
            ));
        }
    }
    problems
}

fn films(workflow: &Workflow<'_>) -> Vec<String> {
    let is_end = |id: &&str| workflow.readers(id).next().is_none();
    let films = workflow.ids().into_iter().filter(|id| workflow.class_has(id, workflow.rules.films));
    films.filter(is_end).map(|id| workflow.describe(id)).collect()
}

fn no_output(workflow: &Workflow<'_>) -> String {
    let films = films(workflow);
    if films.is_empty() {
        "no node saves a picture: end the workflow with a node that does, such as ".to_owned()
            + workflow.rules.savers.first().copied().unwrap_or_default()
    } else {
        format!(
            "the workflow makes a film or sound ({}), and the Images API serves pictures: use a workflow that ends with a \
             picture",
            films.join(", ")
        )
    }
}
