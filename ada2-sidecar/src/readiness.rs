//! Readiness: evaluated twice a second and at every change, and published. No request waits for a driver or an engine to
//! learn it.

mod alarm;
pub mod latch;
pub mod rules;
mod trigger;
mod warm_up;
mod xid;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use service::{lifecycle::Lifecycle, reload::Reloadable};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wire::health::{CheckStatus, ReadyReport};

use self::{
    latch::{Latch, store::LatchStore},
    rules::{EvaluationInputs, EvaluationState, Rules, evaluate},
};
use crate::{
    engine::monitor::EngineState, gpu::GpuSample, graph_validation::GraphErrors, host::HostSample, jobs::Jobs,
};

pub(crate) use trigger::EvaluationTrigger;
pub use warm_up::WarmUp;
pub(crate) use xid::description as xid_description;

/// How often without a change: ages grow even when nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// A driver or a disk that takes longer for its first reading may be hanging: the service starts without it.
const FIRST_READINGS_TIMEOUT: Duration = Duration::from_secs(5);

/// The verdict in force, ready to be sent.
#[derive(Debug)]
pub struct ReadinessSnapshot {
    /// The report.
    pub report: ReadyReport,
    /// The same as JSON.
    pub json: Bytes,
    /// The sample of the card that it is about.
    pub gpu_sample: Option<Arc<GpuSample>>,
    /// Whether card, engine and host had each been read.
    is_complete: bool,
}

impl ReadinessSnapshot {
    fn new(report: ReadyReport, gpu: Option<Arc<GpuSample>>, looked: bool) -> Arc<Self> {
        let json = serde_json::to_vec(&report).expect("a report has no map with odd keys").into();
        Arc::new(Self { report, json, gpu_sample: gpu, is_complete: looked })
    }
}

/// Everything that is evaluated.
#[derive(Debug)]
pub(crate) struct ReadinessSources {
    pub(crate) gpu: watch::Receiver<Option<Arc<GpuSample>>>,
    pub(crate) host: watch::Receiver<Option<Arc<HostSample>>>,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) graphs: watch::Receiver<GraphErrors>,
    pub(crate) warm_up: watch::Receiver<WarmUp>,
    pub(crate) jobs: Jobs,
}

/// Starts the evaluation. Latched errors are kept in `files`, if there is a state directory.
pub(crate) fn start(
    rules: Reloadable<Rules>,
    mut sources: ReadinessSources,
    files: Option<LatchStore>,
    lifecycle: &Lifecycle,
) -> (watch::Receiver<Arc<ReadinessSnapshot>>, EvaluationTrigger) {
    let draining = lifecycle.draining().clone();
    let evaluator = Evaluator { rules, started: Instant::now(), draining: draining.clone() };
    let latch = load_latch(files.as_ref());
    let (latch_tx, latch_rx) = watch::channel(latch.clone());
    let (ack_tx, mut ack_rx) = mpsc::channel(1);
    let (trigger, mut requests) = EvaluationTrigger::channel();
    let (mut state, first) = evaluator.evaluate(None, EvaluationState::new(latch), &sources);
    let (sender, receiver) = watch::channel(ReadinessSnapshot::new(first, None, false));
    if let Some(files) = files {
        lifecycle.spawn_worker("latch keeper", persist_latch(files, latch_rx, ack_tx.clone()));
    }
    lifecycle.spawn_worker("readiness", async move {
        let _keep_open = ack_tx;
        let mut tick = tokio::time::interval(TICK);
        // A closed source (the warm-up, if it is off) would report a change for ever.
        let (mut gpu_open, mut host_open, mut engine_open, mut warm_up_open) = (true, true, true, true);
        let mut draining_seen = false;
        loop {
            let mut reply = None;
            tokio::select! {
                _ = tick.tick() => {}
                Some(tx) = requests.recv() => reply = Some(tx),
                changed = sources.gpu.changed(), if gpu_open => gpu_open = changed.is_ok(),
                changed = sources.host.changed(), if host_open => host_open = changed.is_ok(),
                changed = sources.engine.changed(), if engine_open => engine_open = changed.is_ok(),
                changed = sources.warm_up.changed(), if warm_up_open => warm_up_open = changed.is_ok(),
                () = sources.jobs.changed() => {}
                Some(()) = ack_rx.recv() => {
                    info!(latched = state.latch.describe().join(", "), "acknowledged by an operator");
                    state.acknowledge();
                }
                () = draining.cancelled(), if !draining_seen => draining_seen = true,
            }
            // Before the evaluation, which uses no less than this.
            let is_complete = (sources.gpu.borrow().is_some() || !gpu_open)
                && (sources.host.borrow().is_some() || !host_open)
                && (sources.engine.borrow().has_been_polled() || !engine_open);
            let before = sender.borrow().clone();
            let (next, report) = evaluator.evaluate(Some(&before.report), state, &sources);
            log_changes(&before.report, &report);
            latch_tx.send_if_modified(|current| replace_if_changed(current, &next.latch));
            state = next;
            let gpu = sources.gpu.borrow_and_update().clone();
            sender.send_replace(ReadinessSnapshot::new(report, gpu, is_complete));
            if let Some(reply) = reply {
                let _ = reply.send(());
            }
        }
    });
    (receiver, trigger)
}

