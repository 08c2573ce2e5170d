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
    readiness::latch::store::{LatchStore, boot_id},
};

/// The service looks twice a second.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn ack(config: &Config) -> io::Result<ExitCode> {
    let known = config.state_dirs.iter().find(|folder| folder.join("instance").exists());
    let Some(folder) = known else {
        let all: Vec<_> = config.state_dirs.iter().map(|folder| folder.display().to_string()).collect();
        let message = format!(
            "no state of a sidecar can be seen in {}: use sudo, or name its directory with --state-dir",
            all.join(" or ")
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    let store = LatchStore::open(folder);
    let latch = store.load()?.unwrap_or_default().for_boot(&boot_id());
    let mut out = io::stdout();
    // Nobody holds the lock: no service is there to ask.
    let running = Instance::lock_holder(folder);
    match &running {
        None => store.save(&latch.cleared())?,
        Some(holder) => {
            store.request_ack()?;
            let deadline = Instant::now() + ACK_TIMEOUT;
            while store.is_ack_requested() {
                if Instant::now() > deadline {
                    store.clear_ack_request()?;
                    let message = format!(
                        "the running sidecar ({holder}) did not take it within {ACK_TIMEOUT:?}; look at its log"
                    );
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    let lines = latch.describe();
    if lines.is_empty() {
        writeln!(out, "nothing was latched")?;
    }
    for line in lines {
        writeln!(out, "acknowledged: {line}")?;
    }
    Ok(ExitCode::SUCCESS)
}
