//! `ada2-sidecar template propose`: the binding file for a workflow, with reasons.

use std::{
    fs,
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use serde_json::Value;

use crate::{
    commands::exit_code,
    engine::EngineKind,
    images::template::{GraphFormat, Proposal, propose as propose_bindings},
};

pub(super) fn propose(arguments: &ArgMatches) -> io::Result<ExitCode> {
    let path = arguments.get_one::<String>("workflow").expect("it is required");
    let text = fs::read_to_string(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    let Some((kind, format)) = engine_of(&text) else {
        return Err(io::Error::other(format!(
            "{path} is no workflow: neither ComfyUI's, with a class_type in each node, nor InvokeAI's, with nodes and edges; in \
             ComfyUI save it with Export (API)"
        )));
    };
    print(kind, &propose_bindings(format, &text))
}

/// Whose workflow this is, by its form.
fn engine_of(text: &str) -> Option<(EngineKind, GraphFormat)> {
    let document: Value = serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    let mut kinds = EngineKind::servers().filter_map(|kind| Some((kind, kind.graph_format()?)));
    kinds.find(|(_, format)| format.recognizes(&document))
}

fn print(kind: EngineKind, proposal: &Proposal) -> io::Result<ExitCode> {
    io::stdout().write_all(proposal.text.as_bytes())?;
    let mut err = io::stderr();
    for note in &proposal.notes {
        writeln!(err, "note: {note}")?;
    }
    match &proposal.outcome {
        Ok(task) => writeln!(err, "{} workflow, usable for the task {}", kind.name(), task.name())?,
        Err(reasons) => {
            for reason in reasons {
                writeln!(err, "error: {reason}")?;
            }
        }
    }
    Ok(exit_code(proposal.outcome.is_ok()))
}
