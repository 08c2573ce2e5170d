//! The one check with a state of its own: VRAM available to the engine, against the floor. It fails only after
//! the floor was missed for a while and passes only after a margin was kept for a while, so it cannot flap.

use std::time::{Duration, Instant};

use wire::health::{Check, CheckStatus};

use super::Rules;
use crate::{
    gpu::{
        GpuProcess, GpuReading,
        vram::{self, Headroom},
    },
    readiness::alarm::{Alarm, Delays},
};

/// Memory comes and goes as programs load and unload.
const DELAYS: Delays = Delays { rise: Duration::from_secs(15), fall: Duration::from_secs(10) };
/// Above the floor by this much, to pass again.
const MARGIN: u64 = 1 << 30;
/// The driver attributes memory of contexts and the display to no process: less than this is no leak.
const MIN_UNLISTED: u64 = 512 << 20;
const MIB: u64 = 1 << 20;

/// The check, and what to remember for the next one.
pub(super) fn check(
    prev: Option<Alarm>,
    reading: Option<&GpuReading>,
    rules: &Rules,
    now: Instant,
) -> (Option<Alarm>, Check) {
    let floor = rules.min_free_vram;
    let expected = if floor == 0 { "off".to_owned() } else { format!("at least {} MiB", floor / MIB) };
    let check = |observed: String| Check::pass("vram_headroom", observed, expected.clone());
    let unknown = |why: &str| check("unknown".to_owned()).with_status(CheckStatus::Unknown, why);
    let Some(reading) = reading else {
        // One failed sample does not reset the alarms; a card that went away does.
        return (prev.filter(|alarm| !alarm.on), unknown("no GPU is being read"));
    };
    let Some(memory) = &reading.memory else {
        return (
            prev,
            unknown("the driver does not report this GPU's memory (unified memory): see host_memory"),
        );
    };
    let unit = &rules.engine_unit;
    let headroom = vram::headroom(memory, reading.processes.as_deref(), unit, reading.engine_unit_active);
    let effective = match headroom.effective.or(headroom.at_most.filter(|most| *most < floor)) {
        Some(effective) => effective,
        // Free memory is available to the engine, whoever holds the rest.
        None if headroom.free >= floor => headroom.free,
        None => {
            let free = headroom.free / MIB;
            let message = format!(
                "only {free} MiB are free and the engine's own share of the rest is unknown: {}; name its unit with \
                 --engine-unit, or lower --min-free-vram",
                unknown_share_reason(reading, unit)
            );
            return (prev, check(format!("{free} MiB free")).with_status(CheckStatus::Warn, message));
        }
    };
    let check = check(format!("{} MiB", effective / MIB));
    if floor == 0 {
        return (None, check);
    }
    let (low, enough) = (effective < floor, effective >= floor.saturating_add(MARGIN));
    // The first reading decides at once; later ones only once they have lasted.
    let alarm = prev.map_or_else(|| Alarm::new(low), |alarm| alarm.update(low, enough, DELAYS, now));
    if !alarm.on {
        return (Some(alarm), check);
    }
    let (has, wants) = (effective / MIB, floor / MIB);
    let message = if low {
        let holders = holders(&headroom, rules);
        format!("only {has} MiB of VRAM are available to the engine, the floor is {wants} MiB: {holders}")
    } else {
        format!(
            "{has} MiB are available again, the floor is {wants} MiB; passes once {} above the floor has lasted {} s",
            gibibytes(MARGIN),
            DELAYS.fall.as_secs()
        )
    };
    (Some(alarm), check.with_status(CheckStatus::Fail, message))
}

fn unknown_share_reason(reading: &GpuReading, unit: &str) -> String {
    let Some(processes) = &reading.processes else {
        return "the driver lists no processes".to_owned();
    };
    if processes.iter().any(|process| process.used.is_none()) {
        return "the driver does not say what each process holds".to_owned();
    }
    format!("no process of {unit} is known")
}

/// Who holds the rest, largest first, and what to do.
fn holders(headroom: &Headroom, rules: &Rules) -> String {
    let one = |process: &GpuProcess| {
        let unit = process.unit.as_deref().unwrap_or("no unit");
        let used = process.used.map_or_else(|| "? MiB".to_owned(), |used| format!("{} MiB", used / MIB));
        format!("pid {} {:?} ({unit}) {used}", process.pid, process.name)
    };
    let mut parts = Vec::new();
    let largest: Vec<_> = headroom.foreign.iter().take(3).map(one).collect();
    if !largest.is_empty() {
        parts.push(format!("held by {}; stop it, or lower --min-free-vram", largest.join(", ")));
    }
    if headroom.unlisted >= MIN_UNLISTED {
        let container = rules.warn_only_hint(
            "vram_headroom",
            "; if the sidecar runs in a container and cannot see the host's processes, set warn_only: vram_headroom",
        );
        parts.push(format!(
            "{} are held by no process that the driver lists: left by a process that crashed, or another container's; stop \
             that container, or reset the GPU when idle (`sudo nvidia-smi --gpu-reset`){container}",
            gibibytes(headroom.unlisted)
        ));
    }
    if parts.is_empty() {
        parts.push("no other process holds VRAM; lower --min-free-vram".to_owned());
    }
    parts.join("; ")
}

#[expect(clippy::cast_precision_loss, reason = "for people, to a tenth")]
fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
