//! The host around the service: disks, journal, clock, updates, and a move that was interrupted.

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
use crate::commands::{move_in::nginx, systemd::SystemdUnit};

pub(super) const MIB: u64 = 1 << 20;
/// Enough for the latch and a day of log.
const MIN_FREE_BYTES: u64 = 200 * MIB;
/// Files of ours, and the log.
const STATE_PARENT_DIR: &str = "/var/lib";
const JOURNAL_DIR: &str = "/var/log/journal";
const MOVE_IN_RECORD: &str = "/var/lib/ada2-sidecar-move-in/record.json";
/// Looking at a dead mount never ends.
const DISK_TIMEOUT: Duration = Duration::from_secs(3);

/// A disk with what a program may still write on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DiskSpace {
    pub(super) mount: PathBuf,
    pub(super) available: u64,
    pub(super) read_only: bool,
}

/// The disk of a folder, or of the nearest above it that is there; none if it cannot be told in time.
pub(super) fn disk_space_at(folder: &Path) -> Option<DiskSpace> {
    let real = folder.ancestors().find_map(|place| fs::canonicalize(place).ok())?;
    let disks = with_timeout(DISK_TIMEOUT, Disks::new_with_refreshed_list)?.ok()?;
    let holding = disks.iter().filter(|disk| real.starts_with(disk.mount_point()));
    let disk = holding.max_by_key(|disk| disk.mount_point().components().count())?;
    let (mount, available) = (disk.mount_point().to_owned(), disk.available_space());
    Some(DiskSpace { mount, available, read_only: disk.is_read_only() })
}

/// Room for state and log.
pub(super) fn disk_space() -> Finding {
    evaluate_disk(
        disk_space_at(Path::new(STATE_PARENT_DIR)).as_ref(),
        disk_space_at(Path::new("/var/log")).as_ref(),
    )
}

fn evaluate_disk(state: Option<&DiskSpace>, log: Option<&DiskSpace>) -> Finding {
    const NAME: &str = "disk_space";
    let known = [state, log].into_iter().flatten();
    if let Some(room) = known.clone().find(|room| room.read_only) {
        let mount = room.mount.display();
        let message = format!("{mount} is mounted read-only: neither state nor log can be written");
        return Finding::fail(
            NAME,
            message,
            format!("sudo dmesg | tail -30 says why; then sudo mount -o remount,rw {mount}"),
        );
    }
    match known.min_by_key(|room| room.available) {
        None => Finding::skip(NAME, "the disks cannot be looked at; df -h /var shows whether one hangs"),
        Some(room) if room.available < MIN_FREE_BYTES => {
            let message = format!(
                "{} MiB are left on {} for state and log",
                room.available / MIB,
                room.mount.display()
            );
            Finding::warn(NAME, message, "sudo journalctl --vacuum-size=200M; df -h; make room")
        }
        Some(room) => Finding::ok(
            NAME,
            format!("{} MiB are left on {} for state and log", room.available / MIB, room.mount.display()),
        ),
    }
}

/// Whether the log survives a reboot.
pub(super) fn journal() -> Option<Finding> {
    let configured = run_tool("systemd-analyze", &["cat-config", "systemd/journald.conf"])?;
    Some(evaluate_journal(&configured.stdout, Path::new(JOURNAL_DIR).is_dir()))
}

