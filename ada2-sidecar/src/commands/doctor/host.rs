//! The host around the service: disks, journal, clock, driver upgrades, and an interrupted move.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use service::{
    doctor::Finding,
    subprocess::{ProcessOutput, with_timeout},
};
use sysinfo::Disks;

use super::run_tool;
use crate::commands::{
    move_in::{nginx, record},
    systemd::SystemdUnit,
};

pub(super) const MIB: u64 = 1 << 20;
/// Enough for the latch and a day of log.
const MIN_FREE_BYTES: u64 = 200 * MIB;
const STATE_PARENT_DIR: &str = "/var/lib";
const JOURNAL_DIR: &str = "/var/log/journal";
/// A dead mount hangs whoever inspects it.
const DISK_TIMEOUT: Duration = Duration::from_secs(3);

/// A mounted disk, with the space that is available to programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskSpace {
    pub(super) mount: PathBuf,
    pub(super) available: u64,
    pub(super) read_only: bool,
}

/// The disk of a directory, or of its nearest parent that exists; none if the disks do not answer in time.
pub(super) fn disk_space_at(dir: &Path) -> Option<DiskSpace> {
    let real = dir.ancestors().find_map(|dir| fs::canonicalize(dir).ok())?;
    let disks = with_timeout(DISK_TIMEOUT, Disks::new_with_refreshed_list)?.ok()?;
    let holding = disks.iter().filter(|disk| real.starts_with(disk.mount_point()));
    let disk = holding.max_by_key(|disk| disk.mount_point().components().count())?;
    let (mount, available) = (disk.mount_point().to_owned(), disk.available_space());
    Some(DiskSpace { mount, available, read_only: disk.is_read_only() })
}

/// Whether there is space for state and log.
pub(super) fn disk_space() -> Finding {
    evaluate_disk(
        disk_space_at(Path::new(STATE_PARENT_DIR)).as_ref(),
        disk_space_at(Path::new("/var/log")).as_ref(),
    )
}

fn evaluate_disk(state: Option<&DiskSpace>, log: Option<&DiskSpace>) -> Finding {
    const NAME: &str = "disk_space";
    let spaces = [state, log].into_iter().flatten();
    if let Some(space) = spaces.clone().find(|space| space.read_only) {
        let mount = space.mount.display();
        let message = format!("{mount} is mounted read-only: neither state nor log can be written");
        return Finding::fail(
            NAME,
            message,
            format!("sudo dmesg | tail -30 # shows why; then sudo mount -o remount,rw {mount}"),
        );
    }
    let Some(space) = spaces.min_by_key(|space| space.available) else {
        return Finding::skip(NAME, "the disks do not answer; df -h /var shows whether one hangs");
    };
    let (mount, left) = (space.mount.display(), space.available / MIB);
    let message = format!("{left} MiB are free on {mount} for state and log");
    if space.available < MIN_FREE_BYTES {
        return Finding::warn(NAME, message, "sudo journalctl --vacuum-size=200M; df -h # then free space");
    }
    Finding::ok(NAME, message)
}

/// Whether the log survives a reboot.
pub(super) fn journal() -> Option<Finding> {
    let configured = run_tool("systemd-analyze", &["cat-config", "systemd/journald.conf"])?;
    Some(evaluate_journal(&configured.stdout, Path::new(JOURNAL_DIR).is_dir()))
}

