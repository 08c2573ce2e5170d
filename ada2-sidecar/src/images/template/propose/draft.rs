//! What has been found so far.

use std::collections::BTreeSet;

use super::{graph::Workflow, output::OutputChoice};
use crate::images::{
    Task,
    template::{Binding, NodeInput},
};

/// One line of the binding file.
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) inputs: Vec<NodeInput>,
    /// Its comment.
    pub(super) why: String,
}

pub(super) struct Draft {
    /// The node whose picture is the result.
    pub(super) output: String,
    pub(super) output_reason: String,
    pub(super) bound: Vec<Bound>,
    /// For the author: what is not bound, and what else to know.
    pub(super) notes: Vec<String>,
    /// Why the file cannot be used.
    pub(super) problems: Vec<String>,
    /// What every request has and the graph takes nowhere, each with the reason. For an edit that is no problem.
    pub(super) without: Vec<(&'static str, String)>,
    /// Whether the guidance is 1, and nothing else stands for it.
    pub(super) is_without_guidance: bool,
    /// The schedulers that the bound nodes take, if these are not all of the engine's.
    pub(super) schedulers: &'static [&'static str],
    /// The nodes that the positive conditioning passes.
    pub(super) positive_nodes: BTreeSet<String>,
    /// Edges into these inputs count no more: a value always replaces them.
    pub(super) cut: BTreeSet<NodeInput>,
}

impl Draft {
    pub(super) fn new(choice: OutputChoice) -> Self {
        Self {
            output: choice.node,
            output_reason: choice.reason,
            bound: Vec::new(),
            notes: choice.notes,
            problems: choice.problems,
            without: Vec::new(),
            is_without_guidance: false,
            schedulers: &[],
            positive_nodes: BTreeSet::new(),
            cut: BTreeSet::new(),
        }
    }

    /// Adds a binding; without inputs, none.
    pub(super) fn bind(&mut self, name: &str, inputs: Vec<NodeInput>, why: String) {
        let mut unique: Vec<NodeInput> = Vec::new();
        // One file may have both the image and, as its transparency, the mask.
        let shares = |bound: &&Bound| name == "mask" && bound.name == "image";
        let others = self.bound.iter().filter(|bound| !shares(bound));
        let taken: Vec<&NodeInput> = others.flat_map(|bound| &bound.inputs).collect();
        for input in inputs {
            if !unique.contains(&input) && !taken.contains(&&input) {
                unique.push(input);
            }
        }
        if unique.is_empty() {
            return;
        }
        let is_always_set = ["prompt", "seed", "mask", "n"].contains(&name) || name.starts_with("image");
        if is_always_set {
            self.cut.extend(unique.iter().cloned());
        }
        self.bound.push(Bound { name: name.to_owned(), inputs: unique, why });
    }

    pub(super) fn binds(&self, name: &str) -> bool {
        self.bound.iter().any(|bound| bound.name == name)
    }

    /// Says that nothing takes a value that every request has. If a sampler makes the picture, it takes one, and only the way
    /// to it was not found.
    pub(super) fn lack(&mut self, name: &'static str, reason: String, is_sampled: bool) {
        if is_sampled {
            self.problems.push(format!("no {name}: {reason}"));
        } else {
            self.without.push((name, reason));
        }
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The nodes that the output depends on, nearest first.
    pub(super) fn reached(&self, workflow: &Workflow<'_>) -> Vec<String> {
        let mut found: Vec<_> = workflow.upstream(&self.output, &self.cut).into_iter().collect();
        let number = |id: &str| id.parse::<u64>().unwrap_or(u64::MAX);
        found.sort_by(|one, other| {
            (one.1, number(&one.0), &one.0).cmp(&(other.1, number(&other.0), &other.0))
        });
        found.into_iter().map(|(id, _)| id).collect()
    }

    /// A workflow that makes pictures from nothing needs a prompt and a seed.
    pub(super) fn require_for_generate(&mut self) {
        if self.task() == Task::Generate {
            let without = std::mem::take(&mut self.without);
            self.problems.extend(without.into_iter().map(|(name, reason)| format!("no {name}: {reason}")));
        }
    }

    /// By what it takes: a mask, a picture, neither.
    pub(super) fn task(&self) -> Task {
        if self.binds(&Binding::Mask.name()) {
            Task::Inpaint
        } else if self.binds(&Binding::Image(1).name()) {
            Task::Edit
        } else {
            Task::Generate
        }
    }

    /// The node that records how the picture was made takes the same values.
    pub(super) fn bind_records(&mut self, workflow: &Workflow<'_>) {
        let Some((_, fields)) = workflow.rules.record else { return };
        for node in self.reached(workflow).into_iter().filter(|node| workflow.is_record(node)) {
            for (name, field) in fields {
                let record = super::graph::input(&node, field);
                let is_there = workflow.value(&node, field).is_some();
                let bound = self.bound.iter_mut().find(|bound| bound.name == *name);
                if let Some(bound) = bound.filter(|_| is_there) {
                    bound.inputs.push(record);
                    bound.why = format!("{}; {node} records it", bound.why);
                }
            }
        }
    }
}
