//! What may be held for a time and no longer, also by a stream that nobody reads on: the HTTP library asks for no more of
//! an answer as long as its caller takes none, and so no check in there would ever run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lifecycle::Lifecycle;

/// A value until its time is over: then it is dropped, at once or when it is put back.
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
    /// Holds it until then.
    pub fn new(value: T, until: Instant, lifecycle: &Lifecycle) -> Self {
        let place = Arc::new(Mutex::new(ExpiringState::Present(value)));
        let (ended, of) = (CancellationToken::new(), place.clone());
        let timer = ended.clone();
        lifecycle.spawn_background("time limit", async move {
            tokio::select! {
                () = timer.cancelled() => {}
                () = sleep_until(until) => {
                    let over = std::mem::replace(&mut *lock(&of), ExpiringState::Expired);
                    drop(over);
                }
            }
        });
        Self { state: place, _timer: ended.drop_guard() }
    }

    /// Takes it out for a step that is bounded by itself. Not there when its time is over.
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

    /// Puts it back after that; drops it if its time is over.
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

    fn limited(seconds: u64) -> (Expiring<Arc<()>>, Arc<()>) {
        let held = Arc::new(());
        let until = Instant::now() + Duration::from_secs(seconds);
        (Expiring::new(held.clone(), until, &Lifecycle::new()), held)
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped_when_its_time_is_over() {
        let (limited, held) = limited(10);
        tokio::time::sleep(Duration::from_secs(9)).await;
        let taken = limited.take().unwrap();
        assert!(limited.take().is_none());
        limited.put_back(taken);
        assert_eq!(Arc::strong_count(&held), 2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(limited.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_back_too_late_is_dropped() {
        let (limited, held) = limited(10);
        let taken = limited.take().unwrap();
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(Arc::strong_count(&held), 2, "a step is not broken off");
        limited.put_back(taken);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_ends_with_the_value() {
        let life = Lifecycle::new();
        drop(Expiring::new((), Instant::now() + Duration::from_mins(5), &life));
        life.begin_drain();
        let begun = Instant::now();
        assert_eq!(life.wait_until_stopped(Duration::from_secs(30)).await, Ok(()));
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
