//! The service and its socket: do they run, will they after a reboot, and if not, why.

use service::doctor::Finding;

use super::run_tool;
use crate::commands::systemd::{SERVICE, SidecarUnits, SystemdUnit};

const ENABLE: &str = "sudo systemctl enable --now ada2-sidecar.socket ada2-sidecar";
pub(super) const RESTART: &str = "sudo systemctl restart ada2-sidecar";
const REINSTALL: &str = "sudo apt install --reinstall ./ada2-sidecar_*.deb";
/// A broken configuration.
const EXIT_CONFIG: &str = "78";

/// What is known before the service is judged.
pub(super) struct ServiceFacts<'a> {
    pub(super) units: &'a SidecarUnits,
    /// The next start fails of the configuration, which is told.
    pub(super) configuration_is_broken: bool,
    /// Somebody else has the port, which is told.
    pub(super) port_is_taken: bool,
    /// The last line that the service logged.
    pub(super) last_line: Option<String>,
}

/// The last line of the service itself; none where the journal is closed to this user.
pub(super) fn last_line() -> Option<String> {
    let arguments = [format!("_SYSTEMD_UNIT={SERVICE}"), "--lines=20".to_owned()];
    let more = ["--output=cat", "--no-pager", "--quiet", "--boot"];
    let all: Vec<&str> = arguments.iter().map(String::as_str).chain(more).collect();
    let printed = run_tool("journalctl", &all)?;
    printed.stdout.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

impl ServiceFacts<'_> {
    /// The socket's line, then the service's. What has a cause that is told already has none.
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
                Some(Finding::ok(NAME, "listens, and does so after a reboot"))
            }
            "active" => {
                let message = "neither socket nor service is enabled: after a reboot nobody listens";
                Some(Finding::warn(NAME, message, "sudo systemctl enable ada2-sidecar.socket ada2-sidecar"))
            }
            "failed" if self.configuration_is_broken => None,
            "failed" => {
                Some(Finding::fail(NAME, format!("failed ({result}): connections are refused"), RESTART))
            }
            _ if service.is_active() => {
                let message =
                    "the service runs without its socket: every restart refuses connections for a moment";
                let fix = format!("sudo systemctl stop ada2-sidecar && {ENABLE}");
                Some(Finding::warn(NAME, message, fix))
            }
            // Whether the service runs is what matters.
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
            let restarts = match service.get("NRestarts") {
                "" | "0" => String::new(),
                many => format!(", restarted by systemd {many} times since it was started"),
            };
            return Some(Finding::ok(NAME, format!("runs as pid {}{restarts}", service.get("MainPID"))));
        }
        if self.configuration_is_broken || self.port_is_taken || socket.is("LoadState", "masked") {
            return None;
        }
        let (state, sub) = (service.get("ActiveState"), service.get("SubState"));
        match (state, sub) {
            ("failed", _) | ("activating", "auto-restart") => Some(self.failure_finding(NAME)),
            ("inactive", _) if !service.is("Result", "success") => Some(self.failure_finding(NAME)),
            ("activating", _) => Some(Finding::warn(
                NAME,
                "is starting",
                "wait a few seconds and look again: sudo ada2-sidecar doctor",
            )),
            ("deactivating", _) => Some(Finding::warn(
                NAME,
                "is stopping: running requests are being finished",
                format!("wait a moment, then {RESTART}"),
            )),
            _ if socket.is_active() => Some(Finding::warn(
                NAME,
                "does not run; the next connection starts it",
                "sudo systemctl start ada2-sidecar",
            )),
            _ if socket.is("ActiveState", "failed") => None,
            _ => Some(Finding::fail(NAME, "does not run", ENABLE)),
        }
    }

    fn failure_finding(&self, name: &'static str) -> Finding {
        let service = &self.units.service;
        let (result, status) = (service.get("Result"), service.get("ExecMainStatus"));
        let last = self.last_line.as_ref().map(|line| format!("; its last line: {line}")).unwrap_or_default();
        let fail = |message: String, fix: &str| Finding::fail(name, message, fix);
        match (result, status) {
            ("exit-code", EXIT_CONFIG) => {
                fail(format!("ended because of its configuration, which is sound now{last}"), RESTART)
            }
            ("exit-code", "203") => {
                fail(format!("its program cannot be run: {}", service.get("ExecStart")), REINSTALL)
            }
            ("exit-code" | "resources", "226") => {
                let paths = service.get("BindReadOnlyPaths");
                let message =
                    format!("a folder that the unit names is not there (BindReadOnlyPaths={paths})");
                fail(
                    message,
                    "create the folder, or correct it: sudo systemctl edit ada2-sidecar; then sudo systemctl restart ada2-sidecar",
                )
            }
            ("exit-code" | "resources", "238") => fail(
                "systemd cannot make its state directory".to_owned(),
                "ls -ld /var/lib/ada2-sidecar /var/lib/private; move away what is not systemd's, then sudo systemctl restart ada2-sidecar",
            ),
            ("exit-code" | "resources", "243") => {
                let message = format!(
                    "a credential of the unit cannot be read (LoadCredential={})",
                    &service.values_in_files("LoadCredential").join(" ")
                );
                fail(
                    message,
                    "create that file, or sudo systemctl edit ada2-sidecar; then sudo systemctl restart ada2-sidecar",
                )
            }
            ("oom-kill", _) => fail(format!("was killed because the host ran out of memory{last}"), RESTART),
            ("watchdog", _) => fail(format!("hung, and was ended by its watchdog{last}"), RESTART),
            _ => {
                let how =
                    if result == "exit-code" { format!("exit code {status}") } else { result.to_owned() };
                let fix = if self.last_line.is_some() {
                    RESTART.to_owned()
                } else {
                    format!("sudo journalctl -u ada2-sidecar -n 20; then {RESTART}")
                };
                Finding::fail(name, format!("failed ({how}){last}"), fix)
            }
        }
    }
}

