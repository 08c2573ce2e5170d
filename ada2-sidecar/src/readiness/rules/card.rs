//! The health of the card: memory errors, replaced memory rows, heat, power and its slot.

use std::time::{Duration, Instant};

use wire::health::{Check, CheckStatus};

use super::{CardRules, EvaluationState, Rules, unavailable};
use crate::{
    gpu::GpuReading,
    readiness::alarm::{Alarm, Delays},
};

/// Bits of `nvmlClocksEventReasons`.
const HW_SLOWDOWN: u64 = 0x08;
const SW_THERMAL: u64 = 0x20;
const HW_THERMAL: u64 = 0x40;
const HW_POWER_BRAKE: u64 = 0x80;

/// Brief slowdowns are normal.
const THROTTLING_DELAYS: Delays = Delays { rise: Duration::from_secs(10), fall: Duration::from_secs(15) };
/// The hardware's emergency throttling for this long: the cooling is faulty.
const HW_THERMAL_DELAYS: Delays = Delays { rise: Duration::from_mins(1), fall: Duration::from_secs(15) };
const NARROW_LINK_DELAYS: Delays = Delays { rise: Duration::from_secs(30), fall: Duration::ZERO };
/// Percent of utilisation from which a card counts as busy: an idle one may narrow its link to save power.
const BUSY_PERCENT: u32 = 10;
/// Rows after which DCGM warns.
const MANY_REMAPPED_ROWS: u64 = 512;

#[derive(Debug, Clone, Default)]
pub(super) struct CardAlarms {
    thermal_throttling: Alarm,
    hw_thermal_slowdown: Alarm,
    power_brake: Alarm,
    narrow_link: Alarm,
}

pub(super) fn checks(
    state: &mut EvaluationState,
    reading: Option<&GpuReading>,
    rules: &Rules,
    now: Instant,
) -> Vec<Check> {
    let alarms = &mut state.card;
    if let Some(reading) = reading {
        alarms.update(reading, now);
        if let Some(count) = reading.health.ecc_uncorrected {
            state.latch.record_ecc(&reading.report.uuid, count);
        }
    }
    vec![
        ecc(state, reading, rules.card),
        row_remap(reading, rules),
        thermal(&state.card, reading),
        power_brake(&state.card, reading),
        pcie_width(&state.card, reading),
    ]
}

impl CardAlarms {
    fn update(&mut self, reading: &GpuReading, now: Instant) {
        if let Some(bits) = reading.health.clock_event_reasons {
            let update = |alarm: Alarm, mask: u64, delays| {
                let set = bits & mask != 0;
                alarm.update(set, !set, delays, now)
            };
            self.thermal_throttling =
                update(self.thermal_throttling, SW_THERMAL | HW_THERMAL, THROTTLING_DELAYS);
            self.hw_thermal_slowdown = update(self.hw_thermal_slowdown, HW_THERMAL, HW_THERMAL_DELAYS);
            self.power_brake = update(self.power_brake, HW_POWER_BRAKE | HW_SLOWDOWN, THROTTLING_DELAYS);
        }
        if let Some((width, widest)) = reading.health.pcie_width {
            let busy = reading.report.utilization_gpu.is_some_and(|percent| percent >= BUSY_PERCENT);
            self.narrow_link =
                self.narrow_link.update(busy && width < widest, width >= widest, NARROW_LINK_DELAYS, now);
        }
    }
}

fn ecc(state: &EvaluationState, reading: Option<&GpuReading>, rules: CardRules) -> Check {
    let expected = "no uncorrected memory errors";
    let baseline = state.latch.ecc.as_ref();
    let count = reading.and_then(|reading| reading.health.ecc_uncorrected);
    let observed = count.map_or_else(|| "unknown".to_owned(), |count| format!("{count} uncorrected"));
    let check = Check::pass("ecc", observed, expected);
    if let Some(baseline) = baseline.filter(|mark| mark.risen) {
        let message = format!(
            "uncorrected memory errors rose above the {} of the first reading: results cannot be trusted; reload the driver \
             or reboot, and replace the card if they return; `sudo ada2-sidecar ack` to continue anyway",
            baseline.first
        );
        return check.with_status(CheckStatus::Fail, message);
    }
    let mode = reading.and_then(|reading| reading.health.ecc_mode);
    match (count, mode) {
        (Some(count @ 1..), _) => {
            let status = if rules.old_ecc_errors_gate { CheckStatus::Fail } else { CheckStatus::Warn };
            let message = format!(
                "{count} uncorrected memory errors since the driver was loaded, none of them new; reboot when idle and see \
                 whether they return"
            );
            check.with_status(status, message)
        }
        (_, Some((current, pending))) if current != pending => check.with_status(
            CheckStatus::Warn,
            format!(
                "error correction is {} and will be {} after the next reboot: reboot when idle",
                on_or_off(current),
                on_or_off(pending)
            ),
        ),
        (_, Some((current, _))) if rules.ecc_mode.is_some_and(|configured| configured != current) => check.with_status(
            CheckStatus::Warn,
            format!(
                "error correction is {}, but --ecc-mode expects the opposite: `sudo nvidia-smi -e {}` and reboot",
                on_or_off(current),
                u8::from(!current)
            ),
        ),
        (Some(_), _) => check,
        (None, _) => unavailable("ecc", expected, reading),
    }
}

