//! Whether what must be refused is refused, and what must not pass yet does not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fakes::gpu::{Gpu, Scenario};
use wire::health::{CheckStatus, ReadyReport};

use super::{SLACK, check, earlier};
use crate::{
    fault_generator::MEMORY,
    history::{History, Observation, impedes},
};

const SOON: Duration = Duration::from_millis(1500);
const AT_LAST: Duration = Duration::from_secs(7);
/// Two pauses between three looks, but for the clocks' grain.
const PROOF: Duration = Duration::from_millis(195);
const OLD: Duration = Duration::from_secs(6);
const SLOW: Duration = Duration::from_secs(3);

/// A description, and whether it holds.
type Condition = (&'static str, fn(&Gpu) -> bool);

/// Conditions of the card that refuse work as soon as they are seen.
const REFUSING: [Condition; 5] = [
    ("lost", |card| card.lost),
    ("lost in its fields", |card| card.lost_inside_fields),
    ("unreadable", |card| card.errors.contains_key(MEMORY)),
    ("advised to recover", |card| {
        matches!(card.recovery_action, 1 | 2 | 4 | 6 | 7) && !card.field_errors.contains_key(&230)
    }),
    ("not able to replace a row", |card| card.remapped_rows.failure && !card.field_errors.contains_key(&145)),
];

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    lost: Option<Instant>,
    closed: Option<Instant>,
    /// How many answers had to refuse, by condition.
    pub(super) demands: BTreeMap<&'static str, usize>,
}

impl Verdicts {
    pub(super) fn check(&mut self, history: &History, observation: &Observation, wrong: &mut Vec<String>) {
        let report = &observation.report;
        self.refused(history, observation, wrong);
        self.proven(history, observation, wrong);
        if is_closed(report) {
            self.closed = Some(observation.sent);
        } else if report.admits()
            && let Some(closed) = self.closed.take()
        {
            let opened = |machine: &Scenario| machine.init_error == 0 && !machine.gpus[0].lost;
            if !history.ever(earlier(closed, SLACK), observation.received, opened) {
                wrong
                    .push("admits, and the driver cannot have been started since it could not be".to_owned());
            }
        }
        if check(report, "snapshot_fresh").status == CheckStatus::Fail
            && history.impeded(earlier(observation.sent, OLD), observation.received) < SLOW
        {
            wrong.push("the reading is called old, and no call was slow".to_owned());
        }
    }

    fn refused(&mut self, history: &History, observation: &Observation, wrong: &mut Vec<String>) {
        for (message, refuses) in REFUSING {
            let soon = |machine: &Scenario| refuses(&machine.gpus[0]) && !impedes(machine);
            let at_last = |machine: &Scenario| refuses(&machine.gpus[0]);
            if !history.always(earlier(observation.sent, SOON), observation.received, soon)
                && !history.always(earlier(observation.sent, AT_LAST), observation.received, at_last)
            {
                continue;
            }
            *self.demands.entry(message).or_default() += 1;
            if observation.report.admits() {
                wrong.push(format!("admits, and the card has been {message} for long enough"));
            }
        }
    }

    fn proven(&mut self, history: &History, observation: &Observation, wrong: &mut Vec<String>) {
        let present = check(&observation.report, "gpu_present");
        if present.observed == "lost" {
            self.lost = Some(observation.sent);
        } else if present.status != CheckStatus::Fail
            && let Some(lost) = self.lost.take()
        {
            // A report of the driver ends the pause between two looks.
            let reported =
                history.xids.iter().any(|(at, _)| *at + SLACK >= lost && *at <= observation.received);
            if !reported && observation.received.duration_since(lost) < PROOF {
                wrong.push("passes too soon after a loss".to_owned());
            }
        }
    }
}

/// NVML is not loaded, in the checks' message.
fn is_closed(report: &ReadyReport) -> bool {
    let nvml = check(report, "nvml").observed.as_str();
    matches!(nvml, "driver not loaded" | "no permission" | "not found")
        || check(report, "driver").observed == "version mismatch"
}
