//! `ada2-sidecar ack`: acknowledges what is latched, through the state directory and never the network.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use service::subprocess::poll_until;

use crate::{
    config::Config,
    instance::Instance,
    readiness::latch::store::{LatchStore, boot_id},
};

/// The service checks twice a second.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn ack(config: &Config) -> io::Result<ExitCode> {
    let dir = config.state_dirs.iter().find(|dir| dir.join("instance").exists());
    let Some(dir) = dir else {
        let all: Vec<_> = config.state_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let message = format!(
            "this user finds no state of a sidecar in {}: use sudo, or name its directory with --state-dir",
            all.join(" or ")
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    let store = LatchStore::open(dir);
    let latch = store.load()?.unwrap_or_default().for_boot(&boot_id());
    let mut out = io::stdout();
    let lock_holder = Instance::lock_holder(dir);
    match &lock_holder {
        // No service runs.
        None => store.save(&latch.cleared())?,
        Some(holder) => {
            store.request_ack()?;
            if poll_until(ACK_TIMEOUT, || (!store.is_ack_requested()).then_some(())).is_none() {
                store.clear_ack_request()?;
                let message = format!(
                    "the running sidecar ({holder}) did not react within {ACK_TIMEOUT:?}; see its log"
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
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
