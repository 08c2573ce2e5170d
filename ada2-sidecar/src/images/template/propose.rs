//! Proposes the bindings of a workflow: starts at the node that saves the picture and follows the links backwards. What it
//! finds depends on links and names of inputs, not on names of nodes; what an engine calls things is in its [`ProposeRules`].
//! Pure: no engine is asked.

mod conditioning;
mod draft;
mod format;
mod graph;
mod incoming;
mod masks;
mod numbers;
mod output;
mod pictures;
mod rules;
mod size;

use serde_json::Value;

use self::{draft::Draft, graph::Workflow};
use super::{GraphFormat, Template, TemplateError, parse};
use crate::images::Task;

pub use self::rules::{Pictures, ProposeRules, SizeInputs, Texts};

/// What can be said about a workflow.
#[derive(Debug)]
pub struct Proposal {
    /// The binding file with its reasons in comments; nothing if not even the output was found.
    pub text: String,
    /// What is not bound, and why; what else its author should know.
    pub notes: Vec<String>,
    /// The task that the file serves, or why it cannot be used as it is.
    pub outcome: Result<Task, Vec<String>>,
}

/// Reads a workflow and proposes its binding file.
pub fn propose(format: GraphFormat, workflow: &str) -> Proposal {
    let refused =
        |reasons: Vec<String>| Proposal { text: String::new(), notes: Vec::new(), outcome: Err(reasons) };
    let document: Value = match serde_json::from_str(parse::strip_bom(workflow)) {
        Ok(document) => document,
        Err(error) => return refused(vec![format!("the workflow is not JSON: {error}")]),
    };
    let parsed = match format.parse(document) {
        Ok(parsed) => parsed,
        Err(TemplateError(reason)) => return refused(vec![reason]),
    };
    let workflow_graph = Workflow::new(format, &parsed);
    let mut draft = match output::find(&workflow_graph) {
        Ok(choice) => Draft::new(choice),
        Err(reason) => return refused(vec![reason]),
    };
    conditioning::bind_texts(&workflow_graph, &mut draft);
    numbers::bind_seeds(&workflow_graph, &mut draft);
    size::bind(&workflow_graph, &mut draft);
    numbers::bind_settings(&workflow_graph, &mut draft);
    pictures::bind(&workflow_graph, &mut draft);
    numbers::bind_model_and_batch(&workflow_graph, &mut draft);
    numbers::note_loras(&workflow_graph, &mut draft);
    draft.bind_records(&workflow_graph);
    draft.require_for_generate();
    let text = draft.to_yaml(&workflow_graph);
    let outcome = check(format, workflow, &text, draft.task(), draft.problems);
    Proposal { text, notes: draft.notes, outcome }
}

/// Whether the text is a template for the task, by the rules that presets are read by. What is missing for the task is
/// known before, with its reason.
fn check(
    format: GraphFormat,
    workflow: &str,
    text: &str,
    task: Task,
    mut problems: Vec<String>,
) -> Result<Task, Vec<String>> {
    let is_complete = problems.is_empty();
    let checked = Template::read(format, workflow, text)
        .and_then(|template| if is_complete { template.check_task(task) } else { Ok(()) });
    problems.extend(checked.err().into_iter().flatten().map(|error| error.0));
    if problems.is_empty() { Ok(task) } else { Err(problems) }
}

#[cfg(test)]
mod tests;
