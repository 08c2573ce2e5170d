//! The engine's output directory: whether the service sees it, and the free space on its disk.

use std::{fs, io::ErrorKind, path::Path};

use service::doctor::Finding;
use wire::health::{CheckStatus, ReadyReport};

use super::{
    fixes::{FixHints, drop_in_fix},
    host::{DiskSpace, MIB, disk_space_at},
};
use crate::commands::systemd::SystemdUnit;

const NAME: &str = "output_folder";

/// The facts.
pub(super) struct OutputDirFacts<'a> {
    pub(super) dir: &'a Path,
    /// Bytes below which the service is not ready.
    pub(super) min_free: u64,
    pub(super) service: Option<&'a SystemdUnit>,
    /// None if no service runs, or it does not say.
    pub(super) visible_to_service: Option<bool>,
    pub(super) fixes: &'a FixHints,
}

/// By the service's check `disk`.
pub(super) fn is_visible_to_service(report: &ReadyReport) -> Option<bool> {
    let check = report.checks.iter().find(|check| check.name == "disk")?;
    match (check.status, check.observed.as_str()) {
        (CheckStatus::Unknown, "not seen") => Some(false),
        (CheckStatus::Unknown, _) => None,
        _ => Some(true),
    }
}

impl OutputDirFacts<'_> {
    pub(super) fn evaluate(&self) -> Finding {
        // An ordinary user is denied what lies in another user's home.
        let exists = match fs::metadata(self.dir) {
            Ok(metadata) => Some(metadata.is_dir()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            Err(_) => Some(false),
        };
        self.evaluate_with(exists, exists.and_then(|_| disk_space_at(self.dir)).as_ref())
    }

    fn evaluate_with(&self, exists: Option<bool>, space: Option<&DiskSpace>) -> Finding {
        let (dir, min_free) = (self.dir.display(), self.min_free);
        if exists == Some(false) {
            let message = format!("engine_output_dir {dir} does not exist: its disk is not monitored");
            return Finding::warn(NAME, message, self.fixes.edit("correct engine_output_dir in"));
        }
        let hidden = is_hidden_by_unit(self.dir, self.service);
        if !self.visible_to_service.unwrap_or(!hidden) {
            return self.invisible(hidden);
        }
        let Some(space) = space.filter(|_| exists.is_some()) else {
            return Finding::skip(NAME, format!("this user cannot read {dir}: run with sudo"));
        };
        let (mount, left) = (space.mount.display(), space.available / MIB);
        let fix = || format!("df -h {dir} # then delete images in the engine, or free space");
        if min_free > 0 && space.available < min_free {
            let message =
                format!("only {left} MiB are free on {mount}, and min_free_disk is {}", min_free / MIB);
            return Finding::fail(NAME, message, fix());
        }
        if space.available < min_free.saturating_mul(2) {
            return Finding::warn(NAME, format!("{left} MiB are free on {mount}"), fix());
        }
        Finding::ok(NAME, format!("{left} MiB are free on {mount} for {dir}"))
    }

    fn invisible(&self, hidden_by_unit: bool) -> Finding {
        let dir = self.dir.display();
        if hidden_by_unit {
            let message =
                format!("the unit's ProtectHome= hides {dir} from the service: its disk is not monitored");
            let lines = format!("ProtectHome=tmpfs and BindReadOnlyPaths={dir}");
            return Finding::warn(NAME, message, drop_in_fix("ada2-sidecar", &lines));
        }
        let message = format!("the service's user cannot enter {dir}: its disk is not monitored");
        Finding::warn(NAME, message, format!("sudo chmod a+x {dir} # and its parent directories"))
    }
}

/// Whether it is in a home directory, and the unit exposes nothing below that.
pub(super) fn is_hidden_by_unit(dir: &Path, service: Option<&SystemdUnit>) -> bool {
    let Some(service) = service else { return false };
    let home = ["/home", "/root", "/run/user"].into_iter().find(|home| dir.starts_with(home));
    // systemd quotes and escapes paths: any exposed path in the home is reason enough for doubt.
    let hides_all =
        |home: &str| !["BindReadOnlyPaths", "BindPaths"].iter().any(|of| service.get(of).contains(home));
    matches!(service.get("ProtectHome"), "yes" | "tmpfs") && home.is_some_and(hides_all)
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    fn space_of(available: u64) -> DiskSpace {
        DiskSpace { mount: "/".into(), available: available * MIB, read_only: false }
    }

    #[test]
    fn the_directory_exists_is_visible_to_the_service_and_has_room() {
        use Verdict::{Fail, Ok, Skip, Warn};
        let fixes = FixHints { file: "c".into(), managed_by_unit: true };
        let hiding = SystemdUnit::parse("a", "ProtectHome=yes\nBindReadOnlyPaths=\n");
        let bound = SystemdUnit::parse(
            "a",
            "ProtectHome=tmpfs\nBindReadOnlyPaths=-/home/x/outputs:/home/x/outputs:rbind\n",
        );
        let (home, plenty) = ("/home/x/outputs", Some(space_of(5000)));
        for (dir, service, visible, exists, space, verdict, expected) in [
            ("/srv/outputs", &hiding, None, Some(true), plenty.clone(), Ok, "5000 MiB"),
            ("/srv/outputs", &hiding, Some(true), Some(true), Some(space_of(1500)), Warn, "1500 MiB"),
            ("/srv/outputs", &hiding, None, Some(true), Some(space_of(500)), Fail, "only 500 MiB"),
            ("/srv/outputs", &hiding, None, Some(false), plenty.clone(), Warn, "does not exist"),
            ("/srv/outputs", &hiding, None, None, None, Skip, "run with sudo"),
            ("/srv/outputs", &hiding, Some(false), Some(true), plenty.clone(), Warn, "cannot enter"),
            (home, &hiding, None, Some(true), plenty.clone(), Warn, "ProtectHome="),
            (home, &hiding, Some(false), Some(true), plenty.clone(), Warn, "ProtectHome="),
            (home, &bound, None, Some(true), plenty.clone(), Ok, "5000 MiB"),
            (home, &hiding, Some(true), Some(true), plenty.clone(), Ok, "5000 MiB"),
        ] {
            let (dir, service) = (Path::new(dir), Some(service));
            let output = OutputDirFacts {
                dir,
                min_free: 1 << 30,
                service,
                visible_to_service: visible,
                fixes: &fixes,
            };
            let finding = output.evaluate_with(exists, space.as_ref());
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(expected), "{finding:?}");
        }
    }
}
