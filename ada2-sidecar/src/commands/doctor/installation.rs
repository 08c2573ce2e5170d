//! What is installed, and whether it is what runs: the unit's file, the program, the settings that drop-ins change.

use std::{
    fs,
    path::{Path, PathBuf},
};

use service::doctor::Finding;

use crate::commands::systemd::{SERVICE, SOCKET, SidecarUnits, SystemdUnit, exec_path};

const ADMIN_UNIT_DIR: &str = "/etc/systemd/system";
const PACKAGE_UNIT_DIRS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// Of NVIDIA's device files, on every Linux.
const NVIDIA_DEVICE_MAJOR: &str = "195";

/// What there is of unit files and programs.
pub(super) struct InstallationFacts<'a> {
    pub(super) units: &'a SidecarUnits,
    /// Unit files of `/etc` that hide the package's.
    shadowing_units: Vec<PathBuf>,
    /// This program.
    current_exe: Option<PathBuf>,
    /// The one that the unit runs.
    unit_exe: Option<PathBuf>,
}

impl<'a> InstallationFacts<'a> {
    pub(super) fn gather(units: &'a SidecarUnits) -> Self {
        let names = [SERVICE, SOCKET];
        let packaged =
            |name: &&str| PACKAGE_UNIT_DIRS.iter().any(|folder| Path::new(folder).join(name).is_file());
        // A link to /dev/null masks the unit, which is told elsewhere.
        let is_copy = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|found| found.is_file());
        let shadowing =
            names.iter().filter(|name| packaged(name)).map(|name| Path::new(ADMIN_UNIT_DIR).join(name));
        let real = |path: PathBuf| fs::canonicalize(&path).unwrap_or(path);
        Self {
            units,
            shadowing_units: shadowing.filter(is_copy).collect(),
            current_exe: std::env::current_exe().ok().map(real),
            unit_exe: exec_path(units.service.get("ExecStart")).map(real),
        }
    }

    pub(super) fn evaluate(&self) -> Vec<Finding> {
        const NAME: &str = "installation";
        let service = &self.units.service;
        if !service.is_loaded() {
            return Vec::new();
        }
        let mut found = Vec::new();
        if !self.shadowing_units.is_empty() {
            let files: Vec<_> = self.shadowing_units.iter().map(|file| file.display().to_string()).collect();
            let files = files.join(" ");
            let message = format!(
                "installed twice: {files} hides the package's unit, so upgrades of it have no effect"
            );
            found.push(Finding::warn(
                NAME,
                message,
                format!("sudo rm {files} && sudo systemctl daemon-reload"),
            ));
        } else if service.is("NeedDaemonReload", "yes") || self.units.socket.is("NeedDaemonReload", "yes") {
            let message = "a unit file was changed, and systemd has not read it yet";
            found.push(Finding::warn(
                NAME,
                message,
                "sudo systemctl daemon-reload && sudo systemctl restart ada2-sidecar",
            ));
        }
        match (&self.current_exe, &self.unit_exe) {
            (Some(this), Some(run)) if this != run && run.exists() => {
                let (this, run) = (this.display(), run.display());
                let message = format!(
                    "this program is {this}, and the unit runs {run}: what is said here may not hold for it"
                );
                found.push(Finding::warn(
                    NAME,
                    message,
                    format!("sudo {run} doctor; remove the one that is not needed"),
                ));
            }
            (_, Some(run)) if found.is_empty() => {
                found.push(Finding::ok(
                    NAME,
                    format!("{} runs {}", service.get("FragmentPath"), run.display()),
                ));
            }
            _ => {}
        }
        found
    }
}

/// Settings of the unit that break the service or open it, whoever gave them.
pub(super) fn unit_settings(service: &SystemdUnit, gpu_required: bool) -> Vec<Finding> {
    const NAME: &str = "unit_settings";
    if !service.is_loaded() {
        return Vec::new();
    }
    let take_out = |line: &str| {
        format!(
            "take {line} out of {}, then sudo systemctl daemon-reload && sudo systemctl restart ada2-sidecar",
            service.file_with_line(line)
        )
    };
    let mut found = Vec::new();
    let set =
        |property: &str, value: &str| service.is(property, value).then(|| format!("{property}={value}"));
    if let Some(line) = set("PrivateDevices", "yes").filter(|_| gpu_required) {
        found.push(Finding::fail(
            NAME,
            format!("{line} hides the card's device files from the service"),
            take_out(&line),
        ));
    } else if gpu_required && denies_gpu_devices(service) {
        let message = "the unit's device rules shut the card out (no DeviceAllow=char-195 rw)";
        let fix = "sudo systemctl edit ada2-sidecar, under [Service] DeviceAllow=char-195 rw, then sudo systemctl restart ada2-sidecar";
        found.push(Finding::fail(NAME, message, fix));
    }
    if let Some(line) = set("PrivateNetwork", "yes") {
        found.push(Finding::fail(
            NAME,
            format!("{line} keeps the service from engine and clients"),
            take_out(&line),
        ));
    }
    let hiding = ["invisible", "noaccess", "ptraceable"].iter().find_map(|value| set("ProtectProc", value));
    if let Some(line) = hiding.or_else(|| set("ProcSubset", "pid")).filter(|_| gpu_required) {
        let message = format!("{line} hides the engine's processes, so nobody can tell whose VRAM is whose");
        found.push(Finding::warn(NAME, message, take_out(&line)));
    }
    if service.is("DynamicUser", "no") && matches!(service.get("User"), "" | "root" | "0") {
        let line = set("User", "root").unwrap_or_else(|| "DynamicUser=no".to_owned());
        found.push(Finding::warn(NAME, "the service runs as root, which it does not need", take_out(&line)));
    }
    if found.is_empty() {
        let drop_ins = service.get("DropInPaths").split_whitespace().count();
        let message = format!("nothing in them keeps the service from its work ({drop_ins} drop-ins)");
        found.push(Finding::ok(NAME, message));
    }
    found
}