fn evaluate_journal(configured: &str, folder: bool) -> Finding {
    const NAME: &str = "journal";
    let value = |key: &str| {
        let mut lines = configured.lines().filter_map(|line| line.trim().split_once('='));
        lines.rfind(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
    };
    let storage = value("Storage").unwrap_or_else(|| "auto".to_owned());
    match storage.as_str() {
        "none" => Finding::warn(
            NAME,
            "the journal keeps nothing (Storage=none): the service's log is lost",
            "sudo mkdir -p /etc/systemd/journald.conf.d && printf '[Journal]\\nStorage=persistent\\n' | sudo tee \
             /etc/systemd/journald.conf.d/persistent.conf && sudo systemctl restart systemd-journald",
        ),
        "volatile" => Finding::warn(
            NAME,
            "the journal is lost at every reboot (Storage=volatile)",
            "sudo mkdir -p /etc/systemd/journald.conf.d && printf '[Journal]\\nStorage=persistent\\n' | sudo tee \
             /etc/systemd/journald.conf.d/zz-persistent.conf && sudo systemctl restart systemd-journald",
        ),
        "auto" if !folder => Finding::warn(
            NAME,
            "the journal is lost at every reboot (/var/log/journal is not there)",
            "sudo mkdir -p /var/log/journal && sudo systemd-tmpfiles --create --prefix /var/log/journal && \
             sudo journalctl --flush",
        ),
        _ => {
            let most = value("SystemMaxUse").filter(|most| !most.is_empty());
            let most = most.unwrap_or_else(|| "a tenth of the disk, at most 4G".to_owned());
            Finding::ok(NAME, format!("kept over a reboot, and bounded ({most})"))
        }
    }
}

/// Whether somebody keeps the clock right.
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
            "nothing keeps the clock right: times in logs and of pictures cannot be compared with other hosts'",
            "sudo timedatectl set-ntp true",
        ),
        ("yes", _) => Finding::skip(
            NAME,
            "not synchronised yet, or no time server can be reached: timedatectl timesync-status",
        ),
        _ => Finding::skip(
            NAME,
            "no time service of systemd's is installed: whether another keeps the clock right cannot be told",
        ),
    }
}

/// Whether the driver may be replaced under a running card. Never a warning: it is a choice.
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
        return Some(Finding::ok(NAME, format!("{package} is held: upgrade it by hand, and reboot")));
    }
    let unattended = automatic.contains("\"1\"");
    let message = if unattended {
        format!(
            "{package} may be upgraded unattended, after which programs fail until a reboot; to choose the time: sudo apt-mark hold {package}"
        )
    } else {
        format!("{package} is upgraded by hand alone; reboot afterwards")
    };
    Some(Finding::ok(NAME, message))
}

/// A move that did not come to its end. Only root may look.
pub(super) fn move_in_state(root: bool) -> Option<Finding> {
    if !root {
        return None;
    }
    let record = fs::read_to_string(MOVE_IN_RECORD).ok()?;
    evaluate_move(&record, || nginx::test().err().map(|stop| stop.message))
}

/// `refused`: why nginx would not take its configuration, if it would not.
fn evaluate_move(record: &str, nginx_error: impl FnOnce() -> Option<String>) -> Option<Finding> {
    const NAME: &str = "move_in";
    /// Undoes a move-in and finishes a move-out.
    const MOVE_OUT_COMMAND: &str = "sudo ada2-sidecar move-out --yes";
    let record: serde_json::Value = serde_json::from_str(record).unwrap_or_default();
    match record["phase"].as_str() {
        Some("moving_in") => Some(Finding::fail(
            NAME,
            "a move-in is under way, or was interrupted: unless somebody is at it, put everything back",
            MOVE_OUT_COMMAND,
        )),
        Some("moving_out") => Some(Finding::fail(
            NAME,
            "a move-out is under way, or was interrupted: unless somebody is at it, finish it",
            MOVE_OUT_COMMAND,
        )),
        Some("moved_in") => {
            // Without a site of its own on the port, nginx is not on the way back.
            let from_nginx = record["plan"]["sites"].as_array().is_some_and(|sites| !sites.is_empty());
            Some(match from_nginx.then(nginx_error).flatten() {
                Some(why) => {
                    let message = format!("in nginx's place, and the way back is broken: {}", &why);
                    Finding::warn(NAME, message, "sudo nginx -t")
                }
                None => Finding::ok(NAME, "in nginx's place; back with sudo ada2-sidecar move-out"),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
