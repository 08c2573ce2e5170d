//! The service and its socket: whether they run, whether they will after a reboot, and why not.

use service::doctor::Finding;

use super::run_tool;
use crate::commands::systemd::{SERVICE, SidecarUnits, SystemdUnit};

const ENABLE: &str = "sudo systemctl enable --now ada2-sidecar.socket ada2-sidecar";
pub(super) const RESTART: &str = "sudo systemctl restart ada2-sidecar";
const REINSTALL: &str = "sudo apt install --reinstall ./ada2-sidecar_*.deb";
/// An invalid configuration.
const EXIT_CONFIG: &str = "78";

/// The facts.
pub(super) struct ServiceFacts<'a> {
    pub(super) units: &'a SidecarUnits,
    /// The configuration makes the next start fail; an earlier line says so.
    pub(super) configuration_is_broken: bool,
    /// Another program holds the port; an earlier line says so.
    pub(super) port_is_taken: bool,
    /// The last line of the service's log.
    pub(super) last_line: Option<String>,
}

/// The last line that the service itself logged; none if this user may not read the journal.
pub(super) fn last_line() -> Option<String> {
    let arguments = [format!("_SYSTEMD_UNIT={SERVICE}"), "--lines=20".to_owned()];
    let more = ["--output=cat", "--no-pager", "--quiet", "--boot"];
    let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more).collect();
    let output = run_tool("journalctl", &all)?;
    output.stdout.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

impl ServiceFacts<'_> {
    /// The socket's line, then the service's, unless an earlier line explains it.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        self.socket().into_iter().chain(self.service()).collect()
    }

    fn socket(&self) -> Option<Finding> {
        const NAME: &str = "socket_unit";
        let SidecarUnits { service, socket } = self.units;
        if !service.is_loaded() || self.port_is_taken {
            return None;
        }
        if let Some(finding) = load_failure(NAME, socket) {
            return Some(finding);
        }
        let result = socket.get("Result");
        match socket.get("ActiveState") {
            "active" if socket.starts_at_boot() || service.starts_at_boot() => {
                Some(Finding::ok(NAME, "listens, also after a reboot"))
            }
            "active" => {
                let message = "neither socket nor service is enabled: nothing listens after a reboot";
                Some(Finding::warn(NAME, message, "sudo systemctl enable ada2-sidecar.socket ada2-sidecar"))
            }
            "failed" if self.configuration_is_broken => None,
            "failed" => {
                Some(Finding::fail(NAME, format!("failed ({result}): connections are refused"), RESTART))
            }
            _ if service.is_active() => {
                let message =
                    "the service runs without its socket: each restart refuses connections for a moment";
                let fix = format!("sudo systemctl stop ada2-sidecar && {ENABLE}");
                Some(Finding::warn(NAME, message, fix))
            }
            // The service's line covers it.
            _ => None,
        }
    }

    fn service(&self) -> Option<Finding> {
        const NAME: &str = "service";
        let SidecarUnits { service, socket } = self.units;
        if let Some(finding) = load_failure(NAME, service) {
            return Some(finding);
        }
        if service.is_active() {
            let restarts = service.restart_note();
            return Some(Finding::ok(NAME, format!("runs as pid {}{restarts}", service.get("MainPID"))));
        }
        if self.configuration_is_broken || self.port_is_taken || socket.is("LoadState", "masked") {
            return None;
        }
        let (state, sub) = (service.get("ActiveState"), service.get("SubState"));
        match (state, sub) {
            ("failed", _) | ("activating", "auto-restart") => Some(self.failure_finding(NAME)),
            ("inactive", _) if !service.is("Result", "success") => Some(self.failure_finding(NAME)),
            ("activating", _) => {
                Some(Finding::warn(NAME, "is starting", "sudo ada2-sidecar doctor # again in a few seconds"))
            }
            ("deactivating", _) => Some(Finding::warn(
                NAME,
                "is stopping: it finishes running requests",
                format!("{RESTART} # once it has stopped"),
            )),
            _ if socket.is_active() => Some(Finding::warn(
                NAME,
                "is not running; the next connection starts it",
                "sudo systemctl start ada2-sidecar",
            )),
            _ if socket.is("ActiveState", "failed") => None,
            _ => Some(Finding::fail(NAME, "is not running", ENABLE)),
        }
    }

    fn failure_finding(&self, name: &'static str) -> Finding {
        let service = &self.units.service;
        let (result, status) = (service.get("Result"), service.get("ExecMainStatus"));
        let last = self.last_line.as_ref().map(|line| format!("; its last line: {line}")).unwrap_or_default();
        let fail = |message: String, fix: &str| Finding::fail(name, message, fix);
        match (result, status) {
            ("exit-code", EXIT_CONFIG) => {
                fail(format!("stopped because of its configuration, which is valid now{last}"), RESTART)
            }
            ("exit-code", "203") => {
                fail(format!("its program cannot be executed: {}", service.get("ExecStart")), REINSTALL)
            }
            ("exit-code" | "resources", "226") => {
                let paths = service.get("BindReadOnlyPaths");
                let message =
                    format!("a directory that the unit names does not exist (BindReadOnlyPaths={paths})");
                fail(
                    message,
                    "create the directory, or correct it with sudo systemctl edit ada2-sidecar, then sudo systemctl restart ada2-sidecar",
                )
            }
            ("exit-code" | "resources", "238") => fail(
                "systemd cannot create its state directory".to_owned(),
                "ls -ld /var/lib/ada2-sidecar /var/lib/private # move away what systemd did not create, then sudo systemctl restart ada2-sidecar",
            ),
            ("exit-code" | "resources", "243") => {
                let message = format!(
                    "a credential of the unit cannot be read (LoadCredential={})",
                    &service.values_in_files("LoadCredential").join(" ")
                );
                fail(
                    message,
                    "create that file, or correct it with sudo systemctl edit ada2-sidecar, then sudo systemctl restart ada2-sidecar",
                )
            }
            ("oom-kill", _) => fail(format!("was killed because the host ran out of memory{last}"), RESTART),
            ("watchdog", _) => fail(format!("hung, and its watchdog killed it{last}"), RESTART),
            _ => {
                let how =
                    if result == "exit-code" { format!("exit code {status}") } else { result.to_owned() };
                let fix = if self.last_line.is_some() {
                    RESTART.to_owned()
                } else {
                    format!("sudo journalctl -u ada2-sidecar -n 20; {RESTART}")
                };
                Finding::fail(name, format!("failed ({how}){last}"), fix)
            }
        }
    }
}