fn evaluate_journal(configured: &str, dir_exists: bool) -> Finding {
    const NAME: &str = "journal";
    let value = |key: &str| {
        let mut lines = configured.lines().filter_map(|line| line.trim().split_once('='));
        lines.rfind(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
    };
    let storage = value("Storage").unwrap_or_else(|| "auto".to_owned());
    match storage.as_str() {
        "none" => Finding::warn(
            NAME,
            "the journal is not stored (Storage=none): the service's log is lost",
            "sudo mkdir -p /etc/systemd/journald.conf.d && printf '[Journal]\\nStorage=persistent\\n' | sudo tee \
             /etc/systemd/journald.conf.d/persistent.conf && sudo systemctl restart systemd-journald",
        ),
        "volatile" => Finding::warn(
            NAME,
            "the journal is lost at every reboot (Storage=volatile)",
            "sudo mkdir -p /etc/systemd/journald.conf.d && printf '[Journal]\\nStorage=persistent\\n' | sudo tee \
             /etc/systemd/journald.conf.d/zz-persistent.conf && sudo systemctl restart systemd-journald",
        ),
        "auto" if !dir_exists => Finding::warn(
            NAME,
            "the journal is lost at every reboot (/var/log/journal does not exist)",
            "sudo mkdir -p /var/log/journal && sudo systemd-tmpfiles --create --prefix /var/log/journal && \
             sudo journalctl --flush",
        ),
        _ => {
            let limit = value("SystemMaxUse").filter(|limit| !limit.is_empty());
            let limit = limit.unwrap_or_else(|| "a tenth of the disk, at most 4G".to_owned());
            Finding::ok(NAME, format!("kept across reboots, and limited ({limit})"))
        }
    }
}

/// Whether the clock is synchronised.
pub(super) fn clock() -> Option<Finding> {
    let output = run_tool("timedatectl", &["show"]).filter(ProcessOutput::success);
    output.map(|output| evaluate_clock(&SystemdUnit::parse("clock", &output.stdout)))
}

fn evaluate_clock(clock: &SystemdUnit) -> Finding {
    const NAME: &str = "clock";
    if clock.is("NTPSynchronized", "yes") {
        return Finding::ok(NAME, "synchronised");
    }
    match (clock.get("CanNTP"), clock.get("NTP")) {
        ("yes", "no") => Finding::warn(
            NAME,
            "the clock is not synchronised: times in logs and of images cannot be compared with other hosts",
            "sudo timedatectl set-ntp true",
        ),
        ("yes", _) => Finding::skip(
            NAME,
            "not synchronised yet, or no time server can be reached: timedatectl timesync-status shows which",
        ),
        _ => Finding::skip(NAME, "systemd-timesyncd is not installed; another time service may be in use"),
    }
}

/// Whether the driver may be upgraded while it is in use. Never a warning: it is a choice.
pub(super) fn driver_upgrades() -> Option<Finding> {
    let installed = run_tool(
        "dpkg-query",
        &["-W", "-f", "${db:Status-Want} ${db:Status-Status} ${Package}\\n", "nvidia-driver-*"],
    )?;
    let automatic = run_tool("apt-config", &["dump", "APT::Periodic::Unattended-Upgrade"])?;
    evaluate_upgrades(&installed.stdout, &automatic.stdout)
}

fn evaluate_upgrades(installed: &str, automatic: &str) -> Option<Finding> {
    const NAME: &str = "driver_upgrades";
    let all: Vec<Vec<&str>> = installed.lines().map(|line| line.split_whitespace().collect()).collect();
    let installed_packages: Vec<_> =
        all.iter().filter(|fields| fields.get(1) == Some(&"installed")).collect();
    let package = installed_packages.first()?.get(2)?;
    if installed_packages.iter().all(|fields| fields[0] == "hold") {
        return Some(Finding::ok(NAME, format!("{package} is held: upgrade it manually, then reboot")));
    }
    let unattended = automatic.contains("\"1\"");
    let message = if unattended {
        format!(
            "{package} may be upgraded unattended, after which programs fail until a reboot; to choose the time: `sudo apt-mark hold {package}`"
        )
    } else {
        format!("{package} is upgraded only manually; reboot afterwards")
    };
    Some(Finding::ok(NAME, message))
}

/// Whether the sidecar has moved in, or a move was interrupted. Only root may read the record.
pub(super) fn move_in_state(root: bool) -> Option<Finding> {
    if !root {
        return None;
    }
    let record = fs::read_to_string(record::path()).ok()?;
    evaluate_move(&record, || nginx::test().err().map(|error| error.message))
}

/// `nginx_error`: why nginx would reject its configuration, if it would.
fn evaluate_move(record: &str, nginx_error: impl FnOnce() -> Option<String>) -> Option<Finding> {
    const NAME: &str = "move_in";
    /// Rolls back a move-in, finishes a move-out.
    const MOVE_OUT_COMMAND: &str = "sudo ada2-sidecar move-out --yes";
    let record: serde_json::Value = serde_json::from_str(record).unwrap_or_default();
    match record["phase"].as_str() {
        Some("moving_in") => Some(Finding::fail(
            NAME,
            "a move-in is running or was interrupted; if no one is running it now, roll it back",
            MOVE_OUT_COMMAND,
        )),
        Some("moving_out") => Some(Finding::fail(
            NAME,
            "a move-out is running or was interrupted; if no one is running it now, finish it",
            MOVE_OUT_COMMAND,
        )),
        Some("moved_in") => {
            // Without a site to restore, moving out does not involve nginx.
            let has_site = record["plan"]["sites"].as_array().is_some_and(|sites| !sites.is_empty());
            Some(match has_site.then(nginx_error).flatten() {
                Some(error) => {
                    let message = format!("moved in, but moving out would fail: {error}");
                    Finding::warn(NAME, message, "sudo nginx -t")
                }
                None => Finding::ok(NAME, "moved in; `sudo ada2-sidecar move-out` gives the port back"),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
