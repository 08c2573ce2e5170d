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
pub struct Source<L>(Arc<Read<L>>);

type Read<L> = dyn Fn() -> Result<L, Vec<Problem>> + Send + Sync;

impl<L: Send + 'static> Source<L> {
    /// Reads it so.
    pub fn new(read: impl Fn() -> Result<L, Vec<Problem>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads it, beside the async threads.
    pub async fn read(&self) -> Result<L, Vec<Problem>> {
        let read = self.0.clone();
        let ended = tokio::task::spawn_blocking(move || read()).await;
        ended.unwrap_or_else(|died| {
            Err(vec![Problem::new("reload", "(all of it)", format!("reading it failed: {died}"))])
        })
    }
}

impl<L> fmt::Debug for Source<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

/// A value that is replaced whole. Whoever took it keeps what they took. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Switch<T>(watch::Sender<T>);

impl<T: Clone> Switch<T> {
    /// With this value.
    pub fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    /// The value as it is now.
    pub fn now(&self) -> T {
        self.0.borrow().clone()
    }

    /// From now on it is this one; gives the one before.
    pub fn replace(&self, value: T) -> T {
        self.0.send_replace(value)
    }
}

/// Which configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Unix seconds since when.
    pub loaded_at: u64,
    /// Why the last reload was refused, if it was.
    pub last_error: Option<String>,
    /// How often a reload was tried.
    pub tries: u64,
}

/// What became of a try: what an operator should know of the new configuration, or every problem with it.
pub type Outcome = Result<Vec<String>, Vec<Problem>>;

/// The tries so far. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub struct Reloads {
    in_force: Switch<InForce>,
    waiting: Arc<Mutex<Vec<oneshot::Sender<Outcome>>>>,
}

impl Default for Reloads {
    fn default() -> Self {
        let in_force = Switch::new(InForce { loaded_at: unix_now(), last_error: None, tries: 0 });
        Self { in_force, waiting: Arc::default() }
    }
}

impl Reloads {
    /// What is in force.
    pub fn in_force(&self) -> InForce {
        self.in_force.now()
    }

    /// Asks for a try that begins after this, and gives what becomes of it.
    pub fn request(&self, lifecycle: &Lifecycle) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().push(sender);
        lifecycle.request_reload();
        receiver
    }

    /// The worker: whenever a reload is asked for, tries it. `reload` changes everything and gives what an operator should
    /// know of the new configuration, or changes nothing and gives every problem.
    pub async fn obey<F>(self, lifecycle: Lifecycle, mut reload: impl FnMut() -> F)
    where
        F: Future<Output = Outcome>,
    {
        loop {
            lifecycle.reload_requested().await;
            // Whoever asks while this try runs may have changed the file after it was read: theirs is the next one.
            let waiting = std::mem::take(&mut *self.waiting());
            let outcome = reload().await;
            self.note(outcome.clone());
            for sender in waiting {
                let _ = sender.send(outcome.clone());
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<Outcome>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, outcome: Outcome) {
        let before = self.in_force();
        let tries = before.tries + 1;
        match outcome {
            Ok(notes) => {
                self.in_force.replace(InForce { loaded_at: unix_now(), last_error: None, tries });
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
                self.in_force.replace(InForce { last_error, tries, ..before });
            }
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_reload_is_remembered_until_one_is_done() {
        let reloads = Reloads::default();
        assert_eq!(reloads.in_force().last_error, None);
        let problems = ["a", "b"].map(|key| Problem::new("f", key, "expected c"));
        reloads.note(Err(problems.to_vec()));
        assert_eq!(reloads.in_force().last_error.as_deref(), Some("f: a: expected c; f: b: expected c"));
        reloads.note(Ok(Vec::new()));
        assert_eq!((reloads.in_force().last_error, reloads.in_force().tries), (None, 2));
    }
    #[tokio::test(start_paused = true)]
    async fn whoever_asks_in_the_middle_of_a_try_gets_the_next_one() {
        let (reloads, lifecycle) = (Reloads::default(), Lifecycle::new());
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
        lifecycle.worker("reload", reloads.clone().obey(lifecycle.clone(), reload));
        let first = reloads.request(&lifecycle);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let second = reloads.request(&lifecycle);
        assert_eq!(first.await, Ok(Ok(Vec::new())));
        assert_eq!(second.await.unwrap().unwrap_err()[0].key, "a");
        assert_eq!(reloads.in_force().tries, 2);
    }
}
