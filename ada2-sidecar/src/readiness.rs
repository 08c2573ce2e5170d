//! Readiness: judged twice a second and at every change, published for everybody to read. No request ever waits for
//! a driver or an engine to learn it.

mod alarm;
pub mod latch;
mod rejudge;
pub mod rules;
mod warm_up;
mod xid;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use service::{lifecycle::Lifecycle, reload::Switch};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wire::health::{CheckStatus, ReadyReport};

use self::{
    latch::{Latch, file::LatchFile},
    rules::{Inputs, Memory, Rules, judge},
};
use crate::{
    engine::monitor::EngineState, gpu::GpuSample, host::HostSample, jobs::Jobs, vetting::GraphFaults,
};

pub(crate) use rejudge::Rejudge;
pub use warm_up::WarmUp;
pub(crate) use xid::meaning as xid_meaning;

/// Without a change, how often: ages grow even when nothing happens.
const TICK: Duration = Duration::from_millis(500);
/// A driver or a disk that takes longer for its first look may be hanging: the service begins without it.
const FIRST_LOOKS: Duration = Duration::from_secs(5);

/// The verdict in force, ready to be sent.
#[derive(Debug)]
pub struct Published {
    /// The report.
    pub report: ReadyReport,
    /// The same as JSON.
    pub json: Bytes,
    /// The look at the card that it is about.
    pub gpu: Option<Arc<GpuSample>>,
    /// Card, engine and host were each looked at before it.
    looked: bool,
}

impl Published {
    fn of(report: ReadyReport, gpu: Option<Arc<GpuSample>>, looked: bool) -> Arc<Self> {
        let json = serde_json::to_vec(&report).expect("a report has no map with odd keys").into();
        Arc::new(Self { report, json, gpu, looked })
    }
}

/// Everything that is looked at.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) gpu: watch::Receiver<Option<Arc<GpuSample>>>,
    pub(crate) host: watch::Receiver<Option<Arc<HostSample>>>,
    pub(crate) engine: watch::Receiver<EngineState>,
    pub(crate) graphs: watch::Receiver<GraphFaults>,
    pub(crate) warm_up: watch::Receiver<WarmUp>,
    pub(crate) jobs: Jobs,
}

/// Starts judging. What is latched is kept in `files`, where there is a state directory.
pub(crate) fn start(
    rules: Switch<Rules>,
    mut sources: Sources,
    files: Option<LatchFile>,
    lifecycle: &Lifecycle,
) -> (watch::Receiver<Arc<Published>>, Rejudge) {
    let draining = lifecycle.draining().clone();
    let judge = Judge { rules, started: Instant::now(), draining: draining.clone() };
    let latch = kept(files.as_ref());
    let (keep, kept) = watch::channel(latch.clone());
    let (ask, mut acks) = mpsc::channel(1);
    let (rejudge, mut requests) = Rejudge::channel();
    let (mut memory, first) = judge.look(None, Memory::starting(latch), &sources);
    let (sender, receiver) = watch::channel(Published::of(first, None, false));
    if let Some(files) = files {
        lifecycle.worker("latch keeper", keep_latch(files, kept, ask.clone()));
    }
    lifecycle.worker("readiness", async move {
        let _asks = ask;
        let mut tick = tokio::time::interval(TICK);
        // Whoever is gone (the warm-up, where nobody wants one) would be told as changed for ever.
        let (mut gpu_lives, mut host_lives, mut engine_lives, mut warm_up_lives) = (true, true, true, true);
        let mut drains = false;
        loop {
            let mut asker = None;
            tokio::select! {
                _ = tick.tick() => {}
                Some(tell) = requests.recv() => asker = Some(tell),
                changed = sources.gpu.changed(), if gpu_lives => gpu_lives = changed.is_ok(),
                changed = sources.host.changed(), if host_lives => host_lives = changed.is_ok(),
                changed = sources.engine.changed(), if engine_lives => engine_lives = changed.is_ok(),
                changed = sources.warm_up.changed(), if warm_up_lives => warm_up_lives = changed.is_ok(),
                () = sources.jobs.changed() => {}
                Some(()) = acks.recv() => {
                    info!(latched = memory.latch.lines().join(", "), "acknowledged by an operator");
                    memory.acknowledge();
                }
                () = draining.cancelled(), if !drains => drains = true,
            }
            // Before judging: the verdict is made of no less than this.
            let looked = (sources.gpu.borrow().is_some() || !gpu_lives)
                && (sources.host.borrow().is_some() || !host_lives)
                && (sources.engine.borrow().is_asked() || !engine_lives);
            let before = sender.borrow().clone();
            let (next, report) = judge.look(Some(&before.report), memory, &sources);
            report_change(&before.report, &report);
            keep.send_if_modified(|kept| {
                let news = *kept != next.latch;
                kept.clone_from(&next.latch);
                news
            });
            memory = next;
            let gpu = sources.gpu.borrow_and_update().clone();
            sender.send_replace(Published::of(report, gpu, looked));
            if let Some(tell) = asker {
                let _ = tell.send(());
            }
        }
    });
    (receiver, rejudge)
}

