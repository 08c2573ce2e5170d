//! What the running service says of itself, else what a look from here says of card and host: a line for each check that
//! does not pass.

use std::path::Path;

use service::doctor::Finding;
use wire::health::{Check, CheckStatus, ReadyReport};

use super::text::sanitize;
use crate::config::{EngineKind, checks::CHECKS};

const NAME: &str = "readiness";

/// What a step may need to name.
pub(super) struct ReadinessFacts<'a> {
    pub(super) report: &'a ReadyReport,
    /// Whether the service said it, or this look.
    pub(super) from_service: bool,
    /// Checks whose cause another line tells.
    pub(super) explained_checks: &'a [&'static str],
    pub(super) engine: Option<EngineKind>,
    pub(super) engine_unit: &'a str,
    pub(super) engine_url: Option<String>,
    pub(super) output_dir: Option<&'a Path>,
}

impl ReadinessFacts<'_> {
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let open = |check: &&Check| matches!(check.status, CheckStatus::Warn | CheckStatus::Fail);
        // A service that stops has its own line.
        let known =
            |check: &&Check| self.explained_checks.contains(&check.name.as_str()) || check.name == "draining";
        let open: Vec<_> = self.report.checks.iter().filter(open).collect();
        if open.is_empty() {
            let who = if self.from_service { "the service" } else { "card and host" };
            let unknown =
                self.report.checks.iter().filter(|check| check.status == CheckStatus::Unknown).count();
            let passed = self.report.checks.len() - unknown;
            return vec![Finding::ok(
                NAME,
                format!("{who}: {passed} checks pass, none fails, {unknown} cannot be told"),
            )];
        }
        open.into_iter().filter(|check| !known(check)).map(|check| self.finding(check)).collect()
    }

    fn finding(&self, check: &Check) -> Finding {
        let name = CHECKS.iter().find(|name| **name == check.name).copied();
        let mut message = sanitize(&check.message);
        if check.name == "xid" {
            // Acknowledging is no fix: pasted unread, it would clear a fatal report.
            message.push_str("; once its cause is fixed: `sudo ada2-sidecar ack`");
        }
        // A check of a newer service has no name here.
        let (name, message) =
            name.map_or((NAME, format!("{}: {message}", sanitize(&check.name))), |name| (name, message));
        let fix = self.fix_for(name);
        if check.status == CheckStatus::Fail {
            Finding::fail(name, message, fix)
        } else {
            Finding::warn(name, message, fix)
        }
    }

    fn fix_for(&self, check: &str) -> String {
        let unit = self.engine_unit;
        match check {
            "nvml" | "driver" | "gpu_present" => {
                "nvidia-smi; sudo dmesg | grep -iE 'nvrm|xid' | tail; if it stays so, sudo reboot".to_owned()
            }
            "snapshot_fresh" => {
                "sudo dmesg | grep -iE 'nvrm|xid' | tail; if it stays so, sudo reboot".to_owned()
            }
            "recovery_action" => {
                format!("sudo systemctl stop {unit} && sudo nvidia-smi --gpu-reset, else sudo reboot")
            }
            "xid" => "sudo dmesg | grep -i xid | tail".to_owned(),
            "ecc" => "sudo reboot when idle; sudo ada2-sidecar ack to go on before".to_owned(),
            "row_remap" => format!(
                "when idle: sudo systemctl stop {unit} && sudo nvidia-smi --gpu-reset && sudo systemctl start {unit}"
            ),
            "thermal" => {
                "nvidia-smi -q -d TEMPERATURE,PERFORMANCE; clean fans and filters, let air through".to_owned()
            }
            "power_brake" => {
                "nvidia-smi -q -d POWER,PERFORMANCE; look at the power supply and its cables to the card"
                    .to_owned()
            }
            "pcie_width" => "power off, reseat the card".to_owned(),
            "vram_headroom" => "nvidia-smi shows who holds it; stop that, or lower min_free_vram".to_owned(),
            "engine_queue" => match (self.engine, &self.engine_url) {
                (Some(EngineKind::InvokeAi), Some(url)) => {
                    format!("curl -X PUT {}/api/v1/queue/default/processor/resume", url.trim_end_matches('/'))
                }
                _ => "resume the queue in the engine's own web page".to_owned(),
            },
            "engine_model" => {
                "sudo ada2-sidecar check-config --live; install a model, or correct default_model".to_owned()
            }
            "engine_works" => format!("sudo journalctl -u {unit} -n 50; then sudo systemctl restart {unit}"),
            "slots" | "engine_process" | "engine_reachable" => format!("sudo systemctl restart {unit}"),
            "disk" => match self.output_dir {
                Some(folder) => {
                    format!("df -h {}; delete pictures in the engine, or make room", folder.display())
                }
                None => "df -h; delete pictures in the engine, or make room".to_owned(),
            },
            "host_memory" => "ps -eo pid,rss,comm --sort=-rss | head; stop what is not needed".to_owned(),
            _ => "curl -s 'http://127.0.0.1:7860/readyz?verbose'".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;
    use wire::health::{EngineReport, ReadyStatus};

    use super::*;

    fn judge(checks: Vec<Check>, told: &[&'static str]) -> Vec<Finding> {
        let engine =
            EngineReport { kind: "invokeai".into(), url: None, version: None, queue_depth: 0, models: 0 };
        let report =
            ReadyReport { status: ReadyStatus::Ready, checks, gpu: None, engine, since: 1, sampled_at: 1.0 };
        let facts = ReadinessFacts {
            report: &report,
            from_service: true,
            explained_checks: told,
            engine: Some(EngineKind::InvokeAi),
            engine_unit: "invokeai.service",
            engine_url: Some("http://127.0.0.1:9090/".into()),
            output_dir: None,
        };
        facts.evaluate()
    }

    #[test]
    fn a_line_for_each_check_that_does_not_pass_and_none_for_what_is_told() {
        let check = |name: &str, status| Check::pass(name, "", "").with_status(status, "as it is");
        let found = judge(vec![Check::pass("nvml", "", "")], &[]);
        assert_eq!(found, [Finding::ok(NAME, "the service: 1 checks pass, none fails, 0 cannot be told")]);
        let all = || {
            vec![
                check("xid", CheckStatus::Fail),
                check("thermal", CheckStatus::Warn),
                check("ecc", CheckStatus::Unknown),
                check("engine_queue", CheckStatus::Fail),
                check("draining", CheckStatus::Fail),
                check("mood", CheckStatus::Warn),
            ]
        };
        let found = judge(all(), &["thermal"]);
        let lines: Vec<_> = found.iter().map(|one| (one.name, one.verdict)).collect();
        assert_eq!(lines, [("xid", Verdict::Fail), ("engine_queue", Verdict::Fail), (NAME, Verdict::Warn)]);
        assert_eq!(found[0].fix.as_deref(), Some("sudo dmesg | grep -i xid | tail"));
        assert!(found[0].message.ends_with("once its cause is fixed: `sudo ada2-sidecar ack`"), "{found:?}");
        assert_eq!(
            found[1].fix.as_deref(),
            Some("curl -X PUT http://127.0.0.1:9090/api/v1/queue/default/processor/resume")
        );
        assert_eq!(found[2].message, "mood: as it is");
        assert!(judge(vec![check("thermal", CheckStatus::Fail)], &["thermal"]).is_empty());
    }

    #[test]
    fn every_check_that_can_fail_has_a_step_of_its_own() {
        for name in CHECKS.iter().filter(|name| **name != "draining") {
            let found = judge(vec![Check::pass(name, "", "").with_status(CheckStatus::Fail, "no")], &[]);
            assert!(!found[0].fix.as_ref().unwrap().starts_with("curl -s"), "{name}");
        }
    }
}
