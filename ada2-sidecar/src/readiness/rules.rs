//! The rules: from what was seen to the verdict. Pure: no clock, no I/O, no lock; `now` comes in.

mod vram;

use std::time::{Duration, Instant, SystemTime};

use shared::health::{Check, CheckStatus, EngineReport, GpuReport, ReadyReport, Status};

use self::vram::Watermark;
use crate::{
    config::Config,
    engine::{EngineError, catalog, monitor::EngineState},
    gpu::{GpuReading, GpuSample, GpuState},
};

/// A sample older than this means that the driver hangs.
const STALE: Duration = Duration::from_secs(5);
/// A cancelled job that the engine has not let go of for this long gates.
const CANCEL_LIMIT: Duration = Duration::from_mins(1);

/// What is judged.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The last look at the card; none before the first.
    pub gpu: Option<&'a GpuSample>,
    /// When looking at the card began.
    pub started: Instant,
    /// The engine as last seen.
    pub engine: &'a EngineState,
    /// Slots.
    pub limit: usize,
    /// Slots taken.
    pub inflight: usize,
    /// How long the engine has been asked to let go of the oldest cancelled job.
    pub oldest_cancel: Option<Duration>,
    /// Whether the service is stopping.
    pub draining: bool,
}

/// The thresholds.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Whether an absent GPU gates.
    pub gpu_required: bool,
    /// Bytes of VRAM that the engine must be able to have; 0 = off.
    pub min_free_vram: u64,
    /// Whose VRAM is the engine's own.
    pub engine_unit: String,
    /// The engine's name, for texts.
    pub engine: &'static str,
    /// The engine's address, for texts.
    pub engine_url: Option<String>,
    /// The model that requests without one get.
    pub default_model: Option<String>,
}

impl Rules {
    /// The configured ones.
    pub fn of(config: &Config) -> Self {
        Self {
            gpu_required: config.gpu_required,
            min_free_vram: config.min_free_vram,
            engine_unit: config.engine_unit.clone(),
            engine: config.engine.name(),
            engine_url: config.engine_url.as_ref().map(shared::service::secret::redacted_url),
            default_model: config.default_model.clone(),
        }
    }
}

/// A report, and what the next one must remember.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What is published.
    pub report: ReadyReport,
    vram: Option<Watermark>,
}

/// Judges.
pub fn judge(
    prev: Option<&Verdict>,
    inputs: &Inputs<'_>,
    rules: &Rules,
    now: Instant,
    wall: SystemTime,
) -> Verdict {
    let reading = match inputs.gpu.map(|sample| &sample.state) {
        Some(GpuState::Present(reading)) => Some(&**reading),
        _ => None,
    };
    let (vram, headroom) = vram::check(prev.and_then(|prev| prev.vram), reading, rules, now);
    let checks = vec![
        nvml(inputs.gpu, rules),
        snapshot_fresh(inputs, now),
        gpu_present(inputs.gpu, rules),
        headroom,
        engine_reachable(inputs.engine, rules),
        engine_queue(inputs.engine),
        engine_model(inputs.engine, rules),
        slots(inputs),
        draining(inputs.draining),
    ];
    let status = status_of(&checks);
    let unix = unix_seconds(wall);
    let unchanged = prev.filter(|prev| prev.report.status == status);
    let report = ReadyReport {
        status,
        checks,
        gpu: reading.map(|reading| GpuReport { ..reading.report.clone() }),
        engine: engine_report(inputs.engine, rules),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "unix seconds fit for long"
        )]
        since: unchanged.map_or(unix as u64, |prev| prev.report.since),
        sampled_at: inputs.gpu.filter(|_| reading.is_some()).map_or(unix, |sample| unix_seconds(sample.wall)),
    };
    Verdict { report, vram }
}

fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn status_of(checks: &[Check]) -> Status {
    let any = |status| checks.iter().any(|check| check.status == status);
    if any(CheckStatus::Fail) {
        Status::NotReady
    } else if any(CheckStatus::Warn) {
        Status::Degraded
    } else {
        Status::Ready
    }
}

/// What an absent GPU means: a failure where one is required, else just not known.
fn absent(rules: &Rules) -> CheckStatus {
    if rules.gpu_required { CheckStatus::Fail } else { CheckStatus::Unknown }
}

