//! The host: disk space for images, memory for models.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use wire::health::{Check, CheckStatus};

use super::{EvaluationInputs, HostRules, Rules};
use crate::{
    host::{HostSample, OutputDisk},
    readiness::alarm::{Alarm, Delays},
    sandbox,
};

/// An older sample does not count: a disk hangs.
const MAX_SAMPLE_AGE: Duration = Duration::from_secs(15);
/// Loading a model takes memory briefly.
const DELAYS: Delays = Delays { rise: Duration::from_secs(15), fall: Duration::from_secs(10) };
const MIB: u64 = 1 << 20;

#[derive(Debug, Clone, Default)]
pub(super) struct HostAlarms {
    memory: Option<Alarm>,
    disk: Option<Alarm>,
}

pub(super) fn checks(
    alarms: &mut HostAlarms,
    inputs: &EvaluationInputs<'_>,
    rules: &Rules,
    now: Instant,
) -> Vec<Check> {
    let fresh = inputs.host.filter(|sample| now.saturating_duration_since(sample.taken) <= MAX_SAMPLE_AGE);
    let is_stalled = inputs.host.is_some() && fresh.is_none();
    vec![
        disk(&mut alarms.disk, fresh, is_stalled, &rules.host, now),
        host_memory(&mut alarms.memory, fresh, &rules.host, now),
    ]
}

/// An alarm below the floor, cleared only a tenth above it.
fn update_alarm(alarm: &mut Option<Alarm>, available: u64, floor: u64, now: Instant) -> bool {
    let enough = available >= floor.saturating_add(floor / 10);
    let next = alarm.map_or_else(
        || Alarm::new(available < floor),
        |alarm| alarm.update(available < floor, enough, DELAYS, now),
    );
    *alarm = Some(next);
    next.on
}

fn disk(
    alarm: &mut Option<Alarm>,
    sample: Option<&HostSample>,
    is_stalled: bool,
    rules: &HostRules,
    now: Instant,
) -> Check {
    let floor = rules.min_free_disk;
    let check = |observed: String| Check::pass("disk", observed, format!("at least {} MiB", floor / MIB));
    let (mount, available) = match sample.map(|sample| &sample.disk) {
        None if is_stalled => {
            return check("unknown".to_owned()).with_status(
                CheckStatus::Unknown,
                "reading the disks hangs: look for a dead mount with `df`",
            );
        }
        None => {
            return check("unknown".to_owned())
                .with_status(CheckStatus::Unknown, "not read yet; wait a moment");
        }
        Some(OutputDisk::NotConfigured) => {
            return check("not monitored".to_owned()).with_status(
                CheckStatus::Unknown,
                "set --engine-output-dir to the directory of the engine's images",
            );
        }
        Some(OutputDisk::NotFound(directory)) => {
            let hint = sandbox::access_hint(directory, ErrorKind::NotFound).unwrap_or_default();
            let message =
                format!("--engine-output-dir {} is not visible to the service{hint}", directory.display());
            return check("not seen".to_owned()).with_status(CheckStatus::Unknown, message);
        }
        Some(OutputDisk::Found { mount, available, .. }) => (mount.display(), *available),
    };
    let result = check(format!("{} MiB on {mount}", available / MIB));
    let remedy = "delete images in the engine, or make room";
    if update_alarm(alarm, available, floor, now) && floor > 0 {
        let message =
            format!("only {} MiB are left on {mount} for the engine's images: {remedy}", available / MIB);
        return result.with_status(CheckStatus::Fail, message);
    }
    if available < floor.saturating_mul(2) {
        let message =
            format!("{} MiB are left on {mount} for the engine's images: {remedy} soon", available / MIB);
        return result.with_status(CheckStatus::Warn, message);
    }
    result
}

fn host_memory(
    alarm: &mut Option<Alarm>,
    sample: Option<&HostSample>,
    rules: &HostRules,
    now: Instant,
) -> Check {
    let floor = rules.min_free_memory;
    let check = |observed: String| {
        Check::pass("host_memory", observed, format!("at least {} MiB available", floor / MIB))
    };
    let Some(sample) = sample else {
        return check("unknown".to_owned()).with_status(CheckStatus::Unknown, "not read lately, see disk");
    };
    let HostSample { memory_available: available, memory_total, swap_total, swap_used, .. } = sample;
    let percent = (swap_used * 100).checked_div(*swap_total).unwrap_or(0);
    let result =
        check(format!("{} of {} MiB available, swap {percent} % used", available / MIB, memory_total / MIB));
    let remedy = "stop processes that are not needed, or reduce the engine's caches";
    if update_alarm(alarm, *available, floor, now) && floor > 0 {
        let message = format!(
            "only {} MiB of host memory are available: the engine may be killed while it loads a model; {remedy}",
            available / MIB
        );
        return result.with_status(CheckStatus::Fail, message);
    }
    if *available < floor.saturating_mul(2) {
        let message = format!("host memory is short ({} MiB available): {remedy}", available / MIB);
        return result.with_status(CheckStatus::Warn, message);
    }
    if rules.max_swap_used < 100 && percent > rules.max_swap_used {
        return result.with_status(
            CheckStatus::Warn,
            format!("{percent} % of swap is in use: the host is slow; {remedy}"),
        );
    }
    result
}
