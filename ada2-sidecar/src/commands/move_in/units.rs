//! Starts, stops and inspects systemd units while the host changes.

use std::{net::SocketAddr, time::Duration};

use service::subprocess::{poll_until, run};

use super::reporter::MoveError;
pub(crate) use crate::commands::systemd::{SERVICE, SOCKET};
use crate::{commands::systemd, port};

/// For one call. A start waits until the service is ready, 5 s at most.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_mins(1);
/// For a process to release the port.
const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs `systemctl`.
pub(crate) fn systemctl(step: &'static str, arguments: &[&str]) -> Result<(), MoveError> {
    let command = format!("systemctl {}", arguments.join(" "));
    let output = run("systemctl", arguments, SYSTEMCTL_TIMEOUT)
        .map_err(|error| MoveError::from_cause(step, &command, error))?;
    if output.success() { Ok(()) } else { Err(MoveError::from_cause(step, &command, output.error_text())) }
}

fn property(unit: &str, property: &str) -> String {
    systemd::property(unit, property).unwrap_or_default()
}

pub(crate) fn is_active(unit: &str) -> bool {
    matches!(property(unit, "ActiveState").as_str(), "active" | "reloading" | "refreshing")
}

/// Whether it runs, is starting or is stopping.
pub(crate) fn is_running(unit: &str) -> bool {
    !matches!(property(unit, "ActiveState").as_str(), "inactive" | "failed" | "")
}

pub(crate) fn is_enabled(unit: &str) -> bool {
    property(unit, "UnitFileState") == "enabled"
}

/// Whether systemd runs here and knows both units.
pub(crate) fn check_installed() -> Result<(), MoveError> {
    let step = "units";
    if !systemd::is_running() {
        return Err(MoveError::new(
            step,
            "systemd is not the service manager of this host",
            "run `ada2-sidecar serve` under your own supervisor",
        ));
    }
    for unit in [SERVICE, SOCKET] {
        let (state, file) = (property(unit, "LoadState"), property(unit, "FragmentPath"));
        match state.as_str() {
            "loaded" => {}
            "masked" => {
                return Err(MoveError::new(
                    step,
                    format!("{unit} is masked"),
                    format!("sudo systemctl unmask {unit}"),
                ));
            }
            "not-found" => {
                let message = format!("{unit} is not installed");
                return Err(MoveError::new(
                    step,
                    message,
                    "install the package: `sudo apt install ./ada2-sidecar_*.deb`",
                ));
            }
            other => {
                let message = format!("{unit} ({file}) is {other}");
                return Err(MoveError::new(step, message, format!("`systemctl status {unit}` says why")));
            }
        }
    }
    Ok(())
}

/// The addresses of the socket unit.
pub(crate) fn listen_addresses() -> Result<Vec<SocketAddr>, MoveError> {
    let addresses = systemd::listen_addresses(SOCKET).unwrap_or_default();
    if addresses.is_empty() {
        let message = format!("{SOCKET} names no TCP address");
        return Err(MoveError::new(
            "units",
            message,
            format!("add ListenStream= to it; `systemctl cat {SOCKET}` shows it"),
        ));
    }
    Ok(addresses)
}

/// Waits until all of these addresses are free.
pub(crate) fn wait_until_free(step: &'static str, addresses: &[SocketAddr]) -> Result<(), MoveError> {
    let free = || addresses.iter().all(|address| port::find_holder(*address).is_none()).then_some(());
    poll_until(PORT_TIMEOUT, free).ok_or_else(|| {
        let holders = addresses
            .iter()
            .filter_map(|address| port::find_holder(*address).map(|holder| holder.describe(*address)));
        let holders: Vec<_> = holders.collect();
        let message =
            format!("the port is still held after {} s by {}", PORT_TIMEOUT.as_secs(), holders.join(" and "));
        MoveError::new(step, message, "stop it, then run the same command again")
    })
}

/// The unit's last lines in the journal.
pub(crate) fn last_log_lines(unit: &str) -> String {
    let arguments = ["--no-pager", "-q", "-o", "cat", "-n", "3", "-u", unit];
    let output = run("journalctl", &arguments, SYSTEMCTL_TIMEOUT);
    output.map(|output| output.stdout.trim().to_owned()).unwrap_or_default()
}
