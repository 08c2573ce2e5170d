//! `ada2-sidecar reload`: asks the running sidecar to read its configuration again, and says what came of it.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::EXIT_FAILURE;
use crate::admin::{AdminRequest, send_request};

/// What `systemctl reload` runs: it fails as the reload does.
pub(super) fn reload(sockets: &[PathBuf]) -> io::Result<ExitCode> {
    let Some(answer) = send_request(sockets, AdminRequest::Reload)? else {
        let all: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
        let message = format!(
            "no sidecar listens at {}; start it, or name its directory with --state-dir",
            all.join(" or ")
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    if answer.done {
        let mut out = io::stdout();
        for line in answer.lines {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "configuration reloaded")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stderr();
    for line in answer.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "configuration not reloaded; the one before stays in force")?;
    Ok(ExitCode::from(EXIT_FAILURE))
}
