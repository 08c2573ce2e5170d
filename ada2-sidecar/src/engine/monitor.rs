//! Watching the engine: a survey twice a second, and what is concluded when one fails. The conclusion is pure.

use std::time::{Duration, Instant};

use service::lifecycle::Lifecycle;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Engine, EngineError, ImageEngine, Survey};

/// How often.
const INTERVAL: Duration = Duration::from_millis(500);
/// An idle engine answers in milliseconds; this long is a failure. With the interval it makes two seconds at most.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A busy one may hold its interpreter for seconds while it loads a checkpoint.
const PATIENCE_WHEN_BUSY: Duration = Duration::from_secs(10);

/// What is known of the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineState {
    /// The last survey that succeeded.
    pub survey: Option<Survey>,
    /// Why the engine cannot be used now; none when it can, or has not been asked yet.
    pub fault: Option<EngineError>,
    /// When the last good survey was taken.
    pub seen: Option<Instant>,
    /// How often the engine was seen to come up.
    pub starts: u64,
    /// It was surely not there since it answered last; silence proves nothing, it may have been busy.
    away: bool,
}

impl EngineState {
    /// Whether the engine answered and can be used.
    pub fn reachable(&self) -> bool {
        self.survey.is_some() && self.fault.is_none()
    }

    /// Whether it has been asked, whatever it answered.
    pub fn is_asked(&self) -> bool {
        self.survey.is_some() || self.fault.is_some()
    }

    /// What follows from one more survey. A refusal or a strange answer counts at once; silence only once it has
    /// lasted: longer where the engine was known to be at work.
    #[must_use]
    pub fn next(self, result: Result<Survey, EngineError>, now: Instant) -> Self {
        match result {
            Ok(survey) => {
                let starts = self.starts + u64::from(self.away || self.survey.is_none());
                Self { survey: Some(survey), fault: None, seen: Some(now), starts, away: false }
            }
            Err(silence @ (EngineError::NoAnswer(_) | EngineError::Unresolved(_))) => {
                let busy = self.survey.as_ref().is_some_and(|survey| survey.busy);
                let patience = if busy { PATIENCE_WHEN_BUSY } else { PATIENCE };
                let patient = self.fault.is_none() && self.seen.is_some_and(|seen| now - seen < patience);
                let fault = if patient { None } else { Some(silence) };
                Self { fault, ..self }
            }
            Err(fault) => Self { fault: Some(fault), away: true, ..self },
        }
    }
}

/// Starts the watching.
pub fn start(engine: Engine, lifecycle: &Lifecycle) -> watch::Receiver<EngineState> {
    let (sender, receiver) = watch::channel(EngineState::default());
    lifecycle.worker("engine monitor", async move {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let survey = tokio::time::timeout(PATIENCE, engine.survey()).await;
            let survey = survey
                .unwrap_or_else(|_| Err(EngineError::NoAnswer(format!("no answer within {PATIENCE:?}"))));
            let before = sender.borrow().clone();
            let after = before.clone().next(survey, Instant::now());
            report_change(&before, &after);
            sender.send_replace(after);
        }
    });
    receiver
}

fn report_change(before: &EngineState, after: &EngineState) {
    match (&after.fault, &after.survey) {
        (Some(fault), _) if before.fault.as_ref() != Some(fault) => {
            warn!(%fault, "the engine cannot be used");
        }
        (None, Some(survey)) if !before.reachable() => {
            info!(version = survey.version, models = survey.models.len(), "the engine answers");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(busy: bool) -> Survey {
        Survey {
            version: "6".into(),
            caution: None,
            paused: false,
            busy,
            queue_depth: 0,
            others_waiting: 0,
            models: std::sync::Arc::new([]),
            unread: 0,
        }
    }

    fn silence() -> Result<Survey, EngineError> {
        Err(EngineError::NoAnswer("silence".into()))
    }

    #[test]
    fn silence_counts_once_it_has_lasted_and_longer_when_the_engine_was_at_work() {
        let start = Instant::now();
        for (busy, limit) in [(false, 1500), (true, 10_000)] {
            let good = EngineState::default().next(Ok(survey(busy)), start);
            let early = good.clone().next(silence(), start + Duration::from_millis(limit - 1));
            assert!(early.reachable(), "busy: {busy}");
            assert!(!early.next(silence(), start + Duration::from_millis(limit)).reachable(), "busy: {busy}");
        }
    }

    #[test]
    fn a_refusal_and_a_stranger_count_at_once_and_one_good_answer_mends() {
        let start = Instant::now();
        for fault in [EngineError::Refused("refused".into()), EngineError::Strange("nginx".into())] {
            let good = EngineState::default().next(Ok(survey(true)), start);
            let gone = good.next(Err(fault), start);
            assert!(!gone.reachable());
            let silent = gone.next(silence(), start);
            assert!(!silent.reachable(), "silence after a refusal does not look better than the refusal");
            let back = silent.next(Ok(survey(false)), start);
            assert!(back.reachable());
            assert_eq!(back.starts, 2, "it was away and came up again");
            assert_eq!(
                back.next(silence(), start).next(Ok(survey(false)), start).starts,
                2,
                "silence is no end"
            );
        }
    }

    #[test]
    fn an_engine_never_seen_gets_no_patience() {
        assert!(!EngineState::default().next(silence(), Instant::now()).reachable());
    }
}
