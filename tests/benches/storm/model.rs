//! The rules, written a second time from the documents alone, for what follows from one answer of `/readyz` and
//! the machine's true history. Every answer is checked:
//!
//! - **shape**: the verdict is the worst of the checks; exactly the checks that do not pass have a message; their names
//!   and order never change.
//! - **`readings`**: each figure of the card is one that the machine really had while that look was taken. A look began
//!   after the last look but one was published (a reading is published a second time when the driver is let go of), and
//!   ended when it says that it did. A figure is absent only if its call failed meanwhile.
//!   `recovery_action` and `row_remap` follow from the figures of the same answer.
//! - **`verdicts`**: a card that was lost, that said so in its fields, whose memory could not be read, that advised a
//!   recovery, or whose rows could not be replaced, for all of the last 1.5 s, is not ready, unless calls were slow or
//!   hanging meanwhile (a look each 500 ms, a second attempt 100 ms after a failure, and slack); and whatever calls do,
//!   not after 7 s (5 s until a reading is old, a look, and slack). After a loss nothing passes before three good looks
//!   100 ms apart. A driver that could not be started is not trusted before it could be. A reading is called old only if
//!   calls were slow for most of that time.
//! - **`latches`**: a fatal XID that came while all was well is reported within 2 s. XIDs and memory errors that are reported
//!   stay until an acknowledgement, a driver load, or (XIDs) advice that came and went, (errors) a count that fell; a count
//!   above one seen before fails. Neither is reported without a cause since the last acknowledgement; a hanging driver may
//!   report it seconds later.
//!
//! A verdict is at most some milliseconds younger than the sample under it, for the judge is woken by it.

mod latches;
mod readings;
mod verdicts;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use wire::health::{Check, CheckStatus, ReadyReport, ReadyStatus};

use self::{latches::Latches, readings::ReadingModel, verdicts::Verdicts};
use super::history::{History, Observation};

/// For whatever else the machine does.
const SLACK: Duration = Duration::from_millis(300);

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Model {
    names: Vec<String>,
    looks: ReadingModel,
    verdicts: Verdicts,
    latches: Latches,
}

impl Model {
    /// What of this answer is against the rules.
    pub(crate) fn check(&mut self, history: &History, observation: &Observation) -> Vec<String> {
        let mut wrong = self.shape(&observation.report);
        self.looks.check(history, observation, &mut wrong);
        self.verdicts.check(history, observation, &mut wrong);
        self.latches.check(history, observation, &mut wrong);
        wrong
    }

    /// How many answers had to refuse, by condition of the card.
    pub(crate) fn demands(&self) -> &BTreeMap<&'static str, usize> {
        &self.verdicts.demands
    }

    fn shape(&mut self, report: &ReadyReport) -> Vec<String> {
        let mut wrong = Vec::new();
        let any = |status| report.checks.iter().any(|check| check.status == status);
        let worst = match (any(CheckStatus::Fail), any(CheckStatus::Warn)) {
            (true, _) => ReadyStatus::NotReady,
            (false, true) => ReadyStatus::Degraded,
            (false, false) => ReadyStatus::Ready,
        };
        if report.status != worst {
            wrong.push(format!("{:?}, but the worst check makes it {worst:?}", report.status));
        }
        for check in &report.checks {
            if (check.status == CheckStatus::Pass) != check.message.is_empty() {
                wrong.push(format!("{check:?}: a message if and only if it does not pass"));
            }
        }
        let names: Vec<_> = report.checks.iter().map(|check| check.name.clone()).collect();
        if self.names.is_empty() {
            self.names = names;
        } else if self.names != names {
            wrong.push("other checks than before".to_owned());
        }
        wrong
    }
}

fn check<'a>(report: &'a ReadyReport, name: &str) -> &'a Check {
    report.checks.iter().find(|check| check.name == name).expect("a check of the contract")
}

fn earlier(time: Instant, by: Duration) -> Instant {
    time.checked_sub(by).unwrap_or(time)
}