fn replace_if_changed(current: &mut Latch, next: &Latch) -> bool {
    let is_changed = current != next;
    current.clone_from(next);
    is_changed
}

/// Returns once card, engine and host have each been read and evaluated; if one of them hangs, after 5 s.
pub(crate) async fn wait_for_first_readings(mut published: watch::Receiver<Arc<ReadinessSnapshot>>) {
    let complete = published.wait_for(|published| published.is_complete);
    let in_time = tokio::time::timeout(FIRST_READINGS_TIMEOUT, complete).await.is_ok();
    if !in_time {
        let failing = published.borrow().report.failing_message();
        warn!(failing, "not every first reading arrived within {FIRST_READINGS_TIMEOUT:?}; serving anyway");
    }
}

/// What an earlier process of this service latched in this boot.
fn load_latch(store: Option<&LatchStore>) -> Latch {
    let boot = latch::store::boot_id();
    match store.map(LatchStore::load) {
        Some(Ok(Some(latch))) => latch.for_boot(&boot),
        Some(Ok(None)) | None => Latch::new(&boot),
        Some(Err(error)) => {
            error!(%error, "cannot read the errors latched by earlier runs; starting without them");
            Latch::new(&boot)
        }
    }
}

/// Writes the latch when it changes, and checks whether an operator acknowledged it. A task of its own, because a disk
/// can hang.
async fn persist_latch(store: LatchStore, mut latch: watch::Receiver<Latch>, ack_tx: mpsc::Sender<()>) {
    let mut tick = tokio::time::interval(TICK);
    let mut written = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = latch.changed() => if changed.is_err() { return std::future::pending().await },
        }
        let ack_requested = blocking(&store, |files| Ok(files.is_ack_requested())).await.unwrap_or(false);
        if ack_requested && ack_tx.send(()).await.is_ok() {
            // The evaluation clears the latch before it publishes the next verdict.
            let _ = tokio::time::timeout(TICK, latch.changed()).await;
        }
        let now = latch.borrow_and_update().clone();
        if written.as_ref() != Some(&now) {
            let value = now.clone();
            match blocking(&store, move |files| files.save(&value)).await {
                Ok(()) => written = Some(now),
                Err(error) => warn!(%error, "cannot save the latched errors; retrying"),
            }
        }
        if ack_requested && let Err(error) = blocking(&store, |files| files.clear_ack_request()).await {
            warn!(%error, "the file `ack` cannot be removed; remove it by hand");
        }
    }
}

async fn blocking<T: Send + 'static>(
    store: &LatchStore,
    work: impl FnOnce(LatchStore) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let files = store.clone();
    tokio::task::spawn_blocking(move || work(files))
        .await
        .unwrap_or_else(|died| Err(std::io::Error::other(died)))
}

struct Evaluator {
    rules: Reloadable<Rules>,
    started: Instant,
    draining: CancellationToken,
}

impl Evaluator {
    fn evaluate(
        &self,
        prev: Option<&ReadyReport>,
        state: EvaluationState,
        sources: &ReadinessSources,
    ) -> (EvaluationState, ReadyReport) {
        let now = Instant::now();
        let gpu = sources.gpu.borrow().clone();
        let host = sources.host.borrow().clone();
        let inputs = EvaluationInputs {
            gpu: gpu.as_deref(),
            host: host.as_deref(),
            started_at: self.started,
            engine: &sources.engine.borrow(),
            graphs: &sources.graphs.borrow(),
            job_history: &sources.jobs.history().snapshot(),
            warm_up: &sources.warm_up.borrow(),
            slot_limit: sources.jobs.slots().limit(),
            inflight: sources.jobs.slots().inflight(),
            oldest_cancel_age: sources.jobs.oldest_cancel_age(now),
            draining: self.draining.is_cancelled(),
        };
        let verdict = evaluate(prev, state, &inputs, &self.rules.load(), now, SystemTime::now());
        (verdict.state, verdict.report)
    }
}

