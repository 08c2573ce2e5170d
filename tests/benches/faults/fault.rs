//! A row of the table: how it breaks, what must be reported, and how it is fixed.

use std::time::Duration;

use fakes::{
    gpu::{Gpu, Scenario},
    invokeai::InvokeScript,
};
use wire::health::ReadyStatus;

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// As the table calls it.
    pub(crate) name: &'static str,
    /// What becomes of the service.
    pub(crate) status: ReadyStatus,
    /// The check that reports it.
    pub(crate) check: &'static str,
    /// Whether it is there when the sidecar starts.
    pub(crate) at_start: bool,
    /// Whether the engine is the fake InvokeAI.
    pub(crate) invokeai: bool,
    /// Further flags of the sidecar.
    pub(crate) flags: &'static [&'static str],
    /// How it breaks.
    pub(crate) inject: Action,
    /// How it is mended.
    pub(crate) repair: Action,
    /// The rule's delay until it counts.
    pub(crate) rise: Duration,
    /// And until it no longer does.
    pub(crate) fall: Duration,
    /// How long it is left broken after it was seen.
    pub(crate) lasts: Duration,
    /// How soon it must be seen, counted from `rise` on.
    pub(crate) goal: Goal,
}

/// How soon a fault is to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Every look at the card shows it: 1 s.
    Sampled,
    /// The driver reports it unasked: 200 ms.
    Reported,
    /// It is looked at every 10 s only.
    SlowReading,
    /// None: it has other ways to be seen.
    Other,
}

/// Something that happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    /// The machine's driver changes.
    Machine(fn(&mut Scenario)),
    /// The card changes.
    Card(fn(&mut Gpu)),
    /// Another process takes memory beside the engine.
    Foreign,
    /// Machine and card are as new; what the driver once reported stays reported.
    Heal,
    /// It passes by itself, once an image succeeded.
    Wait,
    /// The driver reports these.
    Xids(&'static [u64]),
    /// An operator acknowledges what is latched.
    Acknowledge,
    /// The driver's library is not there.
    LibraryAway,
    /// A library of another version takes its place.
    LibraryUpgraded,
    /// The library is the first one again.
    LibraryBack,
    /// The engine behaves otherwise.
    Engine(fn(&mut InvokeScript)),
    /// The engine ends.
    EngineStops,
    /// The engine comes back, or is restarted.
    EngineStarts,
    /// The engine's queue is paused, or resumed.
    Pause(bool),
    /// A client disconnects, and the engine continues with its image.
    CancelIgnored,
    /// The engine lets go of it.
    CancelObeyed,
    /// The sidecar gets SIGTERM.
    Stop,
    /// It is started again.
    Start,
}

impl Fault {
    /// A fault of the card that refuses work.
    pub(crate) fn gates(name: &'static str, check: &'static str, breaks: Action) -> Self {
        Self {
            name,
            status: ReadyStatus::NotReady,
            check,
            at_start: false,
            invokeai: false,
            flags: &[],
            inject: breaks,
            repair: Action::Heal,
            rise: Duration::ZERO,
            fall: Duration::ZERO,
            lasts: Duration::from_secs(1),
            goal: Goal::Sampled,
        }
    }

    /// A fault of the card that only warns.
    pub(crate) fn warns(name: &'static str, check: &'static str, breaks: Action) -> Self {
        Self { status: ReadyStatus::Degraded, ..Self::gates(name, check, breaks) }
    }

    /// A fatal report of the driver.
    pub(crate) fn fatal(name: &'static str, code: &'static [u64]) -> Self {
        Self {
            goal: Goal::Reported,
            ..Self::gates(name, "xid", Action::Xids(code)).repaired_by(Action::Acknowledge)
        }
    }

    /// It is there when the sidecar starts.
    pub(crate) fn at_start(self) -> Self {
        Self { at_start: true, goal: Goal::Other, ..self }
    }

    /// The engine is the fake InvokeAI.
    pub(crate) fn of_invokeai(self) -> Self {
        Self { invokeai: true, ..self }
    }

    /// How it is mended.
    pub(crate) fn repaired_by(self, mends: Action) -> Self {
        Self { repair: mends, ..self }
    }

    /// The rule's delays in seconds.
    pub(crate) fn delays(self, rise: f64, fall: f64) -> Self {
        Self { rise: Duration::from_secs_f64(rise), fall: Duration::from_secs_f64(fall), ..self }
    }

    /// How soon it is to be seen.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal, ..self }
    }

    /// How long a trial of it waits at the least.
    pub(crate) fn waits(&self) -> Duration {
        self.rise + self.fall + self.lasts
    }

    /// Whether it takes seconds to be seen.
    pub(crate) fn is_slow_reading(&self) -> bool {
        self.goal == Goal::SlowReading
    }
}
