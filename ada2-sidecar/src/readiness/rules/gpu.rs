//! Is there a card, does its driver answer, and what does it advise.

use std::time::Instant;

use wire::health::{Check, CheckStatus};

use super::{Inputs, Rules, unread};
use crate::gpu::{GpuSample, GpuState, PROOF, STALE, recovery_words};

/// Whether the card is or was in trouble and has yet to prove itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    lost: bool,
    failing: Option<String>,
}

impl Trouble {
    fn next(&mut self, sample: Option<&GpuSample>) {
        let Some(sample) = sample else { return };
        match &sample.state {
            GpuState::Present(_) if sample.good >= PROOF => *self = Self::default(),
            GpuState::Failed(words) => self.failing = Some(words.clone()),
            GpuState::Lost => self.lost = true,
            _ => {}
        }
    }
}

pub(super) fn checks(trouble: &mut Trouble, inputs: &Inputs<'_>, rules: &Rules, now: Instant) -> Vec<Check> {
    trouble.next(inputs.gpu);
    vec![
        nvml(inputs.gpu, trouble, rules),
        driver(inputs.gpu),
        snapshot_fresh(inputs, now),
        gpu_present(inputs.gpu, trouble, rules),
        recovery_action(inputs.gpu),
    ]
}

fn nvml(sample: Option<&GpuSample>, trouble: &Trouble, rules: &Rules) -> Check {
    let check = |observed: &str| Check::pass("nvml", observed, "loaded");
    let hint = if rules.gpu_required { ", or start with --gpu optional if this host has no GPU" } else { "" };
    let absent = rules.absent();
    if let Some(words) = &trouble.failing {
        let words = format!("NVML fails: {words}; look at `nvidia-smi` and `dmesg`");
        return check("error").but(CheckStatus::Fail, words);
    }
    match sample.map(|sample| &sample.state) {
        // Also where no GPU is required: it may be there, and what it reported before the first look is not to be had.
        None => check("not asked yet")
            .but(CheckStatus::Fail, "the driver has not answered yet; wait a moment"),
        Some(GpuState::NoLibrary(words)) => check("not found").but(
            absent,
            format!("libnvidia-ml cannot be loaded ({words}): install the NVIDIA driver, or name it with --nvml-lib{hint}"),
        ),
        Some(GpuState::DriverNotLoaded) => check("driver not loaded").but(
            absent,
            format!("the NVIDIA kernel module is not loaded: run `sudo modprobe nvidia`, look at `dmesg`{hint}"),
        ),
        Some(GpuState::NoPermission) => check("no permission").but(
            CheckStatus::Fail,
            "the driver refuses this user: allow the unit /dev/nvidiactl and /dev/nvidia0 (no PrivateDevices=)",
        ),
        Some(GpuState::VersionMismatch) => {
            check("unknown").but(CheckStatus::Unknown, "NVML does not start, see driver")
        }
        // What failed is said above.
        Some(GpuState::Present(_) | GpuState::Failed(_) | GpuState::NoDevice { .. } | GpuState::Lost) => {
            check("loaded")
        }
    }
}

fn driver(sample: Option<&GpuSample>) -> Check {
    let check =
        |observed: String| Check::pass("driver", observed, "kernel module and library of one version");
    match sample.map(|sample| &sample.state) {
        Some(GpuState::VersionMismatch) => check("version mismatch".to_owned()).but(
            CheckStatus::Fail,
            "driver and library versions differ: the driver was upgraded while its old kernel module is loaded; \
             reboot needed, or reload the module",
        ),
        Some(GpuState::Present(reading)) => {
            let running = reading.report.driver_version.as_deref().unwrap_or("unknown");
            let check = check(running.to_owned());
            match &reading.vitals.replaced_driver {
                Some(installed) => check.but(
                    CheckStatus::Warn,
                    format!(
                        "the NVIDIA driver was upgraded under us: {running} runs, {installed} is installed; programs that \
                         start now fail until the reboot"
                    ),
                ),
                None => check,
            }
        }
        _ => check("unknown".to_owned()).but(CheckStatus::Unknown, "no driver is being read, see nvml"),
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

fn gpu_present(sample: Option<&GpuSample>, trouble: &Trouble, rules: &Rules) -> Check {
    let check = |observed: String| Check::pass("gpu_present", observed, "the configured GPU answers");
    match sample.map(|sample| &sample.state) {
        Some(GpuState::Lost) => check("lost".to_owned()).but(
            CheckStatus::Fail,
            "GPU is lost: it fell off the bus or needs a reset; look at `dmesg` for Xid lines, reboot if it does not return",
        ),
        Some(GpuState::Present(_)) if trouble.lost => check("back".to_owned())
            .but(CheckStatus::Fail, "GPU is lost: it answers again and has to prove itself; wait a moment"),
        Some(GpuState::Present(reading)) => check(format!("{} {}", reading.report.name, reading.report.uuid)),
        Some(GpuState::NoDevice { wanted, found }) if found.is_empty() => check("no GPU".to_owned())
            .but(rules.absent(), format!("the driver knows no GPU, and --gpu-id wants {wanted}")),
        Some(GpuState::NoDevice { wanted, found }) => check("another GPU".to_owned())
            .but(CheckStatus::Fail, format!("--gpu-id wants {wanted}, and there is only {}", found.join(", "))),
        _ => check("unknown".to_owned()).but(rules.absent(), "no GPU can be seen, see nvml"),
    }
}

fn recovery_action(sample: Option<&GpuSample>) -> Check {
    let reading = match sample.map(|sample| &sample.state) {
        Some(GpuState::Present(reading)) => Some(&**reading),
        _ => None,
    };
    let expected = "None";
    let Some(action) = reading.and_then(|reading| reading.vitals.recovery_action) else {
        return unread("recovery_action", expected, reading);
    };
    let check = Check::pass("recovery_action", recovery_words(action), expected);
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
        _ => "look at `nvidia-smi -q` under GPU Recovery Action",
    };
    check.but(status, format!("the driver advises {:?}: {remedy}", recovery_words(action)))
}
