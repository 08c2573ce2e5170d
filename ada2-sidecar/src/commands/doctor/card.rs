//! The card: the configured one, the one that the engine uses, and the one that the service sees.

use std::{io, sync::Arc, time::Instant};

use service::doctor::Finding;
use wire::health::{CheckStatus, ReadyReport};

use super::{
    configuration::{ConfigurationState, DoctorContext},
    fixes::FixHints,
};
use crate::{
    commands::host_readiness::first_sample,
    gpu::{GpuReading, GpuSample, GpuState},
};

const MIB: u64 = 1 << 20;
/// Readiness checks of whether the service sees the card.
pub(super) const GPU_VISIBILITY_CHECKS: [&str; 4] = ["nvml", "driver", "snapshot_fresh", "gpu_present"];

/// The card, read by this process.
pub(super) struct CardProbe {
    pub(super) started: Instant,
    /// None if the driver did not answer in time.
    pub(super) sample: Option<Arc<GpuSample>>,
}

impl CardProbe {
    /// None if the configuration, and so the card, is not known.
    pub(super) fn run(context: &DoctorContext) -> io::Result<Option<Self>> {
        if matches!(context.configuration, ConfigurationState::PermissionDenied(_)) {
            return Ok(None);
        }
        let started = Instant::now();
        Ok(Some(Self { started, sample: first_sample(context.card.sampler.clone())? }))
    }

    pub(super) fn state(&self) -> Option<&GpuState> {
        self.sample.as_deref().map(|sample| &sample.state)
    }

    pub(super) fn memory_total_mib(&self) -> Option<u64> {
        match self.state() {
            Some(GpuState::Present(reading)) => reading.report.memory_total,
            _ => None,
        }
    }
}

/// The facts.
pub(super) struct CardFacts<'a> {
    pub(super) state: Option<&'a GpuState>,
    pub(super) required: bool,
    pub(super) gpu_id: &'a str,
    pub(super) engine_unit: &'a str,
    pub(super) fixes: &'a FixHints,
}

