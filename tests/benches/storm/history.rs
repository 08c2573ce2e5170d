//! What the machine was really like, and when. A change has force at some time between the moments before and after it
//! was written, so questions are about what *may* have been.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use fakes::gpu::{FakeCard, Gpu, Scenario};
use wire::health::ReadyReport;

/// An answer of `/readyz`.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(crate) sent: Instant,
    pub(crate) received: Instant,
    pub(crate) report: ReadyReport,
}

/// From its first possible moment until the next one's last.
#[derive(Debug)]
struct Moment {
    before: Instant,
    after: Instant,
    machine: Scenario,
}

/// An acknowledgement: in force at some time between the two.
#[derive(Debug)]
struct Ack {
    requested: Instant,
    done: Option<Instant>,
}

/// Everything so far.
#[derive(Debug)]
pub(crate) struct History {
    moments: Vec<Moment>,
    acks: Vec<Ack>,
    /// What the driver reported, and when.
    pub(crate) xids: Vec<(Instant, u64)>,
}

impl History {
    /// A healthy machine, for as long as anybody may ask.
    pub(crate) fn new(card: &FakeCard) -> Self {
        let machine = Scenario::default();
        card.set(|now| now.clone_from(&machine));
        let now = Instant::now();
        let long_ago = now.checked_sub(Duration::from_secs(30)).unwrap_or(now);
        Self {
            moments: vec![Moment { before: long_ago, after: long_ago, machine }],
            acks: Vec::new(),
            xids: Vec::new(),
        }
    }

    /// Changes the machine.
    pub(crate) fn set(&mut self, card: &FakeCard, machine: &Scenario, xid: Option<u64>) {
        let before = Instant::now();
        card.set(|now| now.clone_from(machine));
        let mut machine = machine.clone();
        machine.gpus[0].xids.clear();
        self.moments.push(Moment { before, after: Instant::now(), machine });
        self.xids.extend(xid.map(|code| (before, code)));
    }

    /// An operator acknowledges.
    pub(crate) fn acknowledge(&mut self, state: &Path) {
        fs::write(state.join("ack"), "").expect("the state directory can be written");
        self.acks.push(Ack { requested: Instant::now(), done: None });
    }

    /// Whether it was heard.
    pub(crate) fn look_for_ack(&mut self, state: &Path) {
        if !state.join("ack").exists() {
            for ack in self.acks.iter_mut().rev().take_while(|ack| ack.done.is_none()) {
                ack.done = Some(Instant::now());
            }
        }
    }

    fn during(&self, from: Instant, to: Instant) -> impl Iterator<Item = (&Moment, Instant)> {
        let last = self.moments.partition_point(|moment| moment.before <= to);
        let ends = self.moments[1..].iter().map(|next| next.after).chain([to]);
        let all: Vec<_> = self.moments[..last].iter().zip(ends).collect();
        all.into_iter().rev().take_while(move |(_, end)| *end >= from)
    }

    /// Whether the machine may have been so at some time.
    pub(crate) fn ever(&self, from: Instant, to: Instant, so: impl Fn(&Scenario) -> bool) -> bool {
        self.during(from, to).any(|(moment, _)| so(&moment.machine))
    }

    /// The same of the card.
    pub(crate) fn ever_card(&self, from: Instant, to: Instant, so: impl Fn(&Gpu) -> bool) -> bool {
        self.ever(from, to, |machine| so(&machine.gpus[0]))
    }

    /// Whether the machine was surely so all the time.
    pub(crate) fn always(&self, from: Instant, to: Instant, so: impl Fn(&Scenario) -> bool) -> bool {
        !self.ever(from, to, |machine| !so(machine))
    }

    /// How long calls may have been slow or hanging.
    pub(crate) fn impeded(&self, from: Instant, to: Instant) -> Duration {
        let slow = self.during(from, to).filter(|(moment, _)| impedes(&moment.machine));
        slow.map(|(moment, end)| end.min(to).saturating_duration_since(moment.before.max(from))).sum()
    }

    /// Whether an acknowledgement may have been heard.
    pub(crate) fn acknowledged(&self, from: Instant, to: Instant) -> bool {
        self.acks.iter().any(|ack| ack.requested <= to && ack.done.is_none_or(|done| done >= from))
    }

    /// When the last acknowledgement was sent that had surely arrived by then.
    pub(crate) fn last_acknowledged(&self, by: Instant) -> Option<Instant> {
        let acknowledged = self.acks.iter().rev().find(|ack| ack.done.is_some_and(|done| done <= by));
        acknowledged.map(|ack| ack.requested)
    }
}

/// Whether a call into the driver takes long.
pub(crate) fn impedes(machine: &Scenario) -> bool {
    !machine.hang.is_empty() || !machine.delay_ms.is_empty()
}
