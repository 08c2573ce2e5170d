//! Whether the reported readings were true.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fakes::gpu::Gpu;
use wire::health::{CheckStatus, GpuReport};

use super::{SLACK, check, earlier};
use crate::{
    fault_generator::TEMPERATURE,
    history::{History, Observation},
};

/// As `nvidia-smi` prints it.
const ADVICE: [&str; 8] =
    ["None", "Reset", "Reboot", "Drain P2P", "Drain and Reset", "IMEX Restart", "Bus Reset", "System Reboot"];
/// Two times closer than this are one.
const SAME: Duration = Duration::from_millis(1);

/// When the last looks were published.
#[derive(Debug, Default)]
pub(super) struct ReadingModel {
    last: Option<Instant>,
    before: Option<Instant>,
}

impl ReadingModel {
    pub(super) fn check(&mut self, history: &History, observation: &Observation, wrong: &mut Vec<String>) {
        let Some(gpu) = &observation.report.gpu else { return };
        let taken = instant(observation.report.sampled_at);
        if self.last.is_none_or(|last| taken.saturating_duration_since(last) > SAME) {
            let began = std::mem::replace(&mut self.before, self.last.replace(taken));
            if let Some(began) = began {
                truth(history, earlier(began, SLACK), taken + SLACK, gpu, wrong);
            }
        }
        consistent(observation, gpu, wrong);
    }
}

fn truth(history: &History, began: Instant, ended: Instant, gpu: &GpuReport, wrong: &mut Vec<String>) {
    let had = |so: &dyn Fn(&Gpu) -> bool| history.ever_card(began, ended, so);
    let mut expect = |name: &str, value: String, ok: bool| {
        if !ok {
            wrong.push(format!("{name} {value} was not so in this look"));
        }
    };
    let used = gpu.memory_used;
    expect("memory.used", format!("{used:?}"), had(&|card| Some(card.memory.used) == used));
    let temperature = gpu.temperature;
    expect(
        "temperature",
        format!("{temperature:?}"),
        had(&|card| match temperature {
            Some(celsius) => card.temperature == celsius,
            None => card.errors.contains_key(TEMPERATURE),
        }),
    );
    let bits = gpu.clocks_event_reasons.clone();
    expect(
        "clocks_event_reasons",
        format!("{bits:?}"),
        had(&|card| bits.as_deref() == Some(&format!("0x{:016X}", card.throttle_reasons))),
    );
    let errors = gpu.ecc_uncorrected_volatile;
    expect(
        "ecc.uncorrected",
        format!("{errors:?}"),
        had(&|card| match errors {
            Some(count) => card.ecc.uncorrected.volatile == count,
            None => card.errors.contains_key("nvmlDeviceGetTotalEccErrors"),
        }),
    );
    let (pending, failure) = (gpu.remapped_pending.as_deref(), gpu.remapped_failure.as_deref());
    let rows = |answer: Option<&str>, field: u32, is: fn(&Gpu) -> bool| {
        had(&|card| match answer {
            Some(answer) => (answer == "Yes") == is(card),
            None => card.field_errors.contains_key(&field),
        })
    };
    expect("remapped.pending", format!("{pending:?}"), rows(pending, 144, |card| card.remapped_rows.pending));
    expect("remapped.failure", format!("{failure:?}"), rows(failure, 145, |card| card.remapped_rows.failure));
    let advice = gpu.recovery_action.as_deref();
    expect(
        "recovery_action",
        format!("{advice:?}"),
        had(&|card| match advice {
            Some(text) => text == ADVICE.get(card.recovery_action as usize).copied().unwrap_or("Unknown"),
            None => card.field_errors.contains_key(&230),
        }),
    );
}

/// Checks that follow from the figures beside them.
fn consistent(observation: &Observation, gpu: &GpuReport, wrong: &mut Vec<String>) {
    let advice = match gpu.recovery_action.as_deref() {
        None => CheckStatus::Unknown,
        Some("None") => CheckStatus::Pass,
        Some("Reset" | "Reboot" | "Drain and Reset" | "Bus Reset" | "System Reboot") => CheckStatus::Fail,
        Some(_) => CheckStatus::Warn,
    };
    let is = |answer: &Option<String>| answer.as_deref() == Some("Yes");
    let unsaid = gpu.remapped_pending.is_none()
        && gpu.remapped_failure.is_none()
        && gpu.remapped_uncorrectable.is_none();
    let rows = match (is(&gpu.remapped_failure), is(&gpu.remapped_pending)) {
        _ if unsaid => CheckStatus::Unknown,
        (true, _) => CheckStatus::Fail,
        (false, true) => CheckStatus::Warn,
        (false, false) => CheckStatus::Pass,
    };
    for (name, expected) in [("recovery_action", advice), ("row_remap", rows)] {
        let check = check(&observation.report, name);
        if check.status != expected {
            wrong.push(format!("{name} is {:?}, its figures make it {expected:?}", check.status));
        }
    }
}

/// A time for people as one for measuring.
fn instant(unix: f64) -> Instant {
    let (now, wall) = (Instant::now(), SystemTime::now());
    let ago = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() - unix;
    earlier(now, Duration::from_secs_f64(ago.max(0.0)))
}
