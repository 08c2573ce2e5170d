//! Polls the engine twice a second, and decides what a failed poll means.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use service::{lifecycle::Lifecycle, slots::Slots};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Engine, EngineError, EngineStatus};

/// Between polls.
const INTERVAL: Duration = Duration::from_millis(500);
/// An idle engine responds in milliseconds. With the interval, an outage is noticed within two seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1500);
/// A busy one may block its interpreter for seconds while it loads a checkpoint; so may one that got a job of ours after the
/// last poll, which has not seen it at work.
const BUSY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is known about the engine.
#[derive(Debug, Clone, Default)]
pub struct EngineState {
    /// Of the last successful poll.
    pub last_status: Option<EngineStatus>,
    /// Why the engine cannot be used now; None if it can, or was not polled yet.
    pub error: Option<EngineError>,
    /// When the last successful poll was made.
    pub last_success: Option<Instant>,
    /// How often the engine was seen to start.
    pub starts: u64,
    /// How often it was seen to be down and then to be back. The first contact alone is none.
    pub restarts: u64,
    /// It was certainly down since the last success. Silence does not prove that: it may have been busy.
    was_down: bool,
}

impl EngineState {
    /// Whether the engine responds and can be used.
    pub fn is_reachable(&self) -> bool {
        self.last_status.is_some() && self.error.is_none()
    }

    /// Whether it was polled, with any result.
    pub fn has_been_polled(&self) -> bool {
        self.last_status.is_some() || self.error.is_some()
    }

    /// The state after one more poll. A refused connection or an unexpected response counts at once; silence only after a
    /// timeout, which is longer if the engine was busy or `has_our_job`.
    #[must_use]
    pub fn apply(self, result: Result<EngineStatus, EngineError>, has_our_job: bool, now: Instant) -> Self {
        match result {
            Ok(status) => {
                let starts = self.starts + u64::from(self.was_down || self.last_status.is_none());
                Self {
                    last_status: Some(status),
                    error: None,
                    last_success: Some(now),
                    starts,
                    restarts: self.restarts + u64::from(self.was_down),
                    was_down: false,
                }
            }
            Err(silence @ (EngineError::Unresponsive(_) | EngineError::HostUnresolved(_))) => {
                let busy = has_our_job || self.last_status.as_ref().is_some_and(|status| status.busy);
                let timeout = if busy { BUSY_RESPONSE_TIMEOUT } else { RESPONSE_TIMEOUT };
                let within_timeout =
                    self.error.is_none() && self.last_success.is_some_and(|seen| now - seen < timeout);
                let fault = if within_timeout { None } else { Some(silence) };
                Self { error: fault, ..self }
            }
            Err(fault) => Self { error: Some(fault), was_down: true, ..self },
        }
    }
}

/// Starts polling. `slots` are those of our jobs.
pub fn start(engine: Engine, slots: Arc<Slots>, lifecycle: &Lifecycle) -> watch::Receiver<EngineState> {
    let (sender, receiver) = watch::channel(EngineState::default());
    lifecycle.spawn_worker("engine monitor", async move {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let status_result = tokio::time::timeout(RESPONSE_TIMEOUT, engine.status()).await;
            let status_result = status_result.unwrap_or_else(|_| {
                Err(EngineError::Unresponsive(format!("no answer within {RESPONSE_TIMEOUT:?}")))
            });
            let before = sender.borrow().clone();
            let after = before.clone().apply(status_result, slots.inflight() > 0, Instant::now());
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
            info!(
                version = status.version,
                models = status.models.iter().filter(|model| model.is_installed() && model.is_listed).count(),
                "the engine responds"
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(busy: bool) -> EngineStatus {
        EngineStatus {
            version: "6".into(),
            warning: None,
            paused: false,
            busy,
            queue_depth: 0,
            others_waiting: 0,
            models: std::sync::Arc::new([]),
            loras: std::sync::Arc::default(),
            unclassified_models: 0,
        }
    }

    fn silence() -> Result<EngineStatus, EngineError> {
        Err(EngineError::Unresponsive("silence".into()))
    }

    #[test]
    fn silence_counts_after_a_timeout_that_is_longer_for_a_busy_engine() {
        let start = Instant::now();
        for (busy, has_our_job, limit) in
            [(false, false, 1500), (true, false, 10_000), (false, true, 10_000), (true, true, 10_000)]
        {
            let good = EngineState::default().apply(Ok(status(busy)), false, start);
            let at = |milliseconds| start + Duration::from_millis(milliseconds);
            let early = good.apply(silence(), has_our_job, at(limit - 1));
            assert!(early.is_reachable(), "busy: {busy}, our job: {has_our_job}");
            let late = early.apply(silence(), has_our_job, at(limit));
            assert!(!late.is_reachable(), "busy: {busy}, our job: {has_our_job}");
        }
    }

    #[test]
    fn refusals_and_unexpected_responses_count_at_once_until_one_success() {
        let start = Instant::now();
        for fault in [
            EngineError::ConnectionRefused("refused".into()),
            EngineError::UnexpectedResponse("nginx".into()),
        ] {
            let good = EngineState::default().apply(Ok(status(true)), false, start);
            let failed = good.apply(Err(fault), false, start);
            assert!(!failed.is_reachable());
            let silent = failed.apply(silence(), false, start);
            assert!(!silent.is_reachable(), "silence after a refusal does not look better than the refusal");
            let back = silent.apply(Ok(status(false)), false, start);
            assert!(back.is_reachable());
            assert_eq!((back.starts, back.restarts), (2, 1), "it was away and came up again");
            assert_eq!(
                back.apply(silence(), false, start).apply(Ok(status(false)), false, start).starts,
                2,
                "silence is no end"
            );
        }
    }

    #[test]
    fn an_engine_that_never_answered_gets_no_timeout() {
        assert!(!EngineState::default().apply(silence(), false, Instant::now()).is_reachable());
    }
}
