//! Publishes samples, with counters and the driver's error reports, so that a reader who misses a sample misses none of
//! these.

use std::{
    mem::discriminant,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::gpu::{GpuSample, GpuState, Xid, XidLog};

/// Good samples in a row after which a card has recovered.
pub(crate) const RECOVERY_SAMPLES: u32 = 3;
/// One failed call can be chance; this many in a row cannot.
const FAILURE_THRESHOLD: u32 = 2;
/// Reports kept individually; all are counted.
const MAX_RECENT_XIDS: usize = 32;

pub(super) struct Publisher {
    sender: watch::Sender<Option<Arc<GpuSample>>>,
    interval: Duration,
    consecutive_good: u32,
    consecutive_failed: u32,
    failed_total: u64,
    /// The card was healthy at some time in this session.
    was_healthy: bool,
    /// The card has failed and not recovered yet.
    recovering: bool,
    driver_unloaded: bool,
    driver_loads: u32,
    xids: Arc<XidLog>,
}

impl Publisher {
    pub(super) fn new(sender: watch::Sender<Option<Arc<GpuSample>>>, interval: Duration) -> Self {
        Self {
            sender,
            interval,
            consecutive_good: 0,
            consecutive_failed: 0,
            failed_total: 0,
            was_healthy: false,
            recovering: false,
            driver_unloaded: false,
            driver_loads: 0,
            xids: Arc::default(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn start_session(&mut self) {
        self.was_healthy = false;
    }

    pub(super) fn was_healthy(&self) -> bool {
        self.was_healthy
    }

    /// Whether to sample again soon: the card is recovering, or the last call failed.
    pub(super) fn is_urgent(&self) -> bool {
        self.recovering || self.consecutive_failed > 0
    }

    /// Publishes the result of a sample. After one failed call of a healthy card the last sample stands until the next one,
    /// with whatever it gates; if that one hangs, the sample grows old.
    pub(super) fn publish(&mut self, state: GpuState) {
        self.update_counters(&state);
        if self.is_transient(&state) {
            return;
        }
        self.recovering |= !matches!(state, GpuState::Present(_));
        self.log_change(&state);
        self.send(state, Instant::now(), SystemTime::now());
    }

    fn update_counters(&mut self, state: &GpuState) {
        let present = matches!(state, GpuState::Present(_));
        self.consecutive_good =
            if present && !state.must_release_driver() { self.consecutive_good.saturating_add(1) } else { 0 };
        self.consecutive_failed =
            if matches!(state, GpuState::Failed(_)) { self.consecutive_failed.saturating_add(1) } else { 0 };
        self.failed_total += u64::from(!present);
        self.recovering &= self.consecutive_good < RECOVERY_SAMPLES;
        self.was_healthy |= self.consecutive_good > 0;
        if present && std::mem::take(&mut self.driver_unloaded) {
            self.driver_loads += 1;
        }
        self.driver_unloaded |= matches!(state, GpuState::DriverNotLoaded);
    }

    fn is_transient(&self, state: &GpuState) -> bool {
        matches!(state, GpuState::Failed(_))
            && self.consecutive_failed < FAILURE_THRESHOLD
            && self.was_healthy
            && !self.recovering
    }

    /// Records an error report and publishes it at once, before the next sample.
    pub(super) fn record_xid(&mut self, code: u32) {
        let (at, timestamp) = (Instant::now(), SystemTime::now());
        let log = Arc::make_mut(&mut self.xids);
        let sequence = log.recent.last().map_or(1, |last| last.sequence + 1);
        log.recent.push(Xid { sequence, code, at, timestamp });
        if log.recent.len() > MAX_RECENT_XIDS {
            log.recent.remove(0);
        }
        let total = log.totals.entry(code).or_insert((0, timestamp));
        *total = (total.0 + 1, timestamp);
        warn!(xid = code, "the NVIDIA driver reports an error");
        let last = self.sender.borrow().clone();
        if let Some(last) = last {
            self.send(last.state.clone(), last.taken, last.timestamp);
        }
    }

    /// Repeats the state every interval for that long, or until `changed`: only a hung driver may make samples old.
    pub(super) fn republish(&mut self, state: &GpuState, pause: Duration, changed: impl Fn() -> bool) {
        let until = Instant::now() + pause;
        let first_seen = SystemTime::now();
        while !self.is_closed() {
            self.send(state.clone(), Instant::now(), first_seen);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || changed() {
                return;
            }
            thread::sleep(self.interval.min(left));
        }
    }

    fn log_change(&self, state: &GpuState) {
        let last = self.sender.borrow();
        let is_change = last.as_ref().is_none_or(|sample| discriminant(&sample.state) != discriminant(state));
        if is_change && matches!(state, GpuState::Present(_)) {
            info!(gpu = %state, "GPU state changed");
        } else if is_change {
            warn!(gpu = %state, "GPU state changed");
        }
    }

    fn send(&self, state: GpuState, taken: Instant, timestamp: SystemTime) {
        let sample = GpuSample {
            taken,
            timestamp,
            state,
            consecutive_good: self.consecutive_good,
            failed_total: self.failed_total,
            driver_loads: self.driver_loads,
            xids: self.xids.clone(),
        };
        self.sender.send_replace(Some(Arc::new(sample)));
    }
}

#[cfg(test)]
mod tests {
    use wire::health::GpuReport;

    use super::*;
    use crate::gpu::{GpuReading, HealthReading};

    fn publisher() -> (Publisher, watch::Receiver<Option<Arc<GpuSample>>>) {
        let (sender, samples) = watch::channel(None);
        (Publisher::new(sender, Duration::from_millis(500)), samples)
    }

    fn present() -> GpuState {
        GpuState::Present(Box::new(GpuReading {
            report: GpuReport::default(),
            health: HealthReading::default(),
            memory: None,
            processes: None,
            processes_taken_at: Instant::now(),
            engine_unit_active: false,
            other_gpus: Vec::new(),
        }))
    }

    /// `+` a good sample, `x` a failed one, `-` a lost card, `|` a new session; returns the published state after each.
    fn states_after(events: &str) -> String {
        let (mut publisher, samples) = publisher();
        let symbol = |sample: &Option<Arc<GpuSample>>| match sample.as_ref().map(|sample| &sample.state) {
            Some(GpuState::Present(_)) => '+',
            Some(GpuState::Failed(_)) => 'x',
            Some(_) => '-',
            None => '.',
        };
        events
            .chars()
            .map(|event| {
                match event {
                    '+' => publisher.publish(present()),
                    'x' => publisher.publish(GpuState::Failed("odd".to_owned())),
                    '-' => publisher.publish(GpuState::Lost),
                    _ => publisher.start_session(),
                }
                symbol(&samples.borrow())
            })
            .collect()
    }

    #[test]
    fn one_failed_call_of_a_healthy_card_changes_nothing_and_any_other_is_published() {
        for (events, expected) in [
            ("x", "x"),
            ("+x", "++"),
            ("+xx", "++x"),
            ("+x+x+", "+++++"),
            ("+xx+x", "++x+x"),
            ("+xx+++x", "++x++++"),
            ("-x", "-x"),
            ("-+x", "-+x"),
            ("-+++x", "-++++"),
            ("+|x", "++x"),
        ] {
            assert_eq!(states_after(events), expected, "{events}");
        }
    }

    #[test]
    fn every_sample_without_a_reading_is_counted() {
        let (mut publisher, samples) = publisher();
        publisher.publish(present());
        publisher.publish(GpuState::Failed("odd".to_owned()));
        publisher.publish(GpuState::Lost);
        publisher.republish(&GpuState::Lost, Duration::ZERO, || true);
        publisher.publish(present());
        assert_eq!(samples.borrow().as_ref().unwrap().failed_total, 2);
    }

    #[test]
    fn after_a_failed_call_sampling_is_urgent_until_one_succeeds() {
        let (mut publisher, _samples) = publisher();
        publisher.publish(present());
        assert!(!publisher.is_urgent());
        publisher.publish(GpuState::Failed("odd".to_owned()));
        assert!(publisher.is_urgent());
        publisher.publish(present());
        assert!(!publisher.is_urgent());
    }
}
