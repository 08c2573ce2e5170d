//! The configuration read again while the service runs: all of it or nothing, and what became of the last try.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::{clock::unix_now, lifecycle::Lifecycle, settings::Problem};

/// Where a configuration is read from, again and again.
pub struct ConfigLoader<L>(Arc<LoadFn<L>>);

type LoadFn<L> = dyn Fn() -> Result<L, Vec<Problem>> + Send + Sync;

impl<L: Send + 'static> ConfigLoader<L> {
    /// Reads it so.
    pub fn new(load: impl Fn() -> Result<L, Vec<Problem>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(load))
    }

    /// Reads it, beside the async threads.
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
        f.write_str("Source")
    }
}

/// A value that is replaced whole. Whoever took it keeps what they took. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Reloadable<T>(watch::Sender<T>);

impl<T: Clone> Reloadable<T> {
    /// With this value.
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    /// The value as it is now.
    pub fn load(&self) -> T {
        self.0.borrow().clone()
    }

    /// From now on it is this one; gives the one before.
    pub fn replace(&self, value: T) -> T {
        self.0.send_replace(value)
    }
}

/// Which configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigStatus {
    /// Unix seconds since when.
    pub loaded_at: u64,
    /// Why the last reload was refused, if it was.
    pub last_error: Option<String>,
    /// How often a reload was tried.
    pub attempts: u64,
}

/// What became of a try: what an operator should know of the new configuration, or every problem with it.
pub type ReloadOutcome = Result<Vec<String>, Vec<Problem>>;

/// The tries so far. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    status: Reloadable<ConfigStatus>,
    waiters: Arc<Mutex<Vec<oneshot::Sender<ReloadOutcome>>>>,
}

impl Default for ReloadHandle {
    fn default() -> Self {
        let in_force = Reloadable::new(ConfigStatus { loaded_at: unix_now(), last_error: None, attempts: 0 });
        Self { status: in_force, waiters: Arc::default() }
    }
}

impl ReloadHandle {
    /// What is in force.
    pub fn status(&self) -> ConfigStatus {
        self.status.load()
    }

    /// Asks for a try that begins after this, and gives what becomes of it.
    pub fn request(&self, lifecycle: &Lifecycle) -> oneshot::Receiver<ReloadOutcome> {
        let (sender, receiver) = oneshot::channel();
        self.lock_waiters().push(sender);
        lifecycle.request_reload();
        receiver
    }

    /// The worker: whenever a reload is asked for, tries it. `reload` changes everything and gives what an operator should
    /// know of the new configuration, or changes nothing and gives every problem.
    pub async fn run<F>(self, lifecycle: Lifecycle, mut reload: impl FnMut() -> F)
    where
        F: Future<Output = ReloadOutcome>,
    {
        loop {
            lifecycle.reload_requested().await;
            // Whoever asks while this try runs may have changed the file after it was read: theirs is the next one.
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
        let tries = previous.attempts + 1;
        match outcome {
            Ok(notes) => {
                self.status.replace(ConfigStatus {
                    loaded_at: unix_now(),
                    last_error: None,
                    attempts: tries,
                });
                for note in notes {
                    warn!("{note}");
                }
                info!("configuration reloaded");
            }
            Err(problems) => {
                for problem in &problems {
                    error!("{problem}");
                }
                error!(
                    problems = problems.len(),
                    "configuration not reloaded; the one before stays in force"
                );
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                let last_error = Some(lines.join("; "));
                self.status.replace(ConfigStatus { last_error, attempts: tries, ..previous });
            }
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reload_is_remembered_until_one_is_done() {
        let reloads = ReloadHandle::default();
        assert_eq!(reloads.status().last_error, None);
        let problems = ["a", "b"].map(|key| Problem::new("f", key, "expected c"));
        reloads.record(Err(problems.to_vec()));
        assert_eq!(reloads.status().last_error.as_deref(), Some("f: a: expected c; f: b: expected c"));
        reloads.record(Ok(Vec::new()));
        assert_eq!((reloads.status().last_error, reloads.status().attempts), (None, 2));
    }
    #[tokio::test(start_paused = true)]
    async fn whoever_asks_in_the_middle_of_a_try_gets_the_next_one() {
        let (reloads, lifecycle) = (ReloadHandle::default(), Lifecycle::new());
        let mut tries = 0;
        let reload = move || {
            tries += 1;
            let outcome =
                if tries == 1 { Ok(Vec::new()) } else { Err(vec![Problem::new("f", "a", "expected c")]) };
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
