//! What is installed, and whether that is what runs: unit files, program, and the settings that drop-ins change.

use std::{
    fs,
    path::{Path, PathBuf},
};

use service::doctor::Finding;

use crate::commands::systemd::{SERVICE, SOCKET, SidecarUnits, SystemdUnit, exec_path};

const ADMIN_UNIT_DIR: &str = "/etc/systemd/system";
const PACKAGE_UNIT_DIRS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
/// The major number of NVIDIA's device files.
const NVIDIA_DEVICE_MAJOR: &str = "195";

/// The facts.
pub(super) struct InstallationFacts<'a> {
    pub(super) units: &'a SidecarUnits,
    /// Unit files in `/etc` that hide the package's.
    shadowing_units: Vec<PathBuf>,
    current_exe: Option<PathBuf>,
    /// The program that the unit runs.
    unit_exe: Option<PathBuf>,
}

impl<'a> InstallationFacts<'a> {
    pub(super) fn gather(units: &'a SidecarUnits) -> Self {
        let names = [SERVICE, SOCKET];
        let packaged = |name: &&str| PACKAGE_UNIT_DIRS.iter().any(|dir| Path::new(dir).join(name).is_file());
        // A link to /dev/null masks the unit, which has a line of its own.
        let is_copy = |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file());
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
        let mut findings = Vec::new();
        if !self.shadowing_units.is_empty() {
            let files: Vec<_> = self.shadowing_units.iter().map(|file| file.display().to_string()).collect();
            let files = files.join(" ");
            let message = format!(
                "installed twice: {files} hides the package's unit, so upgrades of it have no effect"
            );
            findings.push(Finding::warn(
                NAME,
                message,
                format!("sudo rm {files} && sudo systemctl daemon-reload"),
            ));
        } else if service.is("NeedDaemonReload", "yes") || self.units.socket.is("NeedDaemonReload", "yes") {
            let message = "a unit file has changed, and systemd has not read it yet";
            findings.push(Finding::warn(
                NAME,
                message,
                "sudo systemctl daemon-reload && sudo systemctl restart ada2-sidecar",
            ));
        }
        match (&self.current_exe, &self.unit_exe) {
            (Some(current), Some(unit)) if current != unit && unit.exists() => {
                let (current, unit) = (current.display(), unit.display());
                let message = format!(
                    "this program is {current}, but the unit runs {unit}: these findings may not apply to it"
                );
                findings.push(Finding::warn(
                    NAME,
                    message,
                    format!("sudo {unit} doctor # and remove the program that is not needed"),
                ));
            }
            (_, Some(unit)) if findings.is_empty() => {
                findings.push(Finding::ok(
                    NAME,
                    format!("{} runs {}", service.get("FragmentPath"), unit.display()),
                ));
            }
            _ => {}
        }
        findings
    }
}

/// Unit settings that break the service or give it too much access, from any file.
pub(super) fn unit_settings(service: &SystemdUnit, gpu_required: bool) -> Vec<Finding> {
    const NAME: &str = "unit_settings";
    if !service.is_loaded() {
        return Vec::new();
    }
    let remove = |line: &str| {
        format!(
            "remove {line} from {}, then sudo systemctl daemon-reload && sudo systemctl restart ada2-sidecar",
            service.file_with_line(line)
        )
    };
    let mut findings = Vec::new();
    let line_if =
        |property: &str, value: &str| service.is(property, value).then(|| format!("{property}={value}"));
    if let Some(line) = line_if("PrivateDevices", "yes").filter(|_| gpu_required) {
        findings.push(Finding::fail(
            NAME,
            format!("{line} hides the card's device files from the service"),
            remove(&line),
        ));
    } else if gpu_required && denies_gpu_devices(service) {
        let message = "the unit's device rules deny access to the card (no DeviceAllow=char-195 rw)";
        let fix = "sudo systemctl edit ada2-sidecar, under [Service] DeviceAllow=char-195 rw, then sudo systemctl restart ada2-sidecar";
        findings.push(Finding::fail(NAME, message, fix));
    }
    if let Some(line) = line_if("PrivateNetwork", "yes") {
        findings.push(Finding::fail(
            NAME,
            format!("{line} cuts the service off from engine and clients"),
            remove(&line),
        ));
    }
    let hiding =
        ["invisible", "noaccess", "ptraceable"].iter().find_map(|value| line_if("ProtectProc", value));
    if let Some(line) = hiding.or_else(|| line_if("ProcSubset", "pid")).filter(|_| gpu_required) {
        let message = format!("{line} hides the engine's processes, so VRAM cannot be attributed to them");
        findings.push(Finding::warn(NAME, message, remove(&line)));
    }
    if service.is("DynamicUser", "no") && matches!(service.get("User"), "" | "root" | "0") {
        let line = line_if("User", "root").unwrap_or_else(|| "DynamicUser=no".to_owned());
        findings.push(Finding::warn(
            NAME,
            "the service runs as root, which it does not require",
            remove(&line),
        ));
    }
    if findings.is_empty() {
        let drop_ins = service.get("DropInPaths").split_whitespace().count();
        let message = format!("no unit setting prevents the service from working ({drop_ins} drop-ins)");
        findings.push(Finding::ok(NAME, message));
    }
    findings
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
    fn only_settings_that_break_or_expose_the_service_are_reported() {
        for (change, required, verdict, expected) in [
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
            ("ProtectProc=default=>ProtectProc=invisible", true, Verdict::Warn, "VRAM cannot"),
            ("DynamicUser=yes=>DynamicUser=no\nUser=root", true, Verdict::Warn, "runs as root"),
            ("DynamicUser=yes=>DynamicUser=no\nUser=ada", true, Verdict::Ok, "drop-ins"),
        ] {
            let (from, to) = change.split_once("=>").unwrap_or(("", ""));
            let text = if change.is_empty() { GOOD.to_owned() } else { GOOD.replace(from, to) };
            let findings = unit_settings(&SystemdUnit::parse(SERVICE, &text), required);
            assert_eq!((findings.len(), findings[0].verdict), (1, verdict), "{change}: {findings:?}");
            assert!(findings[0].message.contains(expected), "{findings:?}");
        }
        assert!(unit_settings(&SystemdUnit::parse(SERVICE, "LoadState=not-found"), true).is_empty());
    }

    #[test]
    fn a_copy_of_the_unit_and_another_program_are_reported() {
        let mut units =
            SidecarUnits { service: SystemdUnit::parse(SERVICE, GOOD), ..SidecarUnits::default() };
        let current = std::env::current_exe().ok();
        let judge = |units: &SidecarUnits, shadowing_units: Vec<PathBuf>, unit_exe: Option<PathBuf>| {
            InstallationFacts { units, shadowing_units, current_exe: current.clone(), unit_exe }.evaluate()
        };
        assert_eq!(judge(&units, Vec::new(), current.clone())[0].verdict, Verdict::Ok);
        let findings =
            judge(&units, vec!["/etc/systemd/system/ada2-sidecar.service".into()], current.clone());
        assert!(
            findings.len() == 1 && findings[0].fix.as_ref().unwrap().starts_with("sudo rm /etc/systemd"),
            "{findings:?}"
        );
        let findings = judge(&units, Vec::new(), Some("/bin/sh".into()));
        assert!(findings.len() == 1 && findings[0].message.contains("runs /bin/sh"), "{findings:?}");
        units.service = SystemdUnit::parse(SERVICE, &format!("{GOOD}NeedDaemonReload=yes\n"));
        assert!(judge(&units, Vec::new(), current.clone())[0].message.contains("not read it yet"));
    }
}
