//! The sending end of the samples: counts looks and keeps the driver's reports, so that a reader who misses a sample
//! misses nothing of them.

use std::{
    mem::discriminant,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;
use tracing::{info, warn};

use crate::gpu::{GpuSample, GpuState, Xid, XidLog};

/// Good looks in a row after which a card that was in trouble has proved itself.
pub(crate) const PROOF: u32 = 3;
/// One failed call can be chance; so many in a row are not.
const FAILED_LOOKS: u32 = 2;
/// Reports kept one by one; all of them are counted.
const KEPT_XIDS: usize = 32;

/// The sending end, and what it has sent.
pub(super) struct Publisher {
    sender: watch::Sender<Option<Arc<GpuSample>>>,
    interval: Duration,
    good: u32,
    failed: u32,
    failed_in_all: u64,
    /// The card was well at some time in this session.
    well: bool,
    /// The card was in trouble and has not proved itself since.
    proving: bool,
    driver_away: bool,
    driver_loads: u32,
    xids: Arc<XidLog>,
}

impl Publisher {
    pub(super) fn new(sender: watch::Sender<Option<Arc<GpuSample>>>, interval: Duration) -> Self {
        Self {
            sender,
            interval,
            good: 0,
            failed: 0,
            failed_in_all: 0,
            well: false,
            proving: false,
            driver_away: false,
            driver_loads: 0,
            xids: Arc::default(),
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.sender.is_closed()
    }

    /// A session begins.
    pub(super) fn begin(&mut self) {
        self.well = false;
    }

    /// Whether the card was well in this session.
    pub(super) fn was_well(&self) -> bool {
        self.well
    }

    /// Whether the next look is awaited: the card was in trouble and is not yet trusted again, or its last call failed.
    pub(super) fn is_pressing(&self) -> bool {
        self.proving || self.failed > 0
    }

    /// What a look gave. One failed call of a card that was well can be chance: the last sample stands, so that what it
    /// gates stays gated, until the next look says more; should that one hang, the sample grows old.
    pub(super) fn publish(&mut self, state: GpuState) {
        self.count(&state);
        if self.is_chance(&state) {
            return;
        }
        self.proving |= !matches!(state, GpuState::Present(_));
        self.announce(&state);
        self.send(state, Instant::now(), SystemTime::now());
    }

    fn count(&mut self, state: &GpuState) {
        let present = matches!(state, GpuState::Present(_));
        self.good = if present && !state.wants_release() { self.good.saturating_add(1) } else { 0 };
        self.failed = if matches!(state, GpuState::Failed(_)) { self.failed.saturating_add(1) } else { 0 };
        self.failed_in_all += u64::from(!present);
        self.proving &= self.good < PROOF;
        self.well |= self.good > 0;
        if present && std::mem::take(&mut self.driver_away) {
            self.driver_loads += 1;
        }
        self.driver_away |= matches!(state, GpuState::DriverNotLoaded);
    }

    fn is_chance(&self, state: &GpuState) -> bool {
        matches!(state, GpuState::Failed(_)) && self.failed < FAILED_LOOKS && self.well && !self.proving
    }

    /// The driver reported this. Told at once, before the look that follows.
    pub(super) fn report(&mut self, code: u32) {
        let (at, wall) = (Instant::now(), SystemTime::now());
        let log = Arc::make_mut(&mut self.xids);
        let sequence = log.recent.last().map_or(1, |last| last.sequence + 1);
        log.recent.push(Xid { sequence, code, at, wall });
        if log.recent.len() > KEPT_XIDS {
            log.recent.remove(0);
        }
        let total = log.totals.entry(code).or_insert((0, wall));
        *total = (total.0 + 1, wall);
        warn!(xid = code, "the NVIDIA driver reports an error");
        let last = self.sender.borrow().clone();
        if let Some(last) = last {
            self.send(last.state.clone(), last.taken, last.wall);
        }
    }

    /// The same every interval for that long, or until `changed`: an old sample means a hung driver, and nothing else.
    pub(super) fn repeat(&mut self, state: &GpuState, pause: Duration, changed: impl Fn() -> bool) {
        let until = Instant::now() + pause;
        let seen = SystemTime::now();
        while !self.is_alone() {
            self.send(state.clone(), Instant::now(), seen);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || changed() {
                return;
            }
            thread::sleep(self.interval.min(left));
        }
    }

    fn announce(&self, state: &GpuState) {
        let last = self.sender.borrow();
        let news = last.as_ref().is_none_or(|sample| discriminant(&sample.state) != discriminant(state));
        if news && matches!(state, GpuState::Present(_)) {
            info!(gpu = %state, "GPU");
        } else if news {
            warn!(gpu = %state, "GPU");
        }
    }

    fn send(&self, state: GpuState, taken: Instant, wall: SystemTime) {
        let sample = GpuSample {
            taken,
            wall,
            state,
            good: self.good,
            failed: self.failed_in_all,
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
    use crate::gpu::{GpuReading, Vitals};

    fn publisher() -> (Publisher, watch::Receiver<Option<Arc<GpuSample>>>) {
        let (sender, samples) = watch::channel(None);
        (Publisher::new(sender, Duration::from_millis(500)), samples)
    }

    fn present() -> GpuState {
        GpuState::Present(Box::new(GpuReading {
            report: GpuReport::default(),
            vitals: Vitals::default(),
            memory: None,
            processes: None,
            processes_taken: Instant::now(),
            engine_unit_active: false,
            elsewhere: Vec::new(),
        }))
    }

    /// `+` a good look, `x` a failed one, `-` a lost card, `|` a new session; gives what is known after each.
    fn seen(looks: &str) -> String {
        let (mut publisher, samples) = publisher();
        let word = |sample: &Option<Arc<GpuSample>>| match sample.as_ref().map(|sample| &sample.state) {
            Some(GpuState::Present(_)) => '+',
            Some(GpuState::Failed(_)) => 'x',
            Some(_) => '-',
            None => '.',
        };
        looks
            .chars()
            .map(|look| {
                match look {
                    '+' => publisher.publish(present()),
                    'x' => publisher.publish(GpuState::Failed("odd".to_owned())),
                    '-' => publisher.publish(GpuState::Lost),
                    _ => publisher.begin(),
                }
                word(&samples.borrow())
            })
            .collect()
    }

    #[test]
    fn one_failed_call_of_a_card_that_was_well_changes_nothing_and_any_other_is_told() {
        for (looks, expected) in [
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
            assert_eq!(seen(looks), expected, "{looks}");
        }
    }

    #[test]
    fn every_look_without_a_reading_is_counted() {
        let (mut publisher, samples) = publisher();
        publisher.publish(present());
        publisher.publish(GpuState::Failed("odd".to_owned()));
        publisher.publish(GpuState::Lost);
        publisher.repeat(&GpuState::Lost, Duration::ZERO, || true);
        publisher.publish(present());
        assert_eq!(samples.borrow().as_ref().unwrap().failed, 2);
    }

    #[test]
    fn after_a_failed_call_the_next_look_presses_until_one_is_good() {
        let (mut publisher, _samples) = publisher();
        publisher.publish(present());
        assert!(!publisher.is_pressing());
        publisher.publish(GpuState::Failed("odd".to_owned()));
        assert!(publisher.is_pressing());
        publisher.publish(present());
        assert!(!publisher.is_pressing());
    }
}
