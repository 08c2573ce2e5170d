//! Whether there is a card, whether its driver responds, and what the driver advises.

use std::time::Instant;

use wire::health::{Check, CheckStatus};

use super::{EvaluationInputs, Rules, unavailable};
use crate::gpu::{GpuSample, GpuState, RECOVERY_SAMPLES, STALE_AFTER, recovery_action_name};

/// Whether the card failed and has not yet had enough good samples since.
#[derive(Debug, Clone, Default)]
pub(super) struct GpuFaultState {
    was_lost: bool,
    last_error: Option<String>,
}

impl GpuFaultState {
    fn update(&mut self, sample: Option<&GpuSample>) {
        let Some(sample) = sample else { return };
        match &sample.state {
            GpuState::Present(_) if sample.consecutive_good >= RECOVERY_SAMPLES => *self = Self::default(),
            GpuState::Failed(error) => self.last_error = Some(error.clone()),
            GpuState::Lost => self.was_lost = true,
            _ => {}
        }
    }
}

pub(super) fn checks(
    faults: &mut GpuFaultState,
    inputs: &EvaluationInputs<'_>,
    rules: &Rules,
    now: Instant,
) -> Vec<Check> {
    faults.update(inputs.gpu);
    vec![
        nvml(inputs.gpu, faults, rules),
        driver(inputs.gpu),
        snapshot_fresh(inputs, now),
        gpu_present(inputs.gpu, faults, rules),
        recovery_action(inputs.gpu),
    ]
}

fn nvml(sample: Option<&GpuSample>, faults: &GpuFaultState, rules: &Rules) -> Check {
    let check = |observed: &str| Check::pass("nvml", observed, "loaded");
    let hint = if rules.gpu_required { ", or start with --gpu optional if this host has no GPU" } else { "" };
    let absent = rules.absent_gpu_status();
    if let Some(error) = &faults.last_error {
        let message = format!("NVML fails: {error}; check `nvidia-smi` and `dmesg`");
        return check("error").with_status(CheckStatus::Fail, message);
    }
    match sample.map(|sample| &sample.state) {
        // Also if no GPU is required: there may be one, and its earlier reports cannot be read.
        None => check("not read yet")
            .with_status(CheckStatus::Fail, "the driver has not answered yet; wait a moment"),
        Some(GpuState::LibraryUnavailable(error)) => check("not found").with_status(
            absent,
            format!("libnvidia-ml cannot be loaded ({error}): install the NVIDIA driver, or name it with --nvml-lib{hint}"),
        ),
        Some(GpuState::DriverNotLoaded) => check("driver not loaded").with_status(
            absent,
            format!("the NVIDIA kernel module is not loaded: run `sudo modprobe nvidia`, check `dmesg`{hint}"),
        ),
        Some(GpuState::NoPermission) => check("no permission").with_status(
            CheckStatus::Fail,
            "the driver refuses this user: allow the unit /dev/nvidiactl and /dev/nvidia0 (no PrivateDevices=)",
        ),
        Some(GpuState::VersionMismatch) => {
            check("unknown").with_status(CheckStatus::Unknown, "NVML does not start, see driver")
        }
        // The check above says what failed.
        Some(GpuState::Present(_) | GpuState::Failed(_) | GpuState::NoDevice { .. } | GpuState::Lost) => {
            check("loaded")
        }
    }
}

fn driver(sample: Option<&GpuSample>) -> Check {
    let check =
        |observed: String| Check::pass("driver", observed, "kernel module and library of one version");
    match sample.map(|sample| &sample.state) {
        Some(GpuState::VersionMismatch) => check("version mismatch".to_owned()).with_status(
            CheckStatus::Fail,
            "driver and library versions differ: the driver was upgraded while its old kernel module is loaded; \
             reboot needed, or reload the module",
        ),
        Some(GpuState::Present(reading)) => {
            let running = reading.report.driver_version.as_deref().unwrap_or("unknown");
            let check = check(running.to_owned());
            match &reading.health.driver_on_disk {
                Some(installed) => check.with_status(
                    CheckStatus::Warn,
                    format!(
                        "the NVIDIA driver was upgraded while it is loaded: {running} runs, {installed} is installed; programs that \
                         start now fail until the reboot"
                    ),
                ),
                None => check,
            }
        }
        _ => check("unknown".to_owned()).with_status(CheckStatus::Unknown, "no driver is being read, see nvml"),
    }
}

