//! Reloads the configuration of a running service, all of it or nothing, and keeps the outcome.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::{clock::unix_now, lifecycle::Lifecycle, settings::Problem};

/// Loads the configuration, any number of times.
pub struct ConfigLoader<L>(Arc<LoadFn<L>>);

type LoadFn<L> = dyn Fn() -> Result<L, Vec<Problem>> + Send + Sync;

impl<L: Send + 'static> ConfigLoader<L> {
    /// Loads it with this function.
    pub fn new(load: impl Fn() -> Result<L, Vec<Problem>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// Loads it on a blocking thread.
    pub async fn load(&self) -> Result<L, Vec<Problem>> {
        let load = self.0.clone();
        let ended = tokio::task::spawn_blocking(move || load()).await;
        ended.unwrap_or_else(|error| {
            Err(vec![Problem::new("reload", "(all of it)", format!("reading it failed: {error}"))])
        })
    }
}

impl<L> fmt::Debug for ConfigLoader<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigLoader")
    }
}

/// A value that can be replaced. Whoever loaded it before keeps the old one. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Reloadable<T>(watch::Sender<T>);

impl<T: Clone> Reloadable<T> {
    /// Holds this value.
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    /// The current value.
    pub fn load(&self) -> T {
        self.0.borrow().clone()
    }

    /// Replaces the value and returns the old one.
    pub fn replace(&self, value: T) -> T {
        self.0.send_replace(value)
    }
}

/// Which configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigStatus {
    /// Since when, in Unix seconds.
    pub loaded_at: u64,
    /// Why the last reload failed, if it did.
    pub last_error: Option<String>,
    /// How often a reload was attempted.
    pub attempts: u64,
}

/// Warnings about the new configuration, or every problem with it.
pub type ReloadOutcome = Result<Vec<String>, Vec<Problem>>;

/// Requests reloads and knows their outcome. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    status: Reloadable<ConfigStatus>,
    waiters: Arc<Mutex<Vec<oneshot::Sender<ReloadOutcome>>>>,
}

impl Default for ReloadHandle {
    fn default() -> Self {
        let status = Reloadable::new(ConfigStatus { loaded_at: unix_now(), last_error: None, attempts: 0 });
        Self { status, waiters: Arc::default() }
    }
}

impl ReloadHandle {
    /// The configuration in force.
    pub fn status(&self) -> ConfigStatus {
        self.status.load()
    }

    /// Requests a reload that starts after this call; the receiver gets its outcome.
    pub fn request(&self, lifecycle: &Lifecycle) -> oneshot::Receiver<ReloadOutcome> {
        let (sender, receiver) = oneshot::channel();
        self.lock_waiters().push(sender);
        lifecycle.request_reload();
        receiver
    }

    /// The worker that performs the requested reloads. `reload` applies the whole configuration and returns warnings, or
    /// changes nothing and returns every problem.
    pub async fn run<F>(self, lifecycle: Lifecycle, mut reload: impl FnMut() -> F)
    where
        F: Future<Output = ReloadOutcome>,
    {
        loop {
            lifecycle.reload_requested().await;
            // A request during this reload may follow a later change of the file: it gets the next one.
            let waiters = std::mem::take(&mut *self.lock_waiters());
            let outcome = reload().await;
            self.record(outcome.clone());
            for sender in waiters {
                let _ = sender.send(outcome.clone());
            }
        }
    }

    fn lock_waiters(&self) -> MutexGuard<'_, Vec<oneshot::Sender<ReloadOutcome>>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, outcome: ReloadOutcome) {
        let previous = self.status();
        let attempts = previous.attempts + 1;
        match outcome {
            Ok(warnings) => {
                self.status.replace(ConfigStatus { loaded_at: unix_now(), last_error: None, attempts });
                for warning in warnings {
                    warn!("{warning}");
                }
                info!("configuration reloaded");
            }
            Err(problems) => {
                for problem in &problems {
                    error!("{problem}");
                }
                error!(
                    problems = problems.len(),
                    "configuration not reloaded; the previous one stays in force"
                );
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                let last_error = Some(lines.join("; "));
                self.status.replace(ConfigStatus { last_error, attempts, ..previous });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_reload_is_remembered_until_one_succeeds() {
        let reloads = ReloadHandle::default();
        assert_eq!(reloads.status().last_error, None);
        let problems = ["a", "b"].map(|key| Problem::new("f", key, "expected c"));
        reloads.record(Err(problems.to_vec()));
        assert_eq!(reloads.status().last_error.as_deref(), Some("f: a: expected c; f: b: expected c"));
        reloads.record(Ok(Vec::new()));
        assert_eq!((reloads.status().last_error, reloads.status().attempts), (None, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_during_a_reload_gets_the_next_one() {
        let (reloads, lifecycle) = (ReloadHandle::default(), Lifecycle::new());
        let mut attempts = 0;
        let reload = move || {
            attempts += 1;
            let outcome =
                if attempts == 1 { Ok(Vec::new()) } else { Err(vec![Problem::new("f", "a", "expected c")]) };
            async move {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                outcome
            }
        };
        lifecycle.spawn_worker("reload", reloads.clone().run(lifecycle.clone(), reload));
        let first = reloads.request(&lifecycle);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let second = reloads.request(&lifecycle);
        assert_eq!(first.await, Ok(Ok(Vec::new())));
        assert_eq!(second.await.unwrap().unwrap_err()[0].key, "a");
        assert_eq!(reloads.status().attempts, 2);
    }
}
