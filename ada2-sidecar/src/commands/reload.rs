//! `ada2-sidecar reload`: the running sidecar reads its configuration again, and reports the result.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::exit_code;
use crate::admin::{AdminRequest, send_request};

/// `systemctl reload` runs it: it fails if the reload does.
pub(super) fn reload(sockets: &[PathBuf]) -> io::Result<ExitCode> {
    let Some(response) = send_request(sockets, AdminRequest::Reload)? else {
        let all: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
        let message = format!(
            "no sidecar listens at {}; start it, or name its directory with --state-dir",
            all.join(" or ")
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    if response.done {
        let mut out = io::stdout();
        for line in response.lines {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "configuration reloaded")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = io::stderr();
    for line in response.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "configuration not reloaded; the one before stays in force")?;
    Ok(exit_code(false))
}