fn nvml(sample: Option<&GpuSample>, rules: &Rules) -> Check {
    let check = |observed: &str| Check::pass("nvml", observed, "loaded");
    let hint = if rules.gpu_required { ", or start with --gpu optional if this host has no GPU" } else { "" };
    match sample.map(|sample| &sample.state) {
        None => check("not asked yet").but(absent(rules), "the driver has not answered yet; wait a moment"),
        Some(GpuState::NoLibrary(words)) => check("not found").but(
            absent(rules),
            format!("libnvidia-ml cannot be loaded ({words}): install the NVIDIA driver, or name it with --nvml-lib{hint}"),
        ),
        Some(GpuState::DriverNotLoaded) => check("driver not loaded").but(
            absent(rules),
            format!("the NVIDIA kernel module is not loaded: run `sudo modprobe nvidia`, look at `dmesg`{hint}"),
        ),
        Some(GpuState::NoPermission) => check("no permission").but(
            CheckStatus::Fail,
            "the driver refuses this user: allow the unit /dev/nvidiactl and /dev/nvidia0 (no PrivateDevices=)",
        ),
        Some(GpuState::VersionMismatch) => check("version mismatch").but(
            CheckStatus::Fail,
            "the driver was upgraded while its old kernel module is loaded: reboot, or reload the module",
        ),
        Some(GpuState::Failed(words)) => {
            check("error").but(CheckStatus::Fail, format!("NVML fails: {words}; look at `nvidia-smi` and `dmesg`"))
        }
        Some(GpuState::Present(_) | GpuState::NoDevice { .. } | GpuState::Lost) => check("loaded"),
    }
}

fn snapshot_fresh(inputs: &Inputs<'_>, now: Instant) -> Check {
    let expected = format!("at most {} s old", STALE.as_secs());
    let age = now.saturating_duration_since(inputs.gpu.map_or(inputs.started, |sample| sample.taken));
    let observed = match inputs.gpu {
        Some(_) => format!("{:.1} s old", age.as_secs_f64()),
        None => "no reading yet".to_owned(),
    };
    let check = Check::pass("snapshot_fresh", observed, expected);
    if age <= STALE {
        return check;
    }
    check.but(
        CheckStatus::Fail,
        format!(
            "nothing was read for {} s: a call into the NVIDIA driver hangs; look at `dmesg`, a reboot may be needed",
            age.as_secs()
        ),
    )
}

fn gpu_present(sample: Option<&GpuSample>, rules: &Rules) -> Check {
    let check = |observed: String| Check::pass("gpu_present", observed, "the configured GPU answers");
    match sample.map(|sample| &sample.state) {
        Some(GpuState::Present(reading)) => check(format!("{} {}", reading.report.name, reading.report.uuid)),
        Some(GpuState::Lost) => check("lost".to_owned()).but(
            CheckStatus::Fail,
            "GPU is lost: it fell off the bus or needs a reset; look at `dmesg` for Xid lines, reboot if it does not return",
        ),
        Some(GpuState::NoDevice { wanted, found }) if found.is_empty() => check("no GPU".to_owned())
            .but(absent(rules), format!("the driver knows no GPU, and --gpu-id wants {wanted}")),
        Some(GpuState::NoDevice { wanted, found }) => check("another GPU".to_owned())
            .but(CheckStatus::Fail, format!("--gpu-id wants {wanted}, and there is only {}", found.join(", "))),
        _ => check("unknown".to_owned()).but(absent(rules), "no GPU can be seen, see nvml"),
    }
}

