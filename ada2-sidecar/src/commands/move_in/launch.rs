//! Runs the part that changes this host in a transient systemd unit, and waits for it. Its standard input is a pipe from
//! this process: if this process ends for any reason, the unit reads the end of input and undoes its changes.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use service::subprocess::poll_until;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    reporter::MoveError,
    units::{is_running, systemctl},
};
use crate::commands::client::block_on;

pub(crate) const UNIT: &str = "ada2-sidecar-move-in.service";
/// Held while a command runs.
const LOCK: &str = "/run/ada2-sidecar-move-in.lock";
const POLL: Duration = Duration::from_millis(20);
/// For the unit to undo its changes, if systemd-run is killed.
const EXIT_TIMEOUT: Duration = Duration::from_mins(2);

/// Excludes other move commands until the file is dropped.
pub(crate) fn lock() -> Result<File, MoveError> {
    let file = File::options().create(true).append(true).open(LOCK);
    let file = file.map_err(|error| MoveError::from_cause("lock", LOCK, error))?;
    if file.try_lock().is_err() || is_running(UNIT) {
        let message = "another move-in or move-out is running";
        return Err(MoveError::new(
            "lock",
            message,
            format!("wait for it, or undo it: `sudo systemctl stop {UNIT}`"),
        ));
    }
    Ok(file)
}

/// Runs this program in the unit. True if it succeeded.
pub(crate) fn run_in_unit(program: &Path, arguments: &[&str]) -> Result<bool, MoveError> {
    let failed = |error: io::Error| MoveError::from_cause("unit", "systemd-run", error);
    // An earlier unit that was not collected.
    let _ = systemctl("unit", &["reset-failed", UNIT]);
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "--wait", "--pipe", "--service-type=exec", "--unit", UNIT]);
    command.args(["--description=Moving ada2-sidecar in or out", "--property=KillMode=mixed"]);
    command.arg("--property=TimeoutStopSec=90");
    command.arg(format!("--property=ExecStopPost={} move-in --recover", program.display()));
    command.arg(program).args(arguments).stdin(Stdio::piped());
    // In a process group of its own, so that Ctrl-C reaches only this process, which closes the pipe.
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    let success = block_on(wait(&mut child)).and_then(|result| result).map_err(failed)?;
    if poll_until(EXIT_TIMEOUT, || (!is_running(UNIT)).then_some(())).is_none() {
        return Err(MoveError::new(
            "unit",
            format!("{UNIT} does not end"),
            format!("`systemctl status {UNIT}`"),
        ));
    }
    Ok(success)
}

/// Waits for the unit. A signal closes the pipe, and the unit undoes its changes.
async fn wait(child: &mut Child) -> io::Result<bool> {
    let mut pipe = child.stdin.take();
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        signals.push(signal(kind)?);
    }
    let [interrupt, terminate, hangup] = &mut signals[..] else { return Ok(false) };
    let mut tick = tokio::time::interval(POLL);
    loop {
        tokio::select! {
            _ = tick.tick() => if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            },
            _ = interrupt.recv() => drop(pipe.take()),
            _ = terminate.recv() => drop(pipe.take()),
            _ = hangup.recv() => drop(pipe.take()),
        }
    }
}
