//! Prometheus' own checker of metrics pages.

use std::{
    io::{ErrorKind, Write},
    process::{Command, Stdio},
};

/// The complaints of `promtool check metrics`; empty if there are none. `None` without promtool.
pub fn lint(metrics: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = command.spawn();
    if started.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return None;
    }
    let mut promtool = started.expect("promtool starts");
    promtool.stdin.take().expect("piped").write_all(metrics.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let text = [output.stdout, output.stderr].concat();
    let failed = if output.status.success() { "" } else { " (failed)" };
    Some(format!("{}{failed}", String::from_utf8_lossy(&text)))
}
