//! Readiness: judged twice a second and at every change, published for everybody to read. No request ever waits for
//! a driver or an engine to learn it.

mod alarm;
pub mod latch;
pub mod rules;
mod text;
mod xid;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use shared::{
    health::{CheckStatus, ReadyReport},
    service::{lifecycle::Lifecycle, reload::Switch},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{
    latch::{Latch, file::LatchFile},
    rules::{Inputs, Memory, Rules, judge},
};
use crate::{
    engine::monitor::EngineState, gpu::GpuSample, host::HostSample, jobs::Jobs, vetting::GraphFaults,
    warm_up::WarmUp,
};

pub(crate) use text::{health_line, line, verbose};
pub(crate) use xid::meaning as xid_meaning;

/// Without a change, how often: ages grow even when nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// The verdict in force, ready to be sent.
#[derive(Debug)]
pub struct Published {
    /// The report.
    pub report: ReadyReport,
    /// The same as JSON.
    pub json: Bytes,
    /// The look at the card that it is about.
    pub gpu: Option<Arc<GpuSample>>,
}

impl Published {
    fn of(report: ReadyReport, gpu: Option<Arc<GpuSample>>) -> Arc<Self> {
        let json = serde_json::to_vec(&report).expect("a report has no map with odd keys").into();
        Arc::new(Self { report, json, gpu })
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
) -> watch::Receiver<Arc<Published>> {
    let draining = lifecycle.draining().clone();
    let judge = Judge { rules, started: Instant::now(), draining: draining.clone() };
    let latch = kept(files.as_ref());
    let (keep, kept) = watch::channel(latch.clone());
    let (ask, mut acks) = mpsc::channel(1);
    let (mut memory, first) = judge.look(None, Memory::starting(latch), &sources);
    let (sender, receiver) = watch::channel(Published::of(first, None));
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
            tokio::select! {
                _ = tick.tick() => {}
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
            sender.send_replace(Published::of(report, gpu));
        }
    });
    receiver
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
        engine::{Engine, builtin::Builtin},
        metrics::Metrics,
    };

    #[tokio::test(start_paused = true)]
    async fn sources_that_are_gone_are_no_reason_to_judge_without_end() {
        let flags = crate::cli::command().get_matches_from(["ada2-sidecar", "--engine", "builtin"]);
        let config = crate::config::load(&flags, &|_| None).unwrap().config;
        let lifecycle = Lifecycle::new();
        let engine = Engine::Builtin(Builtin);
        let sources = Sources {
            gpu: watch::channel(None).1,
            host: watch::channel(None).1,
            engine: watch::channel(EngineState::default()).1,
            graphs: watch::channel(GraphFaults::default()).1,
            warm_up: watch::channel(WarmUp::Off).1,
            jobs: Jobs::new(engine, 1, lifecycle.clone(), Metrics::default()),
        };
        let mut published = start(Switch::new(Rules::of(&config)), sources, None, &lifecycle);
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
}
