//! The host around the service: disks, journal, clock, updates, and a move that was interrupted.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use service::doctor::Finding;
use sysinfo::Disks;
use wire::health::{CheckStatus, ReadyReport};

use super::{
    subprocess,
    text::{FixHints, drop_in_fix, sanitize, sanitized_path},
    unit::SystemdUnit,
};
use crate::commands::move_in::nginx;

const MIB: u64 = 1 << 20;
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
    mount: PathBuf,
    available: u64,
    read_only: bool,
}

/// The disk of a folder, or of the nearest above it that is there; none if it cannot be told in time.
pub(super) fn disk_space_at(folder: &Path) -> Option<DiskSpace> {
    let real = folder.ancestors().find_map(|place| fs::canonicalize(place).ok())?;
    let disks = subprocess::with_timeout(DISK_TIMEOUT, Disks::new_with_refreshed_list)?.ok()?;
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
        let mount = sanitized_path(&room.mount);
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
                sanitized_path(&room.mount)
            );
            Finding::warn(NAME, message, "sudo journalctl --vacuum-size=200M; df -h; make room")
        }
        Some(room) => Finding::ok(
            NAME,
            format!(
                "{} MiB are left on {} for state and log",
                room.available / MIB,
                sanitized_path(&room.mount)
            ),
        ),
    }
}

/// The folder of the engine's pictures.
pub(super) struct OutputDirFacts<'a> {
    pub(super) folder: &'a Path,
    /// Bytes below which the service refuses.
    pub(super) min_free: u64,
    pub(super) service: Option<&'a SystemdUnit>,
    /// Whether the running service sees it; none where none runs, or it does not say.
    pub(super) visible_to_service: Option<bool>,
    pub(super) fixes: &'a FixHints,
}

/// Whether the service sees the folder, by its check `disk`.
pub(super) fn service_sees_output_dir(report: &ReadyReport) -> Option<bool> {
    let check = report.checks.iter().find(|check| check.name == "disk")?;
    match (check.status, check.observed.as_str()) {
        (CheckStatus::Unknown, "not seen") => Some(false),
        (CheckStatus::Unknown, _) => None,
        _ => Some(true),
    }
}

impl OutputDirFacts<'_> {
    pub(super) fn evaluate(&self) -> Finding {
        // For an ordinary user what lies in another's home is not there.
        let visible = match fs::metadata(self.folder) {
            Ok(found) => Some(found.is_dir()),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            Err(_) => Some(false),
        };
        self.evaluate_with(visible, visible.and_then(|_| disk_space_at(self.folder)).as_ref())
    }

    fn evaluate_with(&self, exists: Option<bool>, space: Option<&DiskSpace>) -> Finding {
        const NAME: &str = "output_folder";
        let (folder, floor) = (sanitized_path(self.folder), self.min_free);
        if exists == Some(false) {
            let fix = self.fixes.edit("correct engine_output_dir in");
            return Finding::warn(
                NAME,
                format!("engine_output_dir {folder} is not there: its disk is not watched"),
                fix,
            );
        }
        let hidden = self.is_hidden_by_unit();
        if !self.visible_to_service.unwrap_or(!hidden) {
            let unwatched = "its disk is not watched";
            if hidden {
                let message = format!("the unit's ProtectHome= hides {folder} from the service: {unwatched}");
                let lines = format!("ProtectHome=tmpfs and BindReadOnlyPaths={folder}");
                return Finding::warn(NAME, message, drop_in_fix("ada2-sidecar", &lines));
            }
            let message = format!("the service's own user cannot enter {folder}: {unwatched}");
            return Finding::warn(NAME, message, format!("sudo chmod a+x {folder} and the folders above it"));
        }
        let Some(room) = space.filter(|_| exists.is_some()) else {
            return Finding::skip(NAME, format!("{folder} cannot be looked at: run with sudo"));
        };
        let (mount, left) = (sanitized_path(&room.mount), room.available / MIB);
        let fix = || format!("df -h {folder}; delete pictures in the engine, or make room");
        if floor > 0 && room.available < floor {
            return Finding::fail(
                NAME,
                format!("only {left} MiB are left on {mount}, and min_free_disk is {}", floor / MIB),
                fix(),
            );
        }
        if room.available < floor.saturating_mul(2) {
            return Finding::warn(NAME, format!("{left} MiB are left on {mount}"), fix());
        }
        Finding::ok(NAME, format!("{left} MiB are left on {mount} for {folder}"))
    }

    /// In a home, of which the unit lets nothing through.
    fn is_hidden_by_unit(&self) -> bool {
        let Some(service) = self.service else { return false };
        let home = ["/home", "/root", "/run/user"].into_iter().find(|home| self.folder.starts_with(home));
        // systemd quotes and escapes what it shows: that some folder is let through is enough not to be sure.
        let is_shut =
            |home: &str| !["BindReadOnlyPaths", "BindPaths"].iter().any(|of| service.get(of).contains(home));
        matches!(service.get("ProtectHome"), "yes" | "tmpfs") && home.is_some_and(is_shut)
    }
}

/// Whether the log survives a reboot.
pub(super) fn journal() -> Option<Finding> {
    let configured = subprocess::output("systemd-analyze", &["cat-config", "systemd/journald.conf"])?;
    Some(evaluate_journal(&configured.text, Path::new(JOURNAL_DIR).is_dir()))
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
    let output = subprocess::output("timedatectl", &["show"]).filter(|shown| shown.success);
    output.map(|shown| evaluate_clock(&SystemdUnit::parse("clock", &shown.text)))
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
    let installed = subprocess::output(
        "dpkg-query",
        &["-W", "-f", "${db:Status-Want} ${db:Status-Status} ${Package}\\n", "nvidia-driver-*"],
    )?;
    let automatic = subprocess::output("apt-config", &["dump", "APT::Periodic::Unattended-Upgrade"])?;
    evaluate_upgrades(&installed.text, &automatic.text)
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
                    let message = format!("in nginx's place, and the way back is broken: {}", sanitize(&why));
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