/// Returns once card, engine and host were each looked at and judged. Should one of them hang, after 5 s.
pub(crate) async fn first_looks(mut published: watch::Receiver<Arc<Published>>) {
    let looked = published.wait_for(|published| published.looked);
    let in_time = tokio::time::timeout(FIRST_LOOKS, looked).await.is_ok();
    if !in_time {
        let failing = published.borrow().report.failing();
        warn!(failing, "not everything was looked at within {FIRST_LOOKS:?}; serving all the same");
    }
}

/// What an earlier process of ours latched in this boot.
fn kept(files: Option<&LatchFile>) -> Latch {
    let boot = latch::file::boot_id();
    match files.map(LatchFile::read) {
        Some(Ok(Some(latch))) => latch.of_boot(&boot),
        Some(Ok(None)) | None => Latch::new(&boot),
        Some(Err(error)) => {
            error!(%error, "what was latched before is lost");
            Latch::new(&boot)
        }
    }
}

/// Writes what is latched when it changes, and looks whether an operator acknowledges it. Beside the judge, because a
/// disk can hang.
async fn keep_latch(files: LatchFile, mut latch: watch::Receiver<Latch>, ask: mpsc::Sender<()>) {
    let mut tick = tokio::time::interval(TICK);
    let mut written = None;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            changed = latch.changed() => if changed.is_err() { return std::future::pending().await },
        }
        let asked = blocking(&files, |files| Ok(files.ack_is_asked())).await.unwrap_or(false);
        if asked && ask.send(()).await.is_ok() {
            // The judge clears before it publishes the next verdict.
            let _ = tokio::time::timeout(TICK, latch.changed()).await;
        }
        let now = latch.borrow_and_update().clone();
        if written.as_ref() != Some(&now) {
            let value = now.clone();
            match blocking(&files, move |files| files.write(&value)).await {
                Ok(()) => written = Some(now),
                Err(error) => warn!(%error, "what is latched cannot be kept; trying again"),
            }
        }
        if asked && let Err(error) = blocking(&files, |files| files.ack_is_done()).await {
            warn!(%error, "the file `ack` cannot be removed; remove it by hand");
        }
    }
}

async fn blocking<T: Send + 'static>(
    files: &LatchFile,
    work: impl FnOnce(LatchFile) -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let files = files.clone();
    tokio::task::spawn_blocking(move || work(files))
        .await
        .unwrap_or_else(|died| Err(std::io::Error::other(died)))
}

struct Judge {
    rules: Switch<Rules>,
    started: Instant,
    draining: CancellationToken,
}