fn denies_gpu_devices(service: &SystemdUnit) -> bool {
    let allowed = service.get("DeviceAllow");
    let has_rules = matches!(service.get("DevicePolicy"), "closed" | "strict") || !allowed.is_empty();
    has_rules
        && !(allowed.contains(NVIDIA_DEVICE_MAJOR)
            || allowed.contains("nvidia")
            || allowed.contains("char-*"))
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    const GOOD: &str = "LoadState=loaded\nDynamicUser=yes\nDevicePolicy=closed\nDeviceAllow=char-195 rw\nProtectProc=default\n\
        ProcSubset=all\nPrivateDevices=no\nPrivateNetwork=no\nFragmentPath=/usr/lib/systemd/system/ada2-sidecar.service\n";

    #[test]
    fn only_settings_that_break_or_open_the_service_are_told() {
        for (change, required, verdict, says) in [
            ("", true, Verdict::Ok, "(0 drop-ins)"),
            ("PrivateDevices=no=>PrivateDevices=yes", true, Verdict::Fail, "PrivateDevices=yes hides"),
            ("PrivateDevices=no=>PrivateDevices=yes", false, Verdict::Ok, "drop-ins"),
            ("DeviceAllow=char-195 rw=>DeviceAllow=char-pts rw", true, Verdict::Fail, "char-195"),
            ("DeviceAllow=char-195 rw=>DeviceAllow=/dev/nvidia0 rw", true, Verdict::Ok, "drop-ins"),
            (
                "DevicePolicy=closed\nDeviceAllow=char-195 rw=>DevicePolicy=auto",
                true,
                Verdict::Ok,
                "drop-ins",
            ),
            ("PrivateNetwork=no=>PrivateNetwork=yes", true, Verdict::Fail, "PrivateNetwork=yes"),
            ("ProtectProc=default=>ProtectProc=invisible", true, Verdict::Warn, "whose VRAM"),
            ("DynamicUser=yes=>DynamicUser=no\nUser=root", true, Verdict::Warn, "runs as root"),
            ("DynamicUser=yes=>DynamicUser=no\nUser=ada", true, Verdict::Ok, "drop-ins"),
        ] {
            let (from, to) = change.split_once("=>").unwrap_or(("", ""));
            let text = if change.is_empty() { GOOD.to_owned() } else { GOOD.replace(from, to) };
            let found = unit_settings(&SystemdUnit::parse(SERVICE, &text), required);
            assert_eq!((found.len(), found[0].verdict), (1, verdict), "{change}: {found:?}");
            assert!(found[0].message.contains(says), "{found:?}");
        }
        assert!(unit_settings(&SystemdUnit::parse(SERVICE, "LoadState=not-found"), true).is_empty());
    }

    #[test]
    fn a_copy_of_the_unit_and_another_program_are_told() {
        let mut units =
            SidecarUnits { service: SystemdUnit::parse(SERVICE, GOOD), ..SidecarUnits::default() };
        let this = std::env::current_exe().ok();
        let judge = |units: &SidecarUnits, shadowing: Vec<PathBuf>, run: Option<PathBuf>| {
            InstallationFacts { units, shadowing_units: shadowing, current_exe: this.clone(), unit_exe: run }
                .evaluate()
        };
        assert_eq!(judge(&units, Vec::new(), this.clone())[0].verdict, Verdict::Ok);
        let found = judge(&units, vec!["/etc/systemd/system/ada2-sidecar.service".into()], this.clone());
        assert!(
            found.len() == 1 && found[0].fix.as_ref().unwrap().starts_with("sudo rm /etc/systemd"),
            "{found:?}"
        );
        let found = judge(&units, Vec::new(), Some("/bin/sh".into()));
        assert!(found.len() == 1 && found[0].message.contains("runs /bin/sh"), "{found:?}");
        units.service = SystemdUnit::parse(SERVICE, &format!("{GOOD}NeedDaemonReload=yes\n"));
        assert!(judge(&units, Vec::new(), this.clone())[0].message.contains("not read it yet"));
    }
}
