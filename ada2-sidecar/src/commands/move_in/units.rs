//! systemd's units: what is asked of it, and what it is told.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    reporter::MoveError,
    subprocess::{poll_until, run},
};
use crate::{commands::check_port, port};

pub(crate) const SERVICE: &str = "ada2-sidecar.service";
pub(crate) const SOCKET: &str = "ada2-sidecar.socket";
/// systemd runs here.
const SYSTEMD_RUNTIME_DIR: &str = "/run/systemd/system";

/// For one call. A start waits for the service to be ready, which takes it 5 s at most.
const SYSTEMCTL_TIMEOUT: Duration = Duration::from_mins(1);
/// For a process to let go of the port.
const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells systemd.
pub(crate) fn systemctl(step: &'static str, arguments: &[&str]) -> Result<(), MoveError> {
    let what = format!("systemctl {}", arguments.join(" "));
    let ran = run("systemctl", arguments, SYSTEMCTL_TIMEOUT)
        .map_err(|error| MoveError::from_cause(step, &what, error))?;
    if ran.success { Ok(()) } else { Err(MoveError::from_cause(step, &what, ran.text())) }
}

/// What systemd says of a unit; empty where it says nothing.
pub(crate) fn show_property(unit: &str, property: &str) -> String {
    let property = format!("--property={property}");
    let ran = run("systemctl", &["show", "--value", &property, unit], SYSTEMCTL_TIMEOUT);
    ran.map(|ran| ran.stdout.trim().to_owned()).unwrap_or_default()
}

pub(crate) fn is_active(unit: &str) -> bool {
    matches!(show_property(unit, "ActiveState").as_str(), "active" | "reloading" | "refreshing")
}

/// Whether it runs, starts or stops.
pub(crate) fn is_running(unit: &str) -> bool {
    !matches!(show_property(unit, "ActiveState").as_str(), "inactive" | "failed" | "")
}

/// Whether it would be started at boot.
pub(crate) fn is_enabled(unit: &str) -> bool {
    show_property(unit, "UnitFileState") == "enabled"
}

/// Systemd, and both of our units.
pub(crate) fn check_installed() -> Result<(), MoveError> {
    let step = "units";
    if !Path::new(SYSTEMD_RUNTIME_DIR).is_dir() {
        return Err(MoveError::new(
            step,
            "systemd does not run here",
            "run `ada2-sidecar serve` under your own supervisor",
        ));
    }
    for unit in [SERVICE, SOCKET] {
        let (state, file) = (show_property(unit, "LoadState"), show_property(unit, "FragmentPath"));
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

/// Where the socket unit listens.
pub(crate) fn listen_addresses() -> Result<Vec<SocketAddr>, MoveError> {
    let found = check_port::listen_addresses(SOCKET).unwrap_or_default();
    if found.is_empty() {
        let message = format!("{SOCKET} names no TCP address");
        return Err(MoveError::new(
            "units",
            message,
            format!("`systemctl cat {SOCKET}`: it needs ListenStream="),
        ));
    }
    Ok(found)
}

/// Waits until nobody holds any of these addresses.
pub(crate) fn wait_until_free(step: &'static str, addresses: &[SocketAddr]) -> Result<(), MoveError> {
    let free = || addresses.iter().all(|address| port::find_holder(*address).is_none()).then_some(());
    poll_until(PORT_TIMEOUT, free).ok_or_else(|| {
        let holders = addresses
            .iter()
            .filter_map(|address| port::find_holder(*address).map(|holder| holder.describe(*address)));
        let who: Vec<_> = holders.collect();
        let message =
            format!("the port is still held after {} s by {}", PORT_TIMEOUT.as_secs(), who.join(" and "));
        MoveError::new(step, message, "stop it, then run the same command again")
    })
}

/// The variables that the service gets: those of its `EnvironmentFile=` over those of `Environment=`.
pub(crate) fn environment() -> io::Result<BTreeMap<String, String>> {
    let mut all: BTreeMap<_, _> =
        parse_environment(&show_property(SERVICE, "Environment").replace(' ', "\n"));
    for line in show_property(SERVICE, "EnvironmentFiles").lines() {
        let (path, optional) = match line.rsplit_once(" (ignore_errors=") {
            Some((path, rest)) => (path, rest.starts_with("yes")),
            None => (line, false),
        };
        match fs::read_to_string(path) {
            Ok(text) => all.extend(parse_environment(&text)),
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    Ok(all)
}

/// `NAME=value` lines as systemd reads them, for values that fit on a line.
fn parse_environment(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.trim().split_once('=')?;
        let value = value.trim();
        let quoted = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        let is_comment = name.starts_with(['#', ';']);
        (!is_comment).then(|| (name.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// The token's file, where the unit has it as a credential.
pub(crate) fn token_credential() -> Option<PathBuf> {
    let all = show_property(SERVICE, "LoadCredential");
    all.split_whitespace().find_map(|one| one.strip_prefix("token:")).map(PathBuf::from)
}

/// The last words of a unit in the journal.
pub(crate) fn last_log_lines(unit: &str) -> String {
    let ran = run("journalctl", &["--no-pager", "-q", "-o", "cat", "-n", "3", "-u", unit], SYSTEMCTL_TIMEOUT);
    ran.map(|ran| ran.stdout.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_as_systemd_reads_it() {
        let text =
            "# ADA2_A=1\n;x=y\nADA2_TOKEN=\"a b\"\n ADA2_ENGINE = comfyui \nADA2_GPU='optional'\nnothing\n";
        let all = parse_environment(text);
        let pairs: Vec<_> = all.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("ADA2_ENGINE", "comfyui"), ("ADA2_GPU", "optional"), ("ADA2_TOKEN", "a b")]);
    }
}