fn snapshot_fresh(inputs: &EvaluationInputs<'_>, now: Instant) -> Check {
    let expected = format!("at most {} s old", STALE_AFTER.as_secs());
    let age = now.saturating_duration_since(inputs.gpu.map_or(inputs.started_at, |sample| sample.taken));
    let observed = match inputs.gpu {
        Some(_) => format!("{:.1} s old", age.as_secs_f64()),
        None => "no reading yet".to_owned(),
    };
    let check = Check::pass("snapshot_fresh", observed, expected);
    if age <= STALE_AFTER {
        return check;
    }
    check.with_status(
        CheckStatus::Fail,
        format!(
            "nothing was read for {} s: a call into the NVIDIA driver hangs; check `dmesg`, a reboot may be needed",
            age.as_secs()
        ),
    )
}

fn gpu_present(sample: Option<&GpuSample>, faults: &GpuFaultState, rules: &Rules) -> Check {
    let check = |observed: String| Check::pass("gpu_present", observed, "the configured GPU answers");
    match sample.map(|sample| &sample.state) {
        Some(GpuState::Lost) => check("lost".to_owned()).with_status(
            CheckStatus::Fail,
            "GPU is lost: it fell off the bus or needs a reset; check `dmesg` for Xid lines, reboot if it does not return",
        ),
        Some(GpuState::Present(_)) if faults.was_lost => check("back".to_owned())
            .with_status(CheckStatus::Fail, "GPU is lost: it responds again and is being verified; wait a moment"),
        Some(GpuState::Present(reading)) => check(format!("{} {}", reading.report.name, reading.report.uuid)),
        Some(GpuState::NoDevice { requested, found }) if found.is_empty() => check("no GPU".to_owned())
            .with_status(rules.absent_gpu_status(), format!("the driver reports no GPU, and --gpu-id is {requested}")),
        Some(GpuState::NoDevice { requested, found }) => check("another GPU".to_owned())
            .with_status(CheckStatus::Fail, format!("--gpu-id is {requested}, but there is only {}", found.join(", "))),
        _ => check("unknown".to_owned()).with_status(rules.absent_gpu_status(), "no GPU can be seen, see nvml"),
    }
}

fn recovery_action(sample: Option<&GpuSample>) -> Check {
    let reading = match sample.map(|sample| &sample.state) {
        Some(GpuState::Present(reading)) => Some(&**reading),
        _ => None,
    };
    let expected = "None";
    let Some(action) = reading.and_then(|reading| reading.health.recovery_action) else {
        return unavailable("recovery_action", expected, reading);
    };
    let check = Check::pass("recovery_action", recovery_action_name(action), expected);
    let status = match action {
        0 => return check,
        1 | 2 | 4 | 6 | 7 => CheckStatus::Fail,
        _ => CheckStatus::Warn,
    };
    let remedy = match action {
        1 => "stop what uses the GPU, then `sudo nvidia-smi --gpu-reset`",
        2 | 7 => "reboot this host",
        3 => "let work between GPUs end, then follow `nvidia-smi -q`",
        4 => "let running work end, then `sudo nvidia-smi --gpu-reset`",
        6 => "reset the GPU's bus, or reboot this host",
        _ => "check `nvidia-smi -q` under GPU Recovery Action",
    };
    check.with_status(status, format!("the driver advises {:?}: {remedy}", recovery_action_name(action)))
}
