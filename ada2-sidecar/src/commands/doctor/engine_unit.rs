//! The engine's unit: whether the engine runs in it, and whether it comes back after a crash or a reboot.

use service::doctor::Finding;

use super::fixes::{FixHints, drop_in_fix};
use crate::{commands::systemd::SystemdUnit, port::Process};

const NAME: &str = "engine_unit";

/// The facts.
pub(super) struct EngineUnitFacts<'a> {
    /// `engine_unit`.
    pub(super) name: &'a str,
    /// None if there is no systemd.
    pub(super) unit: Option<&'a SystemdUnit>,
    pub(super) engine_responds: bool,
    /// The process that listens at the engine's address, if known.
    pub(super) listener: Option<&'a Process>,
    pub(super) root: bool,
    pub(super) fixes: &'a FixHints,
}

impl EngineUnitFacts<'_> {
    /// No line for an engine that is down, which has its own.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let Some(unit) = self.unit else { return Vec::new() };
        let name = self.name;
        if self.engine_responds && !unit.is_active() {
            return self.runs_outside_unit(unit).into_iter().collect();
        }
        if !unit.is_active() {
            return Vec::new();
        }
        let mut findings = Vec::new();
        if !unit.starts_at_boot() {
            let message = format!("{name} is not enabled: it does not start after a reboot");
            findings.push(Finding::warn(NAME, message, format!("sudo systemctl enable {name}")));
        }
        if unit.is("Restart", "no") {
            let message = format!("{name} does not restart after a crash (Restart=no)");
            findings.push(Finding::warn(NAME, message, drop_in_fix(name, "Restart=on-failure")));
        }
        if findings.is_empty() {
            let restarts = unit.restart_note();
            findings.push(Finding::ok(NAME, format!("{name} runs, also after a reboot{restarts}")));
        }
        findings
    }

    /// The engine answers, but not from this unit.
    fn runs_outside_unit(&self, unit: &SystemdUnit) -> Option<Finding> {
        let name = self.name;
        let state = if unit.is_loaded() { "is not running" } else { "does not exist" };
        let Some(holder) = self.listener else {
            let message =
                format!("the engine answers, but {name} {state}: run with sudo to see where it runs");
            // Root sees all processes of this host, so the engine runs elsewhere or in a container.
            return (!self.root).then(|| Finding::skip(NAME, message));
        };
        let process = format!("{} (pid {})", holder.name, holder.pid);
        match holder.unit.as_deref() {
            // A unit of that name in a user's own service manager.
            Some(unit) if unit == name => Some(Finding::ok(NAME, format!("{name} runs {process}"))),
            // It forwards to a container, and says nothing of the engine.
            _ if holder.name == "docker-proxy" => None,
            Some(other) if other.ends_with(".service") && !other.starts_with("user@") => {
                let message = format!(
                    "the engine runs in {other}, but engine_unit is {name}: its VRAM counts as another program's"
                );
                Some(Finding::warn(NAME, message, self.fixes.setting("engine_unit", other)))
            }
            _ => {
                let message = format!(
                    "the engine was started by hand ({process}): it does not restart after a crash or a reboot"
                );
                let fix = "run it as a service, as /usr/share/doc/ada2-sidecar/examples shows".to_owned();
                Some(Finding::warn(NAME, message, fix))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    fn evaluate(
        unit: &str,
        listener: Option<(&str, &str)>,
        engine_responds: bool,
        root: bool,
    ) -> Vec<Finding> {
        let listener =
            listener.map(|(name, unit)| Process { pid: 7, name: name.into(), unit: Some(unit.into()) });
        let facts = EngineUnitFacts {
            name: "invokeai.service",
            unit: Some(&SystemdUnit::parse("invokeai.service", unit)),
            engine_responds,
            listener: listener.as_ref(),
            root,
            fixes: &FixHints { file: "c".into(), managed_by_unit: true },
        };
        facts.evaluate()
    }

    fn assert_finding(findings: &[Finding], verdict: Verdict, expected: &str) {
        let [Finding { verdict: actual, message, fix, .. }] = findings else { panic!("{findings:?}") };
        let line = format!("{message} {}", fix.as_deref().unwrap_or_default());
        assert!(*actual == verdict && line.contains(expected), "{findings:?}");
    }

    #[test]
    fn a_unit_that_does_not_survive_a_reboot_or_a_crash_is_a_warning() {
        let up = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nRestart=on-failure";
        for (unit, responds, verdict, expected) in [
            (up.to_owned(), true, Verdict::Ok, "runs, also after a reboot"),
            (
                up.replace("enabled", "disabled"),
                true,
                Verdict::Warn,
                "sudo systemctl enable invokeai.service",
            ),
            (up.replace("on-failure", "no"), true, Verdict::Warn, "Restart=on-failure"),
            (up.replace("enabled", "static"), false, Verdict::Ok, "runs"),
        ] {
            assert_finding(&evaluate(&unit, None, responds, true), verdict, expected);
        }
    }

    #[test]
    fn a_missing_unit_is_judged_by_the_process_that_answers_instead() {
        let missing = "LoadState=not-found\nActiveState=inactive";
        assert!(evaluate(missing, None, false, true).is_empty());
        assert!(evaluate(missing, None, true, true).is_empty());
        assert!(evaluate(missing, Some(("docker-proxy", "docker.service")), true, true).is_empty());
        assert_finding(&evaluate(missing, None, true, false), Verdict::Skip, "run with sudo");
        for (unit, verdict, expected) in [
            ("paint.service", Verdict::Warn, "`engine_unit: paint.service`"),
            ("session-3.scope", Verdict::Warn, "started by hand (python3 (pid 7))"),
            ("invokeai.service", Verdict::Ok, "runs python3"),
        ] {
            assert_finding(&evaluate(missing, Some(("python3", unit)), true, true), verdict, expected);
        }
    }
}
