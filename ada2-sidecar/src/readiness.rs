//! Readiness: judged twice a second and at every change, published for everybody to read. No request ever waits for
//! a driver or an engine to learn it.

pub mod rules;
mod text;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use shared::{
    health::{CheckStatus, ReadyReport},
    service::lifecycle::Lifecycle,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Config,
    engine::monitor::EngineState,
    gpu::GpuSample,
    jobs::Jobs,
    readiness::rules::{Inputs, Rules, Verdict, judge},
};

pub(crate) use text::{health_line, line, verbose};

/// Without a change, how often: ages grow even when nothing happens.
const TICK: Duration = Duration::from_millis(500);

/// The verdict in force, ready to be sent.
#[derive(Debug)]
pub struct Published {
    /// The report.
    pub report: ReadyReport,
    /// The same as JSON.
    pub json: Bytes,
}

impl Published {
    fn of(report: ReadyReport) -> Arc<Self> {
        let json = serde_json::to_vec(&report).expect("a report has no map with odd keys").into();
        Arc::new(Self { report, json })
    }
}

/// Starts judging.
pub(crate) fn start(
    config: &Config,
    mut gpu: watch::Receiver<Option<Arc<GpuSample>>>,
    mut engine: watch::Receiver<EngineState>,
    jobs: Jobs,
    lifecycle: &Lifecycle,
) -> watch::Receiver<Arc<Published>> {
    let draining = lifecycle.draining().clone();
    let judge = Judge { rules: Rules::of(config), started: Instant::now(), jobs, draining: draining.clone() };
    let mut verdict = judge.look(None, None, &engine.borrow());
    let (sender, receiver) = watch::channel(Published::of(verdict.report.clone()));
    lifecycle.worker("readiness", async move {
        let mut tick = tokio::time::interval(TICK);
        let (mut gpu_lives, mut drains) = (true, false);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                changed = gpu.changed(), if gpu_lives => gpu_lives = changed.is_ok(),
                _ = engine.changed() => {}
                () = judge.jobs.changed() => {}
                () = draining.cancelled(), if !drains => drains = true,
            }
            let sample = gpu.borrow_and_update().clone();
            let next = judge.look(Some(&verdict), sample.as_deref(), &engine.borrow_and_update());
            report_change(&verdict.report, &next.report);
            sender.send_replace(Published::of(next.report.clone()));
            verdict = next;
        }
    });
    receiver
}

struct Judge {
    rules: Rules,
    started: Instant,
    jobs: Jobs,
    draining: CancellationToken,
}

impl Judge {
    fn look(&self, prev: Option<&Verdict>, gpu: Option<&GpuSample>, engine: &EngineState) -> Verdict {
        let now = Instant::now();
        let inputs = Inputs {
            gpu,
            started: self.started,
            engine,
            limit: self.jobs.slots().limit(),
            inflight: self.jobs.slots().inflight(),
            oldest_cancel: self.jobs.oldest_cancel(now),
            draining: self.draining.is_cancelled(),
        };
        judge(prev, &inputs, &self.rules, now, SystemTime::now())
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
