//! The one check with a memory of its own: VRAM that the engine could have, against the floor. It fails only after
//! the floor was missed for a while and passes only after a margin was kept for a while, so it cannot flap.

use std::time::{Duration, Instant};

use shared::health::{Check, CheckStatus};

use super::Rules;
use crate::{
    gpu::{GpuProcess, GpuReading, vram},
    readiness::alarm::{Alarm, Delays},
};

/// Memory comes and goes as programs load and unload.
const DELAYS: Delays = Delays { rise: Duration::from_secs(15), fall: Duration::from_secs(10) };
/// Above the floor by this much, to pass again.
const MARGIN: u64 = 1 << 30;
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
    let check = |observed: String| Check::pass("vram_headroom", observed, expected);
    let Some(reading) = reading else {
        // What was known before counts again when the card is read again.
        return (prev, check("unknown".to_owned()).but(CheckStatus::Unknown, "no GPU is being read"));
    };
    let headroom = vram::headroom(
        &reading.memory,
        reading.processes.as_deref(),
        &rules.engine_unit,
        reading.engine_unit_active,
    );
    // What is free is the engine's to have in any case, whoever holds the rest.
    let effective = headroom.effective.or(Some(headroom.free).filter(|free| *free >= floor));
    let Some(effective) = effective else {
        let words = format!(
            "{} MiB are free and the engine's own share cannot be told: no process of {} is known (--engine-unit)",
            headroom.free / MIB,
            rules.engine_unit
        );
        return (prev, check(format!("{} MiB free", headroom.free / MIB)).but(CheckStatus::Unknown, words));
    };
    let check = check(format!("{} MiB", effective / MIB));
    if floor == 0 {
        return (None, check);
    }
    let (low, enough) = (effective < floor, effective >= floor.saturating_add(MARGIN));
    // The first reading decides at once; later ones only once they have lasted.
    let alarm = prev.map_or_else(|| Alarm::starting(low), |alarm| alarm.next(low, enough, DELAYS, now));
    if !alarm.on {
        return (Some(alarm), check);
    }
    let words = format!(
        "the engine could have only {} MiB of VRAM, the floor is {} MiB: {}",
        effective / MIB,
        floor / MIB,
        holders(&headroom.foreign)
    );
    (Some(alarm), check.but(CheckStatus::Fail, words))
}

/// Who holds the rest, largest first, and what to do.
fn holders(foreign: &[GpuProcess]) -> String {
    let one = |process: &GpuProcess| {
        let unit = process.unit.as_deref().unwrap_or("no unit");
        let used = process.used.map_or_else(|| "? MiB".to_owned(), |used| format!("{} MiB", used / MIB));
        format!("pid {} {:?} ({unit}) {used}", process.pid, process.name)
    };
    if foreign.is_empty() {
        return "held by no process that the driver names; look at `nvidia-smi`, or lower --min-free-vram"
            .to_owned();
    }
    let largest: Vec<_> = foreign.iter().take(3).map(one).collect();
    format!("held by {}; stop it, or lower --min-free-vram", largest.join(", "))
}