const fn on_or_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn row_remap(reading: Option<&GpuReading>, rules: &Rules) -> Check {
    let expected = "no row pending, none failed";
    let health = reading.map(|reading| &reading.health);
    let count = health.and_then(|health| health.remapped_uncorrectable);
    let (pending, failure) =
        health.map_or((None, None), |health| (health.remap_pending, health.remap_failure));
    if count.is_none() && pending.is_none() && failure.is_none() {
        return unavailable("row_remap", expected, reading);
    }
    let check = Check::pass("row_remap", format!("{} rows replaced", count.unwrap_or(0)), expected);
    let status_if = |gates| if gates { CheckStatus::Fail } else { CheckStatus::Warn };
    if failure == Some(true) {
        return check.with_status(
            status_if(rules.card.remap_failure_gates),
            format!(
                "a faulty memory row could not be replaced: replace the card{}",
                rules.warn_only_hint("row_remap", " (warn_only: row_remap to go on with it)")
            ),
        );
    }
    if pending == Some(true) {
        return check.with_status(
            status_if(rules.card.remap_pending_gates),
            "a faulty memory row is replaced at the next reset: stop the engine when idle and `sudo nvidia-smi --gpu-reset`",
        );
    }
    match count {
        Some(rows) if rows >= MANY_REMAPPED_ROWS => check.with_status(
            CheckStatus::Warn,
            format!("{rows} memory rows were replaced: plan to replace the card"),
        ),
        _ => check,
    }
}

fn thermal(alarms: &CardAlarms, reading: Option<&GpuReading>) -> Check {
    let expected = "not slowed down by heat";
    let Some(reading) = reading.filter(|reading| reading.health.clock_event_reasons.is_some()) else {
        return unavailable("thermal", expected, reading);
    };
    let celsius =
        reading.report.temperature.map_or_else(|| "unknown".to_owned(), |celsius| format!("{celsius} C"));
    let check = Check::pass("thermal", celsius.clone(), expected);
    if alarms.hw_thermal_slowdown.on {
        return check.with_status(
            CheckStatus::Fail,
            format!("the hardware has throttled the card for heat for a minute ({celsius}): check fans and airflow, and let it cool down"),
        );
    }
    if alarms.thermal_throttling.on {
        return check.with_status(
            CheckStatus::Warn,
            format!("the card slows itself down because of heat ({celsius}): images take longer; check fans and airflow"),
        );
    }
    check
}

fn power_brake(alarms: &CardAlarms, reading: Option<&GpuReading>) -> Check {
    let expected = "not throttled by the power supply";
    let Some(bits) = reading.and_then(|reading| reading.health.clock_event_reasons) else {
        return unavailable("power_brake", expected, reading);
    };
    let check = Check::pass("power_brake", format!("clocks event reasons {bits:#x}"), expected);
    if alarms.power_brake.on {
        return check.with_status(
            CheckStatus::Warn,
            "the hardware throttles the card for power: check the power supply and its cables to the card",
        );
    }
    check
}

fn pcie_width(alarms: &CardAlarms, reading: Option<&GpuReading>) -> Check {
    let expected = "all lanes while busy";
    let Some((width, widest)) = reading.and_then(|reading| reading.health.pcie_width) else {
        return unavailable("pcie_width", expected, reading);
    };
    let check = Check::pass("pcie_width", format!("x{width} of x{widest}"), expected);
    if alarms.narrow_link.on {
        let message = format!(
            "the card uses {width} of {widest} PCIe lanes while busy: models load slower; reseat the card and check the slot"
        );
        return check.with_status(CheckStatus::Warn, message);
    }
    check
}