/// What keeps a unit from being started at all.
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
            let why = unit.get("LoadError");
            fail(
                format!("{} cannot be loaded ({state}) {why}", unit.name),
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

    /// Verdicts of socket and service, the message and the fix of the last.
    fn told(service: &str, socket: &str, broken: bool, taken: bool) -> (Vec<Verdict>, String) {
        let units = units(service, socket);
        let facts = ServiceFacts {
            units: &units,
            configuration_is_broken: broken,
            port_is_taken: taken,
            last_line: Some("no room".into()),
        };
        let found = facts.evaluate();
        let last = found
            .last()
            .map(|last| format!("{} -> {}", last.message, last.fix.as_deref().unwrap_or_default()));
        (found.iter().map(|finding| finding.verdict).collect(), last.unwrap_or_default())
    }

    const DOWN: &str =
        "LoadState=loaded\nActiveState=inactive\nSubState=dead\nResult=success\nUnitFileState=disabled";

    #[test]
    fn what_runs_and_what_does_not_is_told_once_with_the_way_out() {
        use Verdict::{Fail, Ok, Warn};
        let (disabled, starting) = (
            UP.replace("enabled", "disabled"),
            UP.replace("active\nSubState=running", "activating\nSubState=start"),
        );
        let open = LISTENS.replace("enabled", "disabled");
        let given_up = DOWN.replace("inactive", "failed").replace("success", "trigger-limit-hit");
        for (service, socket, broken, taken, verdicts, says) in [
            (UP, LISTENS, false, false, &[Ok, Ok][..], "runs as pid 7"),
            (UP, LISTENS, true, false, &[Ok, Ok], "runs"),
            (&disabled, &open, false, false, &[Warn, Ok], "runs"),
            (UP, DOWN, false, false, &[Warn, Ok], "runs"),
            (DOWN, DOWN, false, false, &[Fail], "does not run -> sudo systemctl enable --now"),
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
            let (seen, last) = told(service, socket, broken, taken);
            assert_eq!(seen, verdicts, "{service}\n{socket}: {last}");
            assert!(last.contains(says), "{last}");
        }
    }

    #[test]
    fn a_failure_is_told_with_its_reason_unless_the_configuration_is_it() {
        let failed = |result: &str, status: &str| {
            format!(
                "LoadState=loaded\nActiveState=failed\nResult={result}\nExecMainStatus={status}\nUnitFileState=enabled"
            )
        };
        for (result, status, says) in [
            ("exit-code", "78", "sound now; its last line: no room -> sudo systemctl restart"),
            ("exit-code", "70", "failed (exit code 70); its last line: no room"),
            ("signal", "9", "failed (signal)"),
            ("exit-code", "243", "credential"),
            ("exit-code", "226", "BindReadOnlyPaths"),
            ("exit-code", "203", "cannot be run"),
            ("exit-code", "238", "state directory"),
            ("oom-kill", "9", "out of memory"),
            ("watchdog", "6", "hung"),
        ] {
            let (seen, last) = told(&failed(result, status), LISTENS, false, false);
            assert_eq!(seen, [Verdict::Ok, Verdict::Fail], "{last}");
            assert!(last.contains(says), "{last}");
        }
        assert_eq!(told(&failed("exit-code", "78"), LISTENS, true, false).0, [Verdict::Ok]);
    }
}