impl CardFacts<'_> {
    /// The configured card.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        const NAME: &str = "card";
        match self.state {
            Some(GpuState::NoDevice { found, .. }) if found.is_empty() && self.required => {
                let message =
                    "the driver reports no GPU: if lspci does not list it, reseat the card; otherwise reboot";
                vec![Finding::fail(NAME, message, "lspci | grep -i nvidia")]
            }
            Some(GpuState::NoDevice { requested, found }) if !found.is_empty() => {
                let message = format!("gpu_id {requested} matches no GPU; found: {}", found.join(", "));
                vec![Finding::fail(NAME, message, self.fixes.setting("gpu_id", find_uuid(&found[0])))]
            }
            Some(GpuState::Lost) => vec![Finding::fail(
                NAME,
                "GPU is lost: it fell off the bus or needs a reset; `sudo dmesg | grep -i xid` shows why",
                "sudo reboot",
            )],
            Some(GpuState::Present(reading)) => self.present(NAME, reading),
            _ => Vec::new(),
        }
    }

    fn present(&self, name: &'static str, reading: &GpuReading) -> Vec<Finding> {
        let report = &reading.report;
        let label = format!("{} ({})", report.name, report.uuid);
        let by_index = self.gpu_id.parse::<u32>().is_ok();
        let gpu_count = report.count.filter(|count| *count > 1);
        let mut findings = vec![match gpu_count {
            Some(count) if by_index => Finding::warn(
                name,
                format!(
                    "{label} is card {} of {count} now; after a reboot or a change of slots another card may have that index",
                    self.gpu_id
                ),
                self.fixes.setting("gpu_id", &report.uuid),
            ),
            _ => {
                let persistence = match report.persistence_mode.as_deref() {
                    Some("Disabled") => ", persistence mode off",
                    _ => "",
                };
                Finding::ok(name, format!("{label}{persistence}"))
            }
        }];
        if report.compute_mode.as_deref() == Some("Prohibited") {
            let fix = format!("sudo nvidia-smi -i {} -c 0", report.uuid);
            findings.push(Finding::fail(
                "compute_mode",
                "its compute mode is Prohibited, so no engine can use it",
                fix,
            ));
        }
        if report.mig_mode_current.as_deref() == Some("Enabled") {
            let fix = format!("sudo nvidia-smi -i {} -mig 0", report.uuid);
            findings.push(Finding::warn(
                "mig_mode",
                "it is partitioned (MIG), so its VRAM figures are not the engine's",
                fix,
            ));
        }
        findings.extend(self.engine_memory(reading));
        findings
    }

    /// Which card the engine uses; none if that is not known.
    fn engine_memory(&self, reading: &GpuReading) -> Option<Finding> {
        const NAME: &str = "engine_card";
        if !reading.engine_unit_active {
            return None;
        }
        let unit = self.engine_unit;
        if let Some(other) = reading.other_gpus.first() {
            let message = format!(
                "{unit} holds memory of card {} {} ({}), and gpu_id names another card",
                other.index, other.name, other.uuid
            );
            return Some(Finding::warn(NAME, message, self.fixes.setting("gpu_id", &other.uuid)));
        }
        let own = reading.processes.as_ref()?.iter().filter(|process| process.holds_memory_for(unit));
        let held: u64 = own.clone().filter_map(|process| process.used).sum();
        Some(Finding::ok(
            NAME,
            match own.count() {
                0 => format!("{unit} holds no memory of any card now"),
                _ => format!("{unit} holds {} MiB of this card", held / MIB),
            },
        ))
    }

    /// Whether the service sees the card, as this process does.
    pub(super) fn visibility_to_service(&self, report: Option<&ReadyReport>, root: bool) -> Option<Finding> {
        const NAME: &str = "service_card";
        let (Some(GpuState::Present(_)), Some(report)) = (self.state, report) else { return None };
        let failing_check = report.checks.iter().find(|check| {
            GPU_VISIBILITY_CHECKS.contains(&check.name.as_str()) && check.status == CheckStatus::Fail
        });
        let Some(check) = failing_check else {
            return report
                .gpu
                .as_ref()
                .map(|gpu| Finding::ok(NAME, format!("the service sees {} too", gpu.name)));
        };
        let who = if root { "root" } else { "this user" };
        let message = format!("{who} sees the card and the service does not: {}", check.message);
        let fix = "sudo systemctl restart ada2-sidecar # if it persists: systemctl cat ada2-sidecar must show \
                   DeviceAllow=char-195 rw and no PrivateDevices=";
        Some(Finding::fail(NAME, message, fix))
    }
}

