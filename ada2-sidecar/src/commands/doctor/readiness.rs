//! What the running service reports, else what this process reads of GPU and host: one line for each check that does not
//! pass.

use std::path::Path;

use service::doctor::Finding;
use wire::health::{Check, CheckStatus, ReadyReport};

use crate::config::{EngineKind, checks::CHECKS};

const NAME: &str = "readiness";

/// The facts.
pub(super) struct ReadinessFacts<'a> {
    pub(super) report: &'a ReadyReport,
    /// Whether the service made the report, or this process.
    pub(super) from_service: bool,
    /// Checks that an earlier line explains.
    pub(super) explained_checks: &'a [&'static str],
    pub(super) engine: Option<EngineKind>,
    pub(super) engine_unit: &'a str,
    pub(super) engine_url: Option<String>,
    pub(super) output_dir: Option<&'a Path>,
}

impl ReadinessFacts<'_> {
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let is_open = |check: &&Check| matches!(check.status, CheckStatus::Warn | CheckStatus::Fail);
        let open: Vec<_> = self.report.checks.iter().filter(is_open).collect();
        if open.is_empty() {
            let source = if self.from_service { "the service" } else { "GPU and host" };
            let unknown =
                self.report.checks.iter().filter(|check| check.status == CheckStatus::Unknown).count();
            let passed = self.report.checks.len() - unknown;
            return vec![Finding::ok(
                NAME,
                format!("{source}: {passed} checks pass, 0 fail, {unknown} are unknown"),
            )];
        }
        // A stopping service has a line of its own.
        let is_explained =
            |check: &&Check| self.explained_checks.contains(&check.name.as_str()) || check.name == "draining";
        open.into_iter().filter(|check| !is_explained(check)).map(|check| self.finding(check)).collect()
    }

    fn finding(&self, check: &Check) -> Finding {
        let mut message = check.message.clone();
        if check.name == "xid" {
            // Not a fix: pasted unread, it would clear a fatal report.
            message.push_str("; once its cause is fixed: `sudo ada2-sidecar ack`");
        }
        let name = CHECKS.iter().find(|name| **name == check.name).copied();
        // A newer service may report checks that are not known here.
        let (name, message) =
            name.map_or_else(|| (NAME, format!("{}: {message}", check.name)), |name| (name, message.clone()));
        let fix = self.fix_for(name);
        if check.status == CheckStatus::Fail {
            Finding::fail(name, message, fix)
        } else {
            Finding::warn(name, message, fix)
        }
    }

    fn resume_path(&self) -> Option<&'static str> {
        self.engine?.fixes()?.resume_path
    }

    /// A command that can be pasted; what it cannot do is in its comment.
    fn fix_for(&self, check: &str) -> String {
        const KERNEL_LOG: &str = "sudo dmesg | grep -iE 'nvrm|xid' | tail # if it persists: sudo reboot";
        const RESET: &str = "sudo nvidia-smi --gpu-reset";
        let unit = self.engine_unit;
        match check {
            "nvml" | "driver" | "gpu_present" => format!("nvidia-smi; {KERNEL_LOG}"),
            "snapshot_fresh" => KERNEL_LOG.to_owned(),
            "recovery_action" => format!(
                "sudo systemctl stop {unit} && {RESET} && sudo systemctl start {unit} # if the reset fails: sudo reboot"
            ),
            "row_remap" => {
                format!("sudo systemctl stop {unit} && {RESET} && sudo systemctl start {unit} # when idle")
            }
            "xid" => "sudo dmesg | grep -i xid | tail".to_owned(),
            "ecc" => "sudo reboot # when idle; to go on until then: sudo ada2-sidecar ack".to_owned(),
            "thermal" => {
                "nvidia-smi -q -d TEMPERATURE,PERFORMANCE # then clean fans and filters, improve the airflow"
                    .to_owned()
            }
            "power_brake" => {
                "nvidia-smi -q -d POWER,PERFORMANCE # then check the power supply and its cables to the card"
                    .to_owned()
            }
            "pcie_width" => {
                "nvidia-smi --query-gpu=pcie.link.width.current,pcie.link.width.max --format=csv # \
                             narrow under load: power off and reseat the card"
                    .to_owned()
            }
            "vram_headroom" => {
                "nvidia-smi # shows who holds it: stop that, or lower min_free_vram".to_owned()
            }
            "engine_queue" => match (self.resume_path(), &self.engine_url) {
                (Some(path), Some(url)) => format!("curl -X PUT {}{path}", url.trim_end_matches('/')),
                _ => "resume the queue in the engine's own web page".to_owned(),
            },
            "engine_model" => {
                "sudo ada2-sidecar check-config --live # then install a model, or correct default_model"
                    .to_owned()
            }
            "engine_works" => format!("sudo journalctl -u {unit} -n 50; sudo systemctl restart {unit}"),
            "slots" | "engine_process" | "engine_reachable" => format!("sudo systemctl restart {unit}"),
            "disk" => {
                let dir = self.output_dir.map(|dir| format!(" {}", dir.display())).unwrap_or_default();
                format!("df -h{dir} # then delete images in the engine, or free space")
            }
            "host_memory" => {
                "ps -eo pid,rss,comm --sort=-rss | head # then stop what is not needed".to_owned()
            }
            _ => "curl -s 'http://127.0.0.1:7860/readyz?verbose'".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;
    use wire::health::{EngineReport, ReadyStatus};

    use super::*;

    fn evaluate(checks: Vec<Check>, explained_checks: &[&'static str]) -> Vec<Finding> {
        let engine =
            EngineReport { kind: "invokeai".into(), url: None, version: None, queue_depth: 0, models: 0 };
        let report =
            ReadyReport { status: ReadyStatus::Ready, checks, gpu: None, engine, since: 1, sampled_at: 1.0 };
        let facts = ReadinessFacts {
            report: &report,
            from_service: true,
            explained_checks,
            engine: Some(EngineKind::InvokeAi),
            engine_unit: "invokeai.service",
            engine_url: Some("http://127.0.0.1:9090/".into()),
            output_dir: None,
        };
        facts.evaluate()
    }

    #[test]
    fn every_check_that_does_not_pass_has_a_line_unless_another_explains_it() {
        let check = |name: &str, status| Check::pass(name, "", "").with_status(status, "as it is");
        let findings = evaluate(vec![Check::pass("nvml", "", "")], &[]);
        assert_eq!(findings, [Finding::ok(NAME, "the service: 1 checks pass, 0 fail, 0 are unknown")]);
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
        let findings = evaluate(all(), &["thermal"]);
        let lines: Vec<_> = findings.iter().map(|one| (one.name, one.verdict)).collect();
        assert_eq!(lines, [("xid", Verdict::Fail), ("engine_queue", Verdict::Fail), (NAME, Verdict::Warn)]);
        assert_eq!(findings[0].fix.as_deref(), Some("sudo dmesg | grep -i xid | tail"));
        assert!(
            findings[0].message.ends_with("once its cause is fixed: `sudo ada2-sidecar ack`"),
            "{findings:?}"
        );
        assert_eq!(
            findings[1].fix.as_deref(),
            Some("curl -X PUT http://127.0.0.1:9090/api/v1/queue/default/processor/resume")
        );
        assert_eq!(findings[2].message, "mood: as it is");
        assert!(evaluate(vec![check("thermal", CheckStatus::Fail)], &["thermal"]).is_empty());
    }

    #[test]
    fn every_check_has_a_fix_of_its_own() {
        for name in CHECKS.iter().filter(|name| **name != "draining") {
            let findings =
                evaluate(vec![Check::pass(name, "", "").with_status(CheckStatus::Fail, "no")], &[]);
            assert!(!findings[0].fix.as_ref().unwrap().starts_with("curl -s"), "{name}");
        }
    }
}
