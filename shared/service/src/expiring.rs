//! A value with a deadline, for response streams: the HTTP library does not poll one while its client reads nothing, so a check
//! inside the stream would never run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lifecycle::Lifecycle;

/// A value that is dropped at its deadline, or when it is put back after it.
#[derive(Debug)]
pub struct Expiring<T> {
    state: Arc<Mutex<ExpiringState<T>>>,
    _timer: DropGuard,
}

#[derive(Debug)]
enum ExpiringState<T> {
    Present(T),
    Taken,
    Expired,
}

impl<T: Send + 'static> Expiring<T> {
    /// Holds the value until the deadline.
    pub fn new(value: T, deadline: Instant, lifecycle: &Lifecycle) -> Self {
        Self::or_cancelled(value, deadline, CancellationToken::new(), lifecycle)
    }

    /// Holds the value until the deadline or until `cancel`.
    pub fn or_cancelled(
        value: T,
        deadline: Instant,
        cancel: CancellationToken,
        lifecycle: &Lifecycle,
    ) -> Self {
        let state = Arc::new(Mutex::new(ExpiringState::Present(value)));
        let (gone, expiring) = (CancellationToken::new(), state.clone());
        let timer = gone.clone().drop_guard();
        lifecycle.spawn_background("time limit", async move {
            tokio::select! {
                () = gone.cancelled() => return,
                () = sleep_until(deadline) => {}
                () = cancel.cancelled() => {}
            }
            let expired = std::mem::replace(&mut *lock(&expiring), ExpiringState::Expired);
            drop(expired);
        });
        Self { state, _timer: timer }
    }

    /// Takes the value out for a step that has its own timeout; `None` after the deadline.
    pub fn take(&self) -> Option<T> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, ExpiringState::Taken) {
            ExpiringState::Present(value) => Some(value),
            ExpiringState::Taken => None,
            ExpiringState::Expired => {
                *state = ExpiringState::Expired;
                None
            }
        }
    }

    /// Puts the value back; drops it after the deadline.
    pub fn put_back(&self, value: T) {
        let mut state = lock(&self.state);
        if matches!(*state, ExpiringState::Taken) {
            *state = ExpiringState::Present(value);
        }
    }
}

fn lock<T>(state: &Mutex<ExpiringState<T>>) -> MutexGuard<'_, ExpiringState<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn expiring(seconds: u64) -> (Expiring<Arc<()>>, Arc<()>) {
        let held = Arc::new(());
        let deadline = Instant::now() + Duration::from_secs(seconds);
        (Expiring::new(held.clone(), deadline, &Lifecycle::new()), held)
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_dropped_at_its_deadline() {
        let (expiring, held) = expiring(10);
        tokio::time::sleep(Duration::from_secs(9)).await;
        let taken = expiring.take().unwrap();
        assert!(expiring.take().is_none());
        expiring.put_back(taken);
        assert_eq!(Arc::strong_count(&held), 2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(expiring.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_put_back_after_its_deadline_is_dropped() {
        let (expiring, held) = expiring(10);
        let taken = expiring.take().unwrap();
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(Arc::strong_count(&held), 2, "a step is not interrupted");
        expiring.put_back(taken);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_dropped_when_it_is_cancelled() {
        let (held, cancel) = (Arc::new(()), CancellationToken::new());
        let deadline = Instant::now() + Duration::from_mins(5);
        let expiring = Expiring::or_cancelled(held.clone(), deadline, cancel.clone(), &Lifecycle::new());
        cancel.cancel();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(expiring.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_ends_with_the_value() {
        let life = Lifecycle::new();
        drop(Expiring::new((), Instant::now() + Duration::from_mins(5), &life));
        life.begin_drain();
        let started = Instant::now();
        assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
