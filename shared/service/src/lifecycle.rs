//! From start to exit: every task is tracked; the first signal drains, the second one or the end of the grace period
//! aborts.
//!
//! ```text
//! signal ─► draining: not ready, no new connections, work finishes
//!        ─► aborting (grace period over or second signal): work is cancelled and gets a few seconds to end
//!        ─► stopped: background workers end
//! ```

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::{error, info, warn};

/// How long cancelled work may take to end after the grace period.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The service's phases and its tasks. Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    draining: CancellationToken,
    aborting: CancellationToken,
    stopped: CancellationToken,
    work: TaskTracker,
    drain_guards: TaskTracker,
    workers: TaskTracker,
    failed_worker: Arc<OnceLock<&'static str>>,
    reload_requests: Arc<Notify>,
}

/// A background worker ended although the service had not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerExited(pub &'static str);

impl std::fmt::Display for WorkerExited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the background task {:?} ended unexpectedly; see the log above for the cause", self.0)
    }
}

impl std::error::Error for WorkerExited {}

impl Lifecycle {
    /// A running service.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the service starts to drain.
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when remaining work must be abandoned.
    pub fn aborting(&self) -> &CancellationToken {
        &self.aborting
    }

    /// While it is held, new work may be spawned although the service drains. To be held only while the backlog is taken
    /// over.
    pub fn drain_guard(&self) -> TaskTrackerToken {
        self.drain_guards.token()
    }

    /// Starts to drain, as a signal would.
    pub fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// Requests a reload of the configuration, as SIGHUP does.
    pub fn request_reload(&self) {
        self.reload_requests.notify_one();
    }

    /// Waits for such a request. Several requests during a reload count as one.
    pub async fn reload_requested(&self) {
        self.reload_requests.notified().await;
    }

    /// Spawns work for one client (a connection, a job), which draining waits for. A panic ends only this task.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.work.spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                error!(task = name, "a task panicked; only its request is lost");
            }
        });
    }

    /// Spawns a loop that runs as long as the service. It may end once the service drains, and is stopped when the work is
    /// done. If it ends or panics before, the service stops with an error, and its supervisor restarts it.
    pub fn spawn_worker(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_worker_until(CancellationToken::new(), name, work);
    }

    /// The same for a loop that a reload may replace: it is stopped by `cancel`.
    pub fn spawn_worker_until(
        &self,
        cancel: CancellationToken,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let life = self.clone();
        let replaced = cancel.clone();
        let work = async move {
            tokio::select! {
                () = work => {}
                () = replaced.cancelled() => {}
            }
        };
        self.workers.spawn(async move {
            tokio::select! {
                () = life.stopped.cancelled() => {}
                ended = AssertUnwindSafe(work).catch_unwind() => {
                    if ended.is_ok() && (life.draining.is_cancelled() || cancel.is_cancelled()) {
                        return;
                    }
                    error!(task = name, "a background task ended unexpectedly; stopping");
                    let _ = life.failed_worker.set(name);
                    life.draining.cancel();
                }
            }
        });
    }

    /// Spawns a task that draining does not wait for: it is stopped when the work is done. A panic ends only this task.
    pub fn spawn_background(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let life = self.clone();
        self.workers.spawn(async move {
            tokio::select! {
                () = life.stopped.cancelled() => {}
                ended = AssertUnwindSafe(task).catch_unwind() => if ended.is_err() {
                    error!(task = name, "a task panicked; only its connection is lost");
                },
            }
        });
    }

    /// How many connections and jobs are running.
    pub fn inflight(&self) -> usize {
        self.work.len()
    }

    /// Drains on SIGTERM or SIGINT, aborts on a second one, and reloads on SIGHUP.
    pub fn handle_signals(&self) -> std::io::Result<()> {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut hup = signal(SignalKind::hangup())?;
        let life = self.clone();
        self.spawn_worker("signals", async move {
            loop {
                let name = tokio::select! {
                    _ = term.recv() => "SIGTERM",
                    _ = int.recv() => "SIGINT",
                    _ = hup.recv() => {
                        life.request_reload();
                        continue;
                    }
                };
                if life.draining.is_cancelled() {
                    warn!(signal = name, "second signal: cancelling remaining work");
                    life.aborting.cancel();
                } else {
                    info!(signal = name, inflight = life.inflight(), "draining");
                    life.draining.cancel();
                }
            }
        });
        Ok(())
    }

    /// Waits for the service to drain, then shuts it down: up to `grace` for work to finish, a few seconds for cancelled work
    /// to end, then the workers.
    pub async fn wait_until_stopped(&self, grace: Duration) -> Result<(), WorkerExited> {
        self.draining.cancelled().await;
        self.drain_guards.close();
        let _ = tokio::time::timeout(ABORT_TIMEOUT, self.drain_guards.wait()).await;
        self.work.close();
        if !self.wait_for_work(Instant::now() + grace).await {
            warn!(inflight = self.inflight(), "shutdown grace period is over: cancelling remaining work");
            self.aborting.cancel();
            if !self.wait_for_work(Instant::now() + ABORT_TIMEOUT).await {
                error!(inflight = self.inflight(), "stopping with unfinished work");
            }
        }
        self.aborting.cancel();
        self.stopped.cancel();
        self.workers.close();
        let _ = tokio::time::timeout(ABORT_TIMEOUT, self.workers.wait()).await;
        self.failed_worker.get().map_or(Ok(()), |name| Err(WorkerExited(name)))
    }

    /// Logs every few seconds what is still running.
    async fn wait_for_work(&self, deadline: Instant) -> bool {
        loop {
            let next_report = deadline.min(Instant::now() + Duration::from_secs(5));
            let done = tokio::select! {
                done = timeout_at(next_report, self.work.wait()) => done.is_ok(),
                () = self.aborting.cancelled() => {
                    return timeout_at(deadline.min(Instant::now() + ABORT_TIMEOUT), self.work.wait()).await.is_ok();
                }
            };
            if done {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            info!(inflight = self.inflight(), "draining: still running");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_work_and_stops_workers_last() {
        let life = Lifecycle::new();
        life.spawn_worker("loop", std::future::pending());
        life.spawn("job", tokio::time::sleep(Duration::from_secs(7)));
        life.begin_drain();
        let start = Instant::now();
        assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_grace_period_work_is_aborted() {
        let life = Lifecycle::new();
        let aborting = life.aborting().clone();
        life.spawn("job", async move { aborting.cancelled().await });
        life.begin_drain();
        let start = Instant::now();
        assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replaced_worker_may_end_and_any_other_ends_the_service() {
        let life = Lifecycle::new();
        let cancel = CancellationToken::new();
        life.spawn_worker_until(cancel.clone(), "monitor", std::future::pending());
        cancel.cancel();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!life.draining().is_cancelled());
        life.spawn_worker_until(CancellationToken::new(), "monitor", async {});
        assert_eq!(life.wait_until_stopped(Duration::from_secs(1)).await, Err(WorkerExited("monitor")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_stops_the_service_and_a_job_that_panics_does_not() {
        let life = Lifecycle::new();
        life.spawn("job", async { panic!("one request") });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!life.draining().is_cancelled());
        life.spawn_worker("sampler", async { panic!("gone") });
        assert_eq!(life.wait_until_stopped(Duration::from_secs(1)).await, Err(WorkerExited("sampler")));
    }
}