impl Judge {
    fn look(&self, prev: Option<&ReadyReport>, memory: Memory, sources: &Sources) -> (Memory, ReadyReport) {
        let now = Instant::now();
        let gpu = sources.gpu.borrow().clone();
        let host = sources.host.borrow().clone();
        let inputs = Inputs {
            gpu: gpu.as_deref(),
            host: host.as_deref(),
            started: self.started,
            engine: &sources.engine.borrow(),
            graphs: &sources.graphs.borrow(),
            outcomes: &sources.jobs.outcomes().seen(),
            warm_up: &sources.warm_up.borrow(),
            limit: sources.jobs.slots().limit(),
            inflight: sources.jobs.slots().inflight(),
            oldest_cancel: sources.jobs.oldest_cancel(now),
            draining: self.draining.is_cancelled(),
        };
        let verdict = judge(prev, memory, &inputs, &self.rules.now(), now, SystemTime::now());
        (verdict.memory, verdict.report)
    }
}

/// One line for each check whose result changed.
fn report_change(before: &ReadyReport, after: &ReadyReport) {
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
        engine::{Engine, EngineError, builtin::Builtin},
        gpu::GpuState,
        metrics::Metrics,
    };

    /// The ends at which looks are published.
    struct Ends {
        gpu: watch::Sender<Option<Arc<GpuSample>>>,
        host: watch::Sender<Option<Arc<HostSample>>>,
        engine: watch::Sender<EngineState>,
    }

    fn judged() -> (Ends, watch::Receiver<Arc<Published>>, Rejudge, Lifecycle) {
        let flags = crate::cli::command().get_matches_from(["ada2-sidecar", "--engine", "builtin"]);
        let config = crate::config::load(&flags, &|_| None).unwrap().config;
        let lifecycle = Lifecycle::new();
        let jobs = Jobs::new(Engine::Builtin(Builtin), 1, lifecycle.clone(), Metrics::default());
        let ((gpu, gpus), (host, hosts)) = (watch::channel(None), watch::channel(None));
        let (engine, engines) = watch::channel(EngineState::default());
        let (graphs, warm_up) = (watch::channel(GraphFaults::default()).1, watch::channel(WarmUp::Off).1);
        let sources = Sources { gpu: gpus, host: hosts, engine: engines, graphs, warm_up, jobs };
        let (published, rejudge) = start(Switch::new(Rules::of(&config)), sources, None, &lifecycle);
        (Ends { gpu, host, engine }, published, rejudge, lifecycle)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_verdict_waits_for_every_look_and_not_longer_than_5_s() {
        let begun = tokio::time::Instant::now();
        let (ends, published, _rejudge, _lifecycle) = judged();
        let (wait, looks) = (first_looks(published.clone()), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let refused = Err(EngineError::Refused("connection refused".into()));
            ends.engine.send_modify(|state| *state = std::mem::take(state).next(refused, Instant::now()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            let sample = GpuSample {
                taken: Instant::now(),
                wall: SystemTime::now(),
                state: GpuState::DriverNotLoaded,
                good: 0,
                failed: 1,
                driver_loads: 0,
                xids: Arc::default(),
            };
            ends.gpu.send_replace(Some(Arc::new(sample)));
            tokio::time::sleep(Duration::from_secs(1)).await;
            // A host that nobody can look at is not waited for.
            drop(ends.host);
        });
        tokio::join!(wait, looks);
        assert_eq!(begun.elapsed().as_secs(), 3);
        let failing = published.borrow().report.failing();
        assert!(failing.contains("module is not loaded") && failing.contains("nothing listens"), "{failing}");

        let begun = tokio::time::Instant::now();
        let (_ends, published, _rejudge, _lifecycle) = judged();
        first_looks(published).await;
        assert_eq!(begun.elapsed(), FIRST_LOOKS);
    }

    #[tokio::test(start_paused = true)]
    async fn sources_that_are_gone_are_no_reason_to_judge_without_end() {
        let (ends, mut published, _, _lifecycle) = judged();
        drop(ends);
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
    async fn a_verdict_that_is_asked_for_is_made_at_once() {
        let (_ends, published, rejudge, _lifecycle) = judged();
        tokio::time::sleep(TICK / 2).await;
        let (before, begun) = (published.borrow().clone(), tokio::time::Instant::now());
        rejudge.verdict().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(!Arc::ptr_eq(&before, &published.borrow()), "it is in force");
    }
}
