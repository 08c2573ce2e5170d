//! The engine's unit: is it the one that the engine runs in, and will it be there after a crash and a reboot.

use service::doctor::Finding;

use super::fixes::{FixHints, drop_in_fix};
use crate::{commands::systemd::SystemdUnit, port::Process};

const NAME: &str = "engine_unit";

/// What is judged.
pub(super) struct EngineUnitFacts<'a> {
    /// As configured.
    pub(super) name: &'a str,
    /// As systemd shows it; none where there is no systemd.
    pub(super) unit: Option<&'a SystemdUnit>,
    /// The engine answers.
    pub(super) engine_responds: bool,
    /// Whoever listens at its address; none where that cannot be told.
    pub(super) listener: Option<&'a Process>,
    pub(super) root: bool,
    pub(super) fixes: &'a FixHints,
}

impl EngineUnitFacts<'_> {
    /// An engine that is down has its own line.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let Some(unit) = self.unit else { return Vec::new() };
        let name = self.name;
        if self.engine_responds && !unit.is_active() {
            return self.runs_outside_unit(unit).into_iter().collect();
        }
        if !unit.is_active() {
            return Vec::new();
        }
        let mut found = Vec::new();
        if !unit.starts_at_boot() {
            let message = format!("{name} is not enabled: after a reboot there is no engine");
            found.push(Finding::warn(NAME, message, format!("sudo systemctl enable {name}")));
        }
        if unit.is("Restart", "no") {
            let message = format!("{name} stays down after a crash (Restart=no)");
            found.push(Finding::warn(NAME, message, drop_in_fix(name, "Restart=on-failure")));
        }
        if found.is_empty() {
            let restarts = match unit.get("NRestarts") {
                "" | "0" => String::new(),
                many => format!(", restarted by systemd {many} times since it was started"),
            };
            found.push(Finding::ok(NAME, format!("{name} runs, and does so after a reboot{restarts}")));
        }
        found
    }

    /// The engine answers, and not out of this unit.
    fn runs_outside_unit(&self, unit: &SystemdUnit) -> Option<Finding> {
        let name = self.name;
        let state = if unit.is_loaded() { "does not run" } else { "is not there" };
        let Some(holder) = self.listener else {
            let message = format!("the engine answers and {name} {state}; where it runs: run with sudo");
            // For root, the engine is on another host or in a container: whose memory is whose is the service's to tell.
            return (!self.root).then(|| Finding::skip(NAME, message));
        };
        let process = format!("{} (pid {})", &holder.name, holder.pid);
        match holder.unit.as_deref() {
            // A user's own unit of that name, or a container's way in, which tells nothing of the engine.
            Some(unit) if unit == name => Some(Finding::ok(NAME, format!("{name} runs {process}"))),
            _ if holder.name == "docker-proxy" => None,
            Some(other) if other.ends_with(".service") && !other.starts_with("user@") => {
                let message = format!(
                    "the engine runs in {other}, and engine_unit is {name}: its VRAM counts as a stranger's"
                );
                Some(Finding::warn(NAME, message, self.fixes.setting("engine_unit", other)))
            }
            _ => {
                let message = format!(
                    "the engine was started by hand ({process}): it does not come back after a crash or a reboot"
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

    #[test]
    fn a_unit_is_judged_by_whether_the_engine_is_in_it_and_comes_back() {
        use Verdict::{Ok, Skip, Warn};
        let up = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nRestart=on-failure";
        let gone = "LoadState=not-found\nActiveState=inactive";
        let holder = |name: &str, unit: Option<&str>| {
            Some(Process { pid: 7, name: name.into(), unit: unit.map(str::to_owned) })
        };
        for (unit, answers, holder, root, verdict, says) in [
            (up.to_owned(), true, None, true, Some(Ok), "runs, and does so after a reboot"),
            (
                up.replace("enabled", "disabled"),
                true,
                None,
                true,
                Some(Warn),
                "sudo systemctl enable invokeai.service",
            ),
            (up.replace("on-failure", "no"), true, None, true, Some(Warn), "Restart=on-failure"),
            (up.replace("enabled", "static"), false, None, true, Some(Ok), "runs"),
            (gone.to_owned(), false, None, true, None, ""),
            (gone.to_owned(), true, None, true, None, ""),
            (gone.to_owned(), true, None, false, Some(Skip), "run with sudo"),
            (
                gone.to_owned(),
                true,
                holder("python3", Some("paint.service")),
                true,
                Some(Warn),
                "`engine_unit: paint.service`",
            ),
            (
                gone.to_owned(),
                true,
                holder("python3", Some("session-3.scope")),
                true,
                Some(Warn),
                "started by hand (python3 (pid 7))",
            ),
            (
                gone.to_owned(),
                true,
                holder("python3", Some("invokeai.service")),
                true,
                Some(Ok),
                "runs python3",
            ),
            (gone.to_owned(), true, holder("docker-proxy", Some("docker.service")), true, None, ""),
        ] {
            let (unit, fixes) = (
                SystemdUnit::parse("invokeai.service", &unit),
                FixHints { file: "c".into(), managed_by_unit: true },
            );
            let facts = EngineUnitFacts {
                name: "invokeai.service",
                unit: Some(&unit),
                engine_responds: answers,
                listener: holder.as_ref(),
                root,
                fixes: &fixes,
            };
            let found = facts.evaluate();
            assert_eq!(found.first().map(|one| one.verdict), verdict, "{found:?}");
            let line = found
                .first()
                .map(|one| format!("{} {}", one.message, one.fix.as_deref().unwrap_or_default()));
            assert!(line.unwrap_or_default().contains(says), "{found:?}");
        }
    }
}
