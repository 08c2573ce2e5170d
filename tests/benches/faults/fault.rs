//! A row of the table: how it breaks, what must be reported, and how it is fixed.

use std::time::Duration;

use fakes::{
    gpu::{Gpu, Scenario},
    invokeai::InvokeScript,
};
use wire::health::ReadyStatus;

#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// As the table calls it.
    pub(crate) name: &'static str,
    /// The expected effect on the service.
    pub(crate) status: ReadyStatus,
    /// The check that reports it.
    pub(crate) check: &'static str,
    /// Whether the fault exists when the sidecar starts.
    pub(crate) at_start: bool,
    /// Whether the engine is the fake InvokeAI.
    pub(crate) invokeai: bool,
    /// Further flags of the sidecar.
    pub(crate) flags: &'static [&'static str],
    /// How it breaks.
    pub(crate) inject: Action,
    /// How it is repaired.
    pub(crate) repair: Action,
    /// The rule's delay before it fails.
    pub(crate) rise: Duration,
    /// The rule's delay before it clears.
    pub(crate) fall: Duration,
    /// How long the fault lasts after its detection.
    pub(crate) lasts: Duration,
    /// How soon it must be detected, counted from the end of `rise`.
    pub(crate) goal: Goal,
}

/// How soon a fault must be detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Every sample of the card shows it: 1 s.
    Sampled,
    /// The driver reports it by an event: 200 ms.
    Reported,
    /// It is sampled every 10 s only.
    SlowReading,
    /// None: it is detected in other ways.
    Other,
}

/// What a trial does to the system.
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
    /// Nothing: it clears once an image succeeds.
    Wait,
    /// The driver reports these.
    Xids(&'static [u64]),
    /// An operator acknowledges what is latched.
    Acknowledge,
    /// The driver's library is missing.
    LibraryAway,
    /// A library of another version takes its place.
    LibraryUpgraded,
    /// The library is the first one again.
    LibraryBack,
    /// The engine's behaviour changes.
    Engine(fn(&mut InvokeScript)),
    /// The engine ends.
    EngineStops,
    /// The engine comes back, or is restarted.
    EngineStarts,
    /// The engine's queue is paused, or resumed.
    Pause(bool),
    /// A client disconnects, and the engine continues with its image.
    CancelIgnored,
    /// The engine stops that job.
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

    /// The fault exists when the sidecar starts.
    pub(crate) fn at_start(self) -> Self {
        Self { at_start: true, goal: Goal::Other, ..self }
    }

    /// The engine is the fake InvokeAI.
    pub(crate) fn of_invokeai(self) -> Self {
        Self { invokeai: true, ..self }
    }

    /// How it is repaired.
    pub(crate) fn repaired_by(self, repair: Action) -> Self {
        Self { repair, ..self }
    }

    /// The rule's delays in seconds.
    pub(crate) fn delays(self, rise: f64, fall: f64) -> Self {
        Self { rise: Duration::from_secs_f64(rise), fall: Duration::from_secs_f64(fall), ..self }
    }

    /// How soon it must be detected.
    pub(crate) fn goal(self, goal: Goal) -> Self {
        Self { goal, ..self }
    }

    /// The shortest duration of a trial.
    pub(crate) fn waits(&self) -> Duration {
        self.rise + self.fall + self.lasts
    }

    /// Whether its detection takes seconds.
    pub(crate) fn is_slow_reading(&self) -> bool {
        self.goal == Goal::SlowReading
    }
}