/// Of `0 = GPU-… (NVIDIA …)`.
fn find_uuid(text: &str) -> &str {
    text.split_whitespace().find(|word| word.starts_with("GPU-")).unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use service::doctor::Verdict;
    use wire::health::{Check, EngineReport, GpuReport, ReadyStatus};

    use super::*;
    use crate::gpu::{GpuProcess, GpuProcessType, HealthReading, OtherGpuUsage};

    fn reading() -> GpuReading {
        let report =
            GpuReport { name: "Ada".into(), uuid: "GPU-1".into(), count: Some(1), ..GpuReport::default() };
        GpuReading {
            report,
            health: HealthReading::default(),
            memory: None,
            processes: Some(Vec::new()),
            processes_taken_at: Instant::now(),
            engine_unit_active: true,
            other_gpus: Vec::new(),
        }
    }

    fn evaluate(state: &GpuState, gpu_id: &str) -> Vec<Finding> {
        let fixes = FixHints { file: "c".into(), managed_by_unit: true };
        CardFacts { state: Some(state), required: true, gpu_id, engine_unit: "e.service", fixes: &fixes }
            .evaluate()
    }

    fn present(change: impl Fn(&mut GpuReading), gpu_id: &str) -> Vec<(&'static str, Verdict, String)> {
        let mut reading = reading();
        change(&mut reading);
        let findings = evaluate(&GpuState::Present(Box::new(reading)), gpu_id);
        findings.into_iter().map(|one| (one.name, one.verdict, one.fix.unwrap_or(one.message))).collect()
    }

    #[test]
    fn a_present_card_is_checked_for_what_blocks_the_engine() {
        use Verdict::{Fail, Ok, Warn};
        let process = |used| GpuProcess {
            pid: 1,
            name: "python3".into(),
            unit: Some("e.service".into()),
            process_type: GpuProcessType::Compute,
            used: Some(used),
        };
        assert_eq!(
            present(|_| {}, "0"),
            [
                ("card", Ok, "Ada (GPU-1)".into()),
                ("engine_card", Ok, "e.service holds no memory of any card now".into()),
            ]
        );
        let two = |reading: &mut GpuReading| reading.report.count = Some(2);
        let findings = present(two, "0");
        assert!(findings[0].1 == Warn && findings[0].2.contains("`gpu_id: GPU-1`"), "{findings:?}");
        assert_eq!(present(two, "GPU-1")[0].1, Ok);
        let findings = present(|reading| reading.report.compute_mode = Some("Prohibited".into()), "0");
        assert_eq!(findings[1], ("compute_mode", Fail, "sudo nvidia-smi -i GPU-1 -c 0".into()));
        let findings = present(|reading| reading.report.mig_mode_current = Some("Enabled".into()), "0");
        assert_eq!(findings[1], ("mig_mode", Warn, "sudo nvidia-smi -i GPU-1 -mig 0".into()));
        let findings = present(|reading| reading.processes = Some(vec![process(3 * MIB)]), "0");
        assert_eq!(findings[1].2, "e.service holds 3 MiB of this card");
        let elsewhere = OtherGpuUsage {
            index: 1,
            name: "Other".into(),
            uuid: "GPU-2".into(),
            processes: vec![process(MIB)],
        };
        let findings = present(|reading| reading.other_gpus = vec![elsewhere.clone()], "0");
        assert!(findings[1].1 == Warn && findings[1].2.contains("`gpu_id: GPU-2`"), "{findings:?}");
        assert_eq!(present(|reading| reading.engine_unit_active = false, "0").len(), 1);
    }

    #[test]
    fn a_missing_card_names_those_that_exist() {
        let none = GpuState::NoDevice { requested: "0".into(), found: Vec::new() };
        assert_eq!(evaluate(&none, "0")[0].fix.as_deref(), Some("lspci | grep -i nvidia"));
        let other = GpuState::NoDevice { requested: "GPU-9".into(), found: vec!["0 = GPU-1 (Ada)".into()] };
        let findings = evaluate(&other, "GPU-9");
        assert!(
            findings[0].message.contains("gpu_id GPU-9 matches no GPU; found: 0 = GPU-1 (Ada)"),
            "{findings:?}"
        );
        assert!(findings[0].fix.as_ref().unwrap().contains("`gpu_id: GPU-1`"));
        assert_eq!(evaluate(&GpuState::Lost, "0")[0].fix.as_deref(), Some("sudo reboot"));
        assert!(evaluate(&GpuState::DriverNotLoaded, "0").is_empty(), "the driver's line says it");
    }

    #[test]
    fn a_service_without_access_to_the_card_is_not_taken_for_a_missing_card() {
        let state = GpuState::Present(Box::new(reading()));
        let fixes = FixHints { file: "c".into(), managed_by_unit: true };
        let facts = |state| CardFacts {
            state: Some(state),
            required: true,
            gpu_id: "0",
            engine_unit: "e",
            fixes: &fixes,
        };
        let engine =
            EngineReport { kind: "builtin".into(), url: None, version: None, queue_depth: 0, models: 0 };
        let report = |checks, gpu| ReadyReport {
            status: ReadyStatus::Ready,
            checks,
            gpu,
            engine: engine.clone(),
            since: 1,
            sampled_at: 1.0,
        };
        let fail = Check::pass("nvml", "", "").with_status(CheckStatus::Fail, "the driver refuses this user");
        let denied = report(vec![fail], None);
        let findings = facts(&state).visibility_to_service(Some(&denied), true).unwrap();
        assert!(
            findings.verdict == Verdict::Fail
                && findings.message.contains("root sees the card and the service does not"),
            "{findings:?}"
        );
        assert_eq!(facts(&GpuState::DriverNotLoaded).visibility_to_service(Some(&denied), true), None);
        let good = report(vec![Check::pass("nvml", "", "")], Some(GpuReport::default()));
        assert_eq!(facts(&state).visibility_to_service(Some(&good), true).unwrap().verdict, Verdict::Ok);
        assert_eq!(facts(&state).visibility_to_service(None, true), None);
    }
}
