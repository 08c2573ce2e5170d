//! One trial: a healthy system, the fault, the refusal, the repair, the first image.

use std::time::{Duration, Instant};

use fakes::gpu::FakeCard;
use tokio::sync::Semaphore;
use wire::health::{Check, CheckStatus, ReadyReport, ReadyStatus};

use super::{
    actions::{apply, apply_to_card},
    fault::{Action, Fault},
    world::{RequestOutcome, World, almost},
};

/// Between two requests.
const TICK: Duration = Duration::from_millis(20);
/// The longest pause between two attempts to reach a card that is away is 30 s.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The sidecar's between two looks, and the gateway's between two probes of what is not ready: trials meet both at any
/// time.
const INTERVAL_MS: usize = 500;
const RETRY_MS: usize = 2000;

/// Two services' start takes as much of a processor as many idle ones.
static STARTING: Semaphore = Semaphore::const_new(3);

/// The measurements of a trial.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The failing check's message.
    pub(crate) reason: String,
    /// Seconds from the threshold to the first refusal (or warning); before it, if negative.
    pub(crate) refused: f64,
    /// Seconds from the end of the rule's clearing delay to the first image (or the end of the warning).
    pub(crate) recovered: f64,
    /// The sidecar's part of it: until `/readyz` admits work again.
    pub(crate) admitted: f64,
}

/// The `run`-th trial of this fault.
pub(crate) async fn run(fault: &Fault, run: usize) -> Trial {
    let card = FakeCard::new();
    let starting = STARTING.acquire().await.expect("never closed");
    let (mut world, broken) = if fault.at_start {
        let broken = apply_to_card(fault.inject, &card);
        let world = World::start(fault, card).await;
        // Before, the gateway refuses with its own message.
        fakes::eventually("the sidecar answers", async || world.readyz().await).await;
        (world, broken)
    } else {
        let mut world = World::start(fault, card).await;
        world.until_healthy().await;
        tokio::time::sleep(spread_over(run, INTERVAL_MS)).await;
        let broken = apply(fault.inject, &mut world).await;
        (world, broken)
    };
    drop(starting);
    let threshold = broken + fault.rise;
    almost(threshold).await;
    let (refused, message) = until_refused(fault, &world).await;
    let reason = reason(fault, &world).await.unwrap_or(message);
    tokio::time::sleep(fault.lasts + spread_over(run, RETRY_MS)).await;
    let repaired_at = match fault.repair {
        Action::Wait => {
            apply(Action::Wait, &mut world).await;
            broken
        }
        act => apply(act, &mut world).await,
    };
    let cleared = repaired_at + fault.fall;
    almost(cleared).await;
    let (admitted, recovered) = until_served(fault, &world).await;
    Trial {
        reason,
        refused: seconds(threshold, refused),
        recovered: seconds(cleared, recovered),
        admitted: seconds(cleared, admitted),
    }
}

/// Every run at another time of this period.
fn spread_over(run: usize, period_ms: usize) -> Duration {
    // The golden section of the period: evenly spread, however many runs there are.
    let step = period_ms * 618 / 1000 + 1;
    Duration::from_millis((run * step % period_ms) as u64)
}

/// The first request that is refused, and why; or the first report with the warning.
async fn until_refused(fault: &Fault, world: &World) -> (Instant, String) {
    let deadline = Instant::now() + TIMEOUT;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        assert!(Instant::now() < deadline, "{}: never seen: {:?}", fault.name, world.readyz().await);
        if fault.status == ReadyStatus::Degraded {
            let warns = world.readyz().await.is_some_and(|report| reported_check(fault, &report).is_some());
            if warns {
                let now = Instant::now();
                assert!(
                    matches!(world.request_image().await, RequestOutcome::Image),
                    "{}: a warning refuses",
                    fault.name
                );
                return (now, String::new());
            }
        } else {
            match world.request_image().await {
                RequestOutcome::Refusal(message) => return (Instant::now(), message),
                RequestOutcome::Image => assert!(!fault.at_start, "{}: served at start", fault.name),
                RequestOutcome::NoAnswer => {}
            }
        }
    }
}

/// The message of the check that must fail; none where the sidecar itself has stopped.
async fn reason(fault: &Fault, world: &World) -> Option<String> {
    world.readyz().await?;
    let check = fakes::eventually(fault.name, async || {
        let report = world.readyz().await?;
        reported_check(fault, &report).cloned()
    });
    let check = check.await;
    // Paths of this trial are no difference.
    let dir = world.card.library().with_file_name("").display().to_string();
    Some(format!("{}: {}", check.name, check.message.replace(&dir, "")))
}

/// The check, if it and the verdict are as the row expects.
fn reported_check<'a>(fault: &Fault, report: &'a ReadyReport) -> Option<&'a Check> {
    let expected = if fault.status == ReadyStatus::Degraded { CheckStatus::Warn } else { CheckStatus::Fail };
    let check = report.checks.iter().find(|check| check.name == fault.check)?;
    (report.status == fault.status && check.status == expected).then_some(check)
}

/// When the sidecar admits work again, and when the gateway does.
async fn until_served(fault: &Fault, world: &World) -> (Instant, Instant) {
    let deadline = Instant::now() + TIMEOUT;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut admitted = None;
    loop {
        tick.tick().await;
        assert!(Instant::now() < deadline, "{}: never repaired: {:?}", fault.name, world.readyz().await);
        let well = world.readyz().await.is_some_and(|report| match fault.status {
            ReadyStatus::Degraded => report.status == ReadyStatus::Ready,
            _ => report.admits(),
        });
        if well && admitted.is_none() {
            admitted = Some(Instant::now());
        }
        let Some(admitted) = admitted else { continue };
        if fault.status == ReadyStatus::Degraded {
            return (admitted, admitted);
        }
        if matches!(world.request_image().await, RequestOutcome::Image) {
            return (admitted, Instant::now());
        }
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    let after = to.saturating_duration_since(from).as_secs_f64();
    after - from.saturating_duration_since(to).as_secs_f64()
}
