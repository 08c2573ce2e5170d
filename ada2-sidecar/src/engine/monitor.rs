//! Watching the engine: a survey twice a second, and what is concluded when one fails. The conclusion is pure.

use std::time::{Duration, Instant};

use service::lifecycle::Lifecycle;
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Engine, EngineError, EngineStatus};

/// How often.
const INTERVAL: Duration = Duration::from_millis(500);
/// An idle engine answers in milliseconds; this long is a failure. With the interval it makes two seconds at most.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1500);
/// A busy one may hold its interpreter for seconds while it loads a checkpoint.
const BUSY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known of the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineState {
    /// The last survey that succeeded.
    pub last_status: Option<EngineStatus>,
    /// Why the engine cannot be used now; none when it can, or has not been asked yet.
    pub error: Option<EngineError>,
    /// When the last good survey was taken.
    pub last_success: Option<Instant>,
    /// How often the engine was seen to come up.
    pub starts: u64,
    /// It was surely not there since it answered last; silence proves nothing, it may have been busy.
    was_down: bool,
}

impl EngineState {
    /// Whether the engine answered and can be used.
    pub fn is_reachable(&self) -> bool {
        self.last_status.is_some() && self.error.is_none()
    }

    /// Whether it has been asked, whatever it answered.
    pub fn has_been_polled(&self) -> bool {
        self.last_status.is_some() || self.error.is_some()
    }

    /// What follows from one more survey. A refusal or a strange answer counts at once; silence only once it has
    /// lasted: longer where the engine was known to be at work.
    #[must_use]
    pub fn apply(self, result: Result<EngineStatus, EngineError>, now: Instant) -> Self {
        match result {
            Ok(status) => {
                let starts = self.starts + u64::from(self.was_down || self.last_status.is_none());
                Self {
                    last_status: Some(status),
                    error: None,
                    last_success: Some(now),
                    starts,
                    was_down: false,
                }
            }
            Err(silence @ (EngineError::Unresponsive(_) | EngineError::HostUnresolved(_))) => {
                let busy = self.last_status.as_ref().is_some_and(|status| status.busy);
                let timeout = if busy { BUSY_RESPONSE_TIMEOUT } else { RESPONSE_TIMEOUT };
                let patient =
                    self.error.is_none() && self.last_success.is_some_and(|seen| now - seen < timeout);
                let fault = if patient { None } else { Some(silence) };
                Self { error: fault, ..self }
            }
            Err(fault) => Self { error: Some(fault), was_down: true, ..self },
        }
    }
}

/// Starts the watching.
pub fn start(engine: Engine, lifecycle: &Lifecycle) -> watch::Receiver<EngineState> {
    let (sender, receiver) = watch::channel(EngineState::default());
    lifecycle.spawn_worker("engine monitor", async move {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let survey = tokio::time::timeout(RESPONSE_TIMEOUT, engine.status()).await;
            let survey = survey.unwrap_or_else(|_| {
                Err(EngineError::Unresponsive(format!("no answer within {RESPONSE_TIMEOUT:?}")))
            });
            let before = sender.borrow().clone();
            let after = before.clone().apply(survey, Instant::now());
            log_change(&before, &after);
            sender.send_replace(after);
        }
    });
    receiver
}

fn log_change(before: &EngineState, after: &EngineState) {
    match (&after.error, &after.last_status) {
        (Some(fault), _) if before.error.as_ref() != Some(fault) => {
            warn!(%fault, "the engine cannot be used");
        }
        (None, Some(status)) if !before.is_reachable() => {
            info!(version = status.version, models = status.models.len(), "the engine answers");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(busy: bool) -> EngineStatus {
        EngineStatus {
            version: "6".into(),
            warning: None,
            paused: false,
            busy,
            queue_depth: 0,
            others_waiting: 0,
            models: std::sync::Arc::new([]),
            unclassified_models: 0,
        }
    }

    fn silence() -> Result<EngineStatus, EngineError> {
        Err(EngineError::Unresponsive("silence".into()))
    }

    #[test]
    fn silence_counts_once_it_has_lasted_and_longer_when_the_engine_was_at_work() {
        let start = Instant::now();
        for (busy, limit) in [(false, 1500), (true, 10_000)] {
            let good = EngineState::default().apply(Ok(survey(busy)), start);
            let early = good.clone().apply(silence(), start + Duration::from_millis(limit - 1));
            assert!(early.is_reachable(), "busy: {busy}");
            assert!(
                !early.apply(silence(), start + Duration::from_millis(limit)).is_reachable(),
                "busy: {busy}"
            );
        }
    }

    #[test]
    fn a_refusal_and_a_stranger_count_at_once_and_one_good_answer_mends() {
        let start = Instant::now();
        for fault in [
            EngineError::ConnectionRefused("refused".into()),
            EngineError::UnexpectedResponse("nginx".into()),
        ] {
            let good = EngineState::default().apply(Ok(survey(true)), start);
            let gone = good.apply(Err(fault), start);
            assert!(!gone.is_reachable());
            let silent = gone.apply(silence(), start);
            assert!(!silent.is_reachable(), "silence after a refusal does not look better than the refusal");
            let back = silent.apply(Ok(survey(false)), start);
            assert!(back.is_reachable());
            assert_eq!(back.starts, 2, "it was away and came up again");
            assert_eq!(
                back.apply(silence(), start).apply(Ok(survey(false)), start).starts,
                2,
                "silence is no end"
            );
        }
    }

    #[test]
    fn an_engine_never_seen_gets_no_patience() {
        assert!(!EngineState::default().apply(silence(), Instant::now()).is_reachable());
    }
}
