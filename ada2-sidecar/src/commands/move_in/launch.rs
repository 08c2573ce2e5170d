//! Runs the part that changes things in a transient unit of systemd's, and waits for it. The unit's standard input is a pipe
//! that we hold: whatever ends this process, the unit reads its end and has everything as before.

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

/// The unit.
pub(crate) const UNIT: &str = "ada2-sidecar-move-in.service";
/// Held while a command is at work.
const LOCK: &str = "/run/ada2-sidecar-move-in.lock";
const POLL: Duration = Duration::from_millis(20);
/// For the unit to have everything as before, should systemd-run be killed.
const EXIT_TIMEOUT: Duration = Duration::from_mins(2);

/// Makes sure that no other command changes this host meanwhile. The lock ends with the file.
pub(crate) fn lock() -> Result<File, MoveError> {
    let file = File::options().create(true).append(true).open(LOCK);
    let file = file.map_err(|error| MoveError::from_cause("lock", LOCK, error))?;
    if file.try_lock().is_err() || is_running(UNIT) {
        let message = "another move-in or move-out is at work";
        return Err(MoveError::new(
            "lock",
            message,
            format!("wait for it, or have it undone: `sudo systemctl stop {UNIT}`"),
        ));
    }
    Ok(file)
}

/// Runs this program with these words in the unit; true if it ended well.
pub(crate) fn run_in_unit(program: &Path, arguments: &[&str]) -> Result<bool, MoveError> {
    let failed = |error: io::Error| MoveError::from_cause("unit", "systemd-run", error);
    // What an earlier one left, if it could not be collected.
    let _ = systemctl("unit", &["reset-failed", UNIT]);
    let mut command = Command::new("systemd-run");
    command.args(["--quiet", "--collect", "--wait", "--pipe", "--service-type=exec", "--unit", UNIT]);
    command.args(["--description=Moving ada2-sidecar in or out", "--property=KillMode=mixed"]);
    command.arg("--property=TimeoutStopSec=90");
    command.arg(format!("--property=ExecStopPost={} move-in --recover", program.display()));
    command.arg(program).args(arguments).stdin(Stdio::piped());
    // Ctrl-C in the terminal is for us to pass on.
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let ended_well = runtime.block_on(wait(&mut child)).map_err(failed)?;
    if poll_until(EXIT_TIMEOUT, || (!is_running(UNIT)).then_some(())).is_none() {
        return Err(MoveError::new(
            "unit",
            format!("{UNIT} does not end"),
            format!("`systemctl status {UNIT}`"),
        ));
    }
    Ok(ended_well)
}

/// Until the unit has ended. A signal closes the pipe, and the unit does the rest.
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