fn engine_reachable(engine: &EngineState, rules: &Rules) -> Check {
    let url = rules.engine_url.as_deref().unwrap_or("in this process");
    let name = rules.engine;
    let check =
        |observed: String| Check::pass("engine_reachable", observed, format!("{name} answers at {url}"));
    match (&engine.fault, &engine.survey) {
        (None, Some(survey)) => {
            let check = check(format!("{name} {}", survey.version));
            match &survey.caution {
                Some(caution) => check.but(CheckStatus::Warn, caution.clone()),
                None => check,
            }
        }
        (None, None) => check("not asked yet".to_owned())
            .but(CheckStatus::Fail, "the engine has not answered yet; wait a moment"),
        (Some(EngineError::Refused(words)), _) => check(words.clone()).but(
            CheckStatus::Fail,
            format!(
                "nothing listens at {url}: start the engine (`systemctl start {}`) or mend --engine-url",
                rules.engine_unit
            ),
        ),
        (Some(EngineError::NoAnswer(words)), _) => check(words.clone()).but(
            CheckStatus::Fail,
            format!(
                "the engine at {url} does not answer ({words}): look at `systemctl status {}`",
                rules.engine_unit
            ),
        ),
        (Some(fault), _) => check("unusable".to_owned())
            .but(CheckStatus::Fail, format!("{fault}; check --engine and --engine-url ({url})")),
    }
}

fn unseen(name: &str, expected: &str) -> Check {
    Check::pass(name, "unknown", expected)
        .but(CheckStatus::Unknown, "the engine cannot be asked, see engine_reachable")
}

fn engine_queue(engine: &EngineState) -> Check {
    let expected = "not paused";
    let Some(survey) = engine.survey.as_ref().filter(|_| engine.reachable()) else {
        return unseen("engine_queue", expected);
    };
    if survey.paused {
        return Check::pass("engine_queue", "paused", expected).but(
            CheckStatus::Fail,
            "the engine's queue is paused, new jobs would wait for ever: resume it in the engine's own web page",
        );
    }
    let observed = format!("{} jobs, {} of others waiting", survey.queue_depth, survey.others_waiting);
    Check::pass("engine_queue", observed, expected)
}

fn engine_model(engine: &EngineState, rules: &Rules) -> Check {
    let expected = match &rules.default_model {
        Some(model) => format!("{model:?} is installed"),
        None => "a model that is served here is installed".to_owned(),
    };
    let Some(survey) = engine.survey.as_ref().filter(|_| engine.reachable()) else {
        return unseen("engine_model", &expected);
    };
    let check = Check::pass("engine_model", format!("{} models", survey.models.len()), expected);
    match catalog::resolve(&survey.models, None, rules.default_model.as_deref()) {
        Ok(_) => check,
        Err(_) if survey.models.is_empty() => check.but(
            CheckStatus::Fail,
            "the engine has no SD 1.5 or SDXL main model: install one in the engine's model manager",
        ),
        Err(unknown) => check.but(CheckStatus::Fail, format!("--default-model cannot be used: {unknown}")),
    }
}

/// Informs: a busy sidecar is ready and answers 429. Gates only while the engine does not let go of a cancelled job.
fn slots(inputs: &Inputs<'_>) -> Check {
    let observed = format!("{} of {} taken", inputs.inflight, inputs.limit);
    let check = Check::pass("slots", observed, "any; cancelled jobs are let go of");
    match inputs.oldest_cancel {
        Some(age) if age >= CANCEL_LIMIT => check.but(
            CheckStatus::Fail,
            format!(
                "the engine has not confirmed a cancel for {} s: restart it if it does not recover",
                age.as_secs()
            ),
        ),
        _ => check,
    }
}

fn draining(draining: bool) -> Check {
    let check = Check::pass("draining", if draining { "yes" } else { "no" }, "no");
    if draining {
        check.but(CheckStatus::Fail, "the service is stopping; what runs is being finished")
    } else {
        check
    }
}

fn engine_report(engine: &EngineState, rules: &Rules) -> EngineReport {
    let survey = engine.survey.as_ref();
    EngineReport {
        kind: rules.engine.to_owned(),
        url: rules.engine_url.clone(),
        version: survey.map(|survey| survey.version.clone()),
        queue_depth: survey.map_or(0, |survey| survey.queue_depth),
        models: survey.map_or(0, |survey| survey.models.len()),
    }
}

impl GpuReading {
    /// Bytes that the engine could have, if it can be told.
    pub fn headroom(&self, engine_unit: &str) -> crate::gpu::vram::Headroom {
        crate::gpu::vram::headroom(
            &self.memory,
            self.processes.as_deref(),
            engine_unit,
            self.engine_unit_active,
        )
    }
}

#[cfg(test)]
mod tests;
