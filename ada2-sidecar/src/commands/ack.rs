//! `ada2-sidecar ack`: an operator has seen to what is latched. Through the state directory, never the network.

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    instance::Instance,
    readiness::latch::file::{LatchFile, boot_id},
};

/// The service looks twice a second.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn ack(config: &Config) -> io::Result<ExitCode> {
    let known = config.state_dirs.iter().find(|folder| folder.join("instance").exists());
    let Some(folder) = known else {
        let all: Vec<_> = config.state_dirs.iter().map(|folder| folder.display().to_string()).collect();
        let words = format!(
            "no state of a sidecar can be seen in {}: use sudo, or name its directory with --state-dir",
            all.join(" or ")
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, words));
    };
    let files = LatchFile::in_directory(folder);
    let latch = files.read()?.unwrap_or_default().of_boot(&boot_id());
    let mut out = io::stdout();
    // Nobody holds the lock: no service is there to ask.
    let running = Instance::holder(folder);
    match &running {
        None => files.write(&latch.cleared())?,
        Some(holder) => {
            files.ask_ack()?;
            let deadline = Instant::now() + PATIENCE;
            while files.ack_is_asked() {
                if Instant::now() > deadline {
                    files.ack_is_done()?;
                    let words = format!(
                        "the running sidecar ({holder}) did not take it within {PATIENCE:?}; look at its log"
                    );
                    return Err(io::Error::new(io::ErrorKind::TimedOut, words));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    let lines = latch.lines();
    if lines.is_empty() {
        writeln!(out, "nothing was latched")?;
    }
    for line in lines {
        writeln!(out, "acknowledged: {line}")?;
    }
    Ok(ExitCode::SUCCESS)
}
