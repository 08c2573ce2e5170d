//! Whether what must stay stays, and does not come from nowhere.

use std::time::{Duration, Instant};

use wire::health::CheckStatus;

use super::{SLACK, check, earlier};
use crate::history::{History, Observation};

/// A fatal XID is reported within this time, if nothing else is wrong.
const REPORT_DELAY: Duration = Duration::from_secs(2);
/// The card answered so shortly before.
const WELL: Duration = Duration::from_millis(200);
/// Between an XID and its report by a driver that hangs.
const LATE: Duration = Duration::from_secs(15);

/// What is latched, as far as it was seen.
#[derive(Debug, Default)]
pub(super) struct Latches {
    xid: Option<Held>,
    ecc: Option<Held>,
    /// The lowest count of memory errors since anything could have cleared the latch, and when it was seen.
    lowest: Option<(u64, Instant)>,
    well: Option<Instant>,
    reports: usize,
    awaited: Option<Instant>,
}

/// Seen to fail: first and last.
#[derive(Debug, Clone, Copy)]
struct Held {
    first: Instant,
    last: Instant,
}

impl Latches {
    pub(super) fn check(&mut self, history: &History, observation: &Observation, wrong: &mut Vec<String>) {
        self.check_reported(history, observation, wrong);
        let fails = |name| check(&observation.report, name).status == CheckStatus::Fail;
        let advised = |held: Held| {
            history
                .ever_card(earlier(held.first, LATE), observation.received, |card| card.recovery_action != 0)
        };
        if !follow(&mut self.xid, fails("xid"), history, observation, advised) {
            wrong.push("a fatal XID is forgotten without a reason".to_owned());
        }
        let fell = |held: Held| {
            history.ever_card(earlier(held.last, LATE), observation.received, |card| {
                card.ecc.uncorrected.volatile == 0
            })
        };
        if !follow(&mut self.ecc, fails("ecc"), history, observation, fell) {
            wrong.push("memory errors are forgotten without a reason".to_owned());
        }
        let since = history.last_acknowledged(observation.sent).map(|requested| earlier(requested, LATE));
        let caused =
            history.xids.iter().any(|(at, code)| is_fatal(*code) && since.is_none_or(|since| *at >= since));
        if fails("xid") && !caused {
            wrong.push("a fatal XID is reported, and there was none".to_owned());
        }
        self.counted(history, observation, fails("ecc"), wrong);
    }

    /// A fatal report in the middle of peace.
    fn check_reported(&mut self, history: &History, observation: &Observation, wrong: &mut Vec<String>) {
        if let Some((at, code)) = history.xids.get(self.reports) {
            self.reports += 1;
            let well = self.well.is_some_and(|well| *at <= well + WELL);
            if is_fatal(*code) && well {
                self.awaited = Some(*at);
            }
        }
        let report = &observation.report;
        let answers = check(report, "gpu_present").status == CheckStatus::Pass;
        self.well = (answers && check(report, "nvml").observed == "loaded").then_some(observation.received);
        if let Some(at) = self.awaited.filter(|at| observation.sent >= *at + REPORT_DELAY) {
            self.awaited = None;
            let (from, to) = (earlier(at, REPORT_DELAY), at + REPORT_DELAY);
            let alone = history.xids.iter().filter(|(other, _)| *other >= from && *other <= to).count() == 1;
            let peace = history.always(from, to, |machine| {
                let mut plain = machine.clone();
                plain.gpus[0].xids.clear();
                plain == fakes::gpu::Scenario::default()
            });
            let reported = check(report, "xid").status == CheckStatus::Fail;
            if alone && peace && !history.acknowledged(at, observation.received) && !reported {
                wrong.push("a fatal XID is not reported".to_owned());
            }
        }
    }

    /// A count above an earlier one is a new error.
    fn counted(
        &mut self,
        history: &History,
        observation: &Observation,
        fails: bool,
        wrong: &mut Vec<String>,
    ) {
        let Some(count) = observation.report.gpu.as_ref().and_then(|gpu| gpu.ecc_uncorrected_volatile) else {
            return;
        };
        let cleared = self.lowest.is_none_or(|(lowest, at)| {
            let from = earlier(at, SLACK);
            count <= lowest
                || history.acknowledged(from, observation.received)
                || reloaded(history, from, observation.received)
                || history
                    .ever_card(from, observation.received, |card| card.ecc.uncorrected.volatile < lowest)
        });
        if cleared {
            self.lowest = Some((count, observation.sent));
        } else if !fails {
            wrong.push(format!("{count} memory errors are more than before, and do not fail"));
        }
    }
}

/// Whether a latch that was seen closed still is, or had a reason to open.
fn follow(
    latch: &mut Option<Held>,
    fails: bool,
    history: &History,
    observation: &Observation,
    reason: impl Fn(Held) -> bool,
) -> bool {
    if fails {
        let first = latch.map_or(observation.sent, |held| held.first);
        *latch = Some(Held { first, last: observation.sent });
        return true;
    }
    let Some(held) = latch.take() else { return true };
    history.acknowledged(earlier(held.last, SLACK), observation.received)
        || reloaded(history, held.first, observation.received)
        || reason(held)
}

/// The driver may have been seen to be away and then to be back.
fn reloaded(history: &History, from: Instant, to: Instant) -> bool {
    history.ever(earlier(from, LATE), to, |machine| machine.init_error == 9)
}

fn is_fatal(code: u64) -> bool {
    matches!(code, 48 | 79 | 94 | 95 | 119)
}