/// One line for each check whose result changed.
fn log_changes(before: &ReadyReport, after: &ReadyReport) {
    for (was, is) in before.checks.iter().zip(&after.checks) {
        if was.status != is.status {
            match is.status {
                CheckStatus::Fail | CheckStatus::Warn => {
                    warn!(check = is.name, status = ?is.status, "{}", is.message);
                }
                CheckStatus::Pass | CheckStatus::Unknown => {
                    info!(check = is.name, status = ?is.status, "check changed");
                }
            }
        }
    }
    if before.status != after.status {
        info!(before = ?before.status, now = ?after.status, "readiness changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Engine, EngineError},
        gpu::GpuState,
        metrics::Metrics,
        reload::readiness_rules,
    };

    /// The senders of all samples.
    struct Samples {
        gpu: watch::Sender<Option<Arc<GpuSample>>>,
        host: watch::Sender<Option<Arc<HostSample>>>,
        engine: watch::Sender<EngineState>,
    }

    fn start_evaluation() -> (Samples, watch::Receiver<Arc<ReadinessSnapshot>>, EvaluationTrigger, Lifecycle)
    {
        let flags = crate::cli::command().get_matches_from(["ada2-sidecar", "--engine", "builtin"]);
        let config = crate::config::load(&flags, &|_| None).unwrap().config;
        let lifecycle = Lifecycle::new();
        let jobs = Jobs::new(Engine::builtin(), 1, lifecycle.clone(), Metrics::default());
        let ((gpu, gpus), (host, hosts)) = (watch::channel(None), watch::channel(None));
        let (engine, engines) = watch::channel(EngineState::default());
        let (graphs, warm_up) = (watch::channel(GraphErrors::default()).1, watch::channel(WarmUp::Off).1);
        let sources = ReadinessSources { gpu: gpus, host: hosts, engine: engines, graphs, warm_up, jobs };
        let (published, trigger) =
            start(Reloadable::new(readiness_rules(&config)), sources, None, &lifecycle);
        (Samples { gpu, host, engine }, published, trigger, lifecycle)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_verdict_waits_for_every_reading_and_at_most_5_s() {
        let begun = tokio::time::Instant::now();
        let (samples, published, _trigger, _lifecycle) = start_evaluation();
        let (wait, publish) = (wait_for_first_readings(published.clone()), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let refused = Err(EngineError::ConnectionRefused("connection refused".into()));
            samples
                .engine
                .send_modify(|state| *state = std::mem::take(state).apply(refused, false, Instant::now()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            let sample = GpuSample {
                taken: Instant::now(),
                timestamp: SystemTime::now(),
                state: GpuState::DriverNotLoaded,
                consecutive_good: 0,
                failed_total: 1,
                driver_loads: 0,
                xids: Arc::default(),
            };
            samples.gpu.send_replace(Some(Arc::new(sample)));
            tokio::time::sleep(Duration::from_secs(1)).await;
            // A closed source is not waited for.
            drop(samples.host);
        });
        tokio::join!(wait, publish);
        assert_eq!(begun.elapsed().as_secs(), 3);
        let failing = published.borrow().report.failing_message();
        assert!(failing.contains("module is not loaded") && failing.contains("nothing listens"), "{failing}");

        let begun = tokio::time::Instant::now();
        let (_samples, published, _trigger, _lifecycle) = start_evaluation();
        wait_for_first_readings(published).await;
        assert_eq!(begun.elapsed(), FIRST_READINGS_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn closed_sources_do_not_cause_endless_evaluation() {
        let (samples, mut published, _, _lifecycle) = start_evaluation();
        drop(samples);
        let mut verdicts = 0;
        let count = async {
            while verdicts < 100 {
                published.changed().await.unwrap();
                verdicts += 1;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(10), count).await;
        assert!(verdicts <= 30, "{verdicts} in 10 s, at two a second");
    }
    #[tokio::test(start_paused = true)]
    async fn a_requested_verdict_is_made_at_once() {
        let (_samples, published, trigger, _lifecycle) = start_evaluation();
        tokio::time::sleep(TICK / 2).await;
        let (before, begun) = (published.borrow().clone(), tokio::time::Instant::now());
        trigger.evaluate_now().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(!Arc::ptr_eq(&before, &published.borrow()), "it is in force");
    }
}
