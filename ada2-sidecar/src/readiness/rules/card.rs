//! How well the card is: memory errors, replaced memory rows, heat, power and its slot.

use std::time::{Duration, Instant};

use wire::health::{Check, CheckStatus};

use super::{Memory, Rules, unread};
use crate::{
    config::checks::CardRules,
    gpu::GpuReading,
    readiness::alarm::{Alarm, Delays},
};

/// Bits of `nvmlClocksEventReasons`.
const HW_SLOWDOWN: u64 = 0x08;
const SW_THERMAL: u64 = 0x20;
const HW_THERMAL: u64 = 0x40;
const HW_POWER_BRAKE: u64 = 0x80;

/// The card slows itself down for a moment now and then.
const WARM: Delays = Delays { rise: Duration::from_secs(10), fall: Duration::from_secs(15) };
/// The hardware's own emergency brake, for so long: something is wrong with the cooling.
const HOT: Delays = Delays { rise: Duration::from_mins(1), fall: Duration::from_secs(15) };
const NARROW: Delays = Delays { rise: Duration::from_secs(30), fall: Duration::ZERO };
/// Percent of utilisation from which a card counts as busy: an idle one may narrow its link to save power.
const BUSY: u32 = 10;
/// Rows after which DCGM warns.
const MANY_ROWS: u64 = 512;

#[derive(Debug, Clone, Default)]
pub(super) struct Alarms {
    warm: Alarm,
    hot: Alarm,
    brake: Alarm,
    narrow: Alarm,
}

pub(super) fn checks(
    memory: &mut Memory,
    reading: Option<&GpuReading>,
    rules: &Rules,
    now: Instant,
) -> Vec<Check> {
    let alarms = &mut memory.card;
    if let Some(reading) = reading {
        alarms.next(reading, now);
        if let Some(count) = reading.vitals.ecc_uncorrected {
            memory.latch.note_ecc(&reading.report.uuid, count);
        }
    }
    vec![
        ecc(memory, reading, rules.card),
        row_remap(reading, rules),
        thermal(&memory.card, reading),
        power_brake(&memory.card, reading),
        pcie_width(&memory.card, reading),
    ]
}

impl Alarms {
    fn next(&mut self, reading: &GpuReading, now: Instant) {
        if let Some(bits) = reading.vitals.slowdown {
            let follow = |alarm: Alarm, mask: u64, delays| {
                let set = bits & mask != 0;
                alarm.next(set, !set, delays, now)
            };
            self.warm = follow(self.warm, SW_THERMAL | HW_THERMAL, WARM);
            self.hot = follow(self.hot, HW_THERMAL, HOT);
            self.brake = follow(self.brake, HW_POWER_BRAKE | HW_SLOWDOWN, WARM);
        }
        if let Some((width, widest)) = reading.vitals.pcie_width {
            let busy = reading.report.utilization_gpu.is_some_and(|percent| percent >= BUSY);
            self.narrow = self.narrow.next(busy && width < widest, width >= widest, NARROW, now);
        }
    }
}

fn ecc(memory: &Memory, reading: Option<&GpuReading>, rules: CardRules) -> Check {
    let expected = "no uncorrected memory errors";
    let mark = memory.latch.ecc.as_ref();
    let count = reading.and_then(|reading| reading.vitals.ecc_uncorrected);
    let observed = count.map_or_else(|| "unknown".to_owned(), |count| format!("{count} uncorrected"));
    let check = Check::pass("ecc", observed, expected);
    if let Some(mark) = mark.filter(|mark| mark.risen) {
        let words = format!(
            "uncorrected memory errors rose above the {} of our first look: results cannot be trusted; reload the driver or \
             reboot, replace the card if they return; `sudo ada2-sidecar ack` to go on",
            mark.first
        );
        return check.but(CheckStatus::Fail, words);
    }
    let mode = reading.and_then(|reading| reading.vitals.ecc_mode);
    match (count, mode) {
        (Some(count @ 1..), _) => {
            let status = if rules.old_ecc_errors_gate { CheckStatus::Fail } else { CheckStatus::Warn };
            let words = format!(
                "{count} uncorrected memory errors since the driver was loaded, none of them new; reboot when idle and see \
                 whether they return"
            );
            check.but(status, words)
        }
        (_, Some((current, pending))) if current != pending => check.but(
            CheckStatus::Warn,
            format!(
                "error correction is {} and will be {} after the next reboot: reboot when idle",
                on(current),
                on(pending)
            ),
        ),
        (_, Some((current, _))) if rules.ecc_mode.is_some_and(|wanted| wanted != current) => check.but(
            CheckStatus::Warn,
            format!(
                "error correction is {}, --ecc-mode wants it otherwise: `sudo nvidia-smi -e {}` and reboot",
                on(current),
                u8::from(!current)
            ),
        ),
        (Some(_), _) => check,
        (None, _) => unread("ecc", expected, reading),
    }
}

const fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn row_remap(reading: Option<&GpuReading>, rules: &Rules) -> Check {
    let expected = "no row pending, none failed";
    let vitals = reading.map(|reading| &reading.vitals);
    let count = vitals.and_then(|vitals| vitals.remapped_uncorrectable);
    let (pending, failure) =
        vitals.map_or((None, None), |vitals| (vitals.remap_pending, vitals.remap_failure));
    if count.is_none() && pending.is_none() && failure.is_none() {
        return unread("row_remap", expected, reading);
    }
    let check = Check::pass("row_remap", format!("{} rows replaced", count.unwrap_or(0)), expected);
    let gate = |gates| if gates { CheckStatus::Fail } else { CheckStatus::Warn };
    if failure == Some(true) {
        return check.but(
            gate(rules.card.remap_failure_gates),
            format!(
                "a faulty memory row could not be replaced: replace the card{}",
                rules.hint("row_remap", " (warn_only: row_remap to go on with it)")
            ),
        );
    }
    if pending == Some(true) {
        return check.but(
            gate(rules.card.remap_pending_gates),
            "a faulty memory row is replaced at the next reset: stop the engine when idle and `sudo nvidia-smi --gpu-reset`",
        );
    }
    match count {
        Some(rows) if rows >= MANY_ROWS => check
            .but(CheckStatus::Warn, format!("{rows} memory rows were replaced: plan to replace the card")),
        _ => check,
    }
}

fn thermal(alarms: &Alarms, reading: Option<&GpuReading>) -> Check {
    let expected = "not slowed down by heat";
    let Some(reading) = reading.filter(|reading| reading.vitals.slowdown.is_some()) else {
        return unread("thermal", expected, reading);
    };
    let celsius =
        reading.report.temperature.map_or_else(|| "unknown".to_owned(), |celsius| format!("{celsius} C"));
    let check = Check::pass("thermal", celsius.clone(), expected);
    if alarms.hot.on {
        return check.but(
            CheckStatus::Fail,
            format!("the hardware has braked the card for heat for a minute ({celsius}): look at fans and airflow, let it cool down"),
        );
    }
    if alarms.warm.on {
        return check.but(
            CheckStatus::Warn,
            format!("the card slows itself down because of heat ({celsius}): pictures take longer; look at fans and airflow"),
        );
    }
    check
}

fn power_brake(alarms: &Alarms, reading: Option<&GpuReading>) -> Check {
    let expected = "not braked by the power supply";
    let Some(bits) = reading.and_then(|reading| reading.vitals.slowdown) else {
        return unread("power_brake", expected, reading);
    };
    let check = Check::pass("power_brake", format!("clocks event reasons {bits:#x}"), expected);
    if alarms.brake.on {
        return check.but(
            CheckStatus::Warn,
            "the hardware brakes the card for power: look at the power supply and its cables to the card",
        );
    }
    check
}

fn pcie_width(alarms: &Alarms, reading: Option<&GpuReading>) -> Check {
    let expected = "all lanes while busy";
    let Some((width, widest)) = reading.and_then(|reading| reading.vitals.pcie_width) else {
        return unread("pcie_width", expected, reading);
    };
    let check = Check::pass("pcie_width", format!("x{width} of x{widest}"), expected);
    if alarms.narrow.on {
        let words = format!(
            "the card uses {width} of {widest} PCIe lanes while busy: models load slower; reseat the card, look at the slot"
        );
        return check.but(CheckStatus::Warn, words);
    }
    check
}