/// Why a unit cannot be started at all.
fn load_failure(name: &'static str, unit: &SystemdUnit) -> Option<Finding> {
    let fail = |message: String, fix: String| Some(Finding::fail(name, message, fix));
    match unit.get("LoadState") {
        "loaded" => None,
        "masked" => fail(
            format!("{} is masked", unit.name),
            format!("sudo systemctl unmask {} && {ENABLE}", unit.name),
        ),
        "not-found" => fail(format!("{} is not installed", unit.name), REINSTALL.replace("--reinstall ", "")),
        state => {
            let error = unit.get("LoadError");
            fail(
                format!("{} cannot be loaded ({state}) {error}", unit.name),
                format!("systemd-analyze verify {}", unit.name),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    fn units(service: &str, socket: &str) -> SidecarUnits {
        SidecarUnits {
            service: SystemdUnit::parse(SERVICE, service),
            socket: SystemdUnit::parse("ada2-sidecar.socket", socket),
        }
    }

    const UP: &str = "LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=7\nResult=success";
    const LISTENS: &str = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nResult=success";

    /// The verdicts of socket and service, and message and fix of the last.
    fn evaluate(service: &str, socket: &str, broken: bool, taken: bool) -> (Vec<Verdict>, String) {
        let units = units(service, socket);
        let facts = ServiceFacts {
            units: &units,
            configuration_is_broken: broken,
            port_is_taken: taken,
            last_line: Some("no room".into()),
        };
        let findings = facts.evaluate();
        let last = findings
            .last()
            .map(|last| format!("{} -> {}", last.message, last.fix.as_deref().unwrap_or_default()));
        (findings.iter().map(|finding| finding.verdict).collect(), last.unwrap_or_default())
    }

    const DOWN: &str =
        "LoadState=loaded\nActiveState=inactive\nSubState=dead\nResult=success\nUnitFileState=disabled";

    #[test]
    fn each_state_of_the_units_is_reported_once_with_its_fix() {
        use Verdict::{Fail, Ok, Warn};
        let (disabled, starting) = (
            UP.replace("enabled", "disabled"),
            UP.replace("active\nSubState=running", "activating\nSubState=start"),
        );
        let open = LISTENS.replace("enabled", "disabled");
        let given_up = DOWN.replace("inactive", "failed").replace("success", "trigger-limit-hit");
        for (service, socket, broken, taken, verdicts, expected) in [
            (UP, LISTENS, false, false, &[Ok, Ok][..], "runs as pid 7"),
            (UP, LISTENS, true, false, &[Ok, Ok], "runs"),
            (&disabled, &open, false, false, &[Warn, Ok], "runs"),
            (UP, DOWN, false, false, &[Warn, Ok], "runs"),
            (DOWN, DOWN, false, false, &[Fail], "is not running -> sudo systemctl enable --now"),
            (DOWN, LISTENS, false, false, &[Ok, Warn], "the next connection starts it"),
            (DOWN, DOWN, false, true, &[], ""),
            (DOWN, &given_up, false, false, &[Fail], "failed (trigger-limit-hit)"),
            (&starting, LISTENS, false, false, &[Ok, Warn], "is starting"),
            (
                "LoadState=masked",
                LISTENS,
                false,
                false,
                &[Fail],
                "masked -> sudo systemctl unmask ada2-sidecar.service",
            ),
            (
                "LoadState=not-found",
                "LoadState=not-found",
                false,
                false,
                &[Fail],
                "not installed -> sudo apt install ./ada2",
            ),
        ] {
            let (found, last) = evaluate(service, socket, broken, taken);
            assert_eq!(found, verdicts, "{service}\n{socket}: {last}");
            assert!(last.contains(expected), "{last}");
        }
    }

    #[test]
    fn a_failure_has_its_reason_unless_an_earlier_line_gave_it() {
        let failed = |result: &str, status: &str| {
            format!(
                "LoadState=loaded\nActiveState=failed\nResult={result}\nExecMainStatus={status}\nUnitFileState=enabled"
            )
        };
        for (result, status, expected) in [
            ("exit-code", "78", "valid now; its last line: no room -> sudo systemctl restart"),
            ("exit-code", "70", "failed (exit code 70); its last line: no room"),
            ("signal", "9", "failed (signal)"),
            ("exit-code", "243", "credential"),
            ("exit-code", "226", "BindReadOnlyPaths"),
            ("exit-code", "203", "cannot be executed"),
            ("exit-code", "238", "state directory"),
            ("oom-kill", "9", "out of memory"),
            ("watchdog", "6", "hung"),
        ] {
            let (found, last) = evaluate(&failed(result, status), LISTENS, false, false);
            assert_eq!(found, [Verdict::Ok, Verdict::Fail], "{last}");
            assert!(last.contains(expected), "{last}");
        }
        assert_eq!(evaluate(&failed("exit-code", "78"), LISTENS, true, false).0, [Verdict::Ok]);
    }
}
