//! Threads for decoding and encoding, and how many large images they work on at once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::JobError;
use crate::engine::EngineError;

/// A large image takes up to 400 MB. Small ones are bounded by the slots alone, so that they do not wait for large ones.
const MAX_LARGE_CONCURRENT: usize = 2;

#[derive(Debug, Clone)]
pub(super) struct ImageWorkers {
    large_permits: Arc<Semaphore>,
}

impl Default for ImageWorkers {
    fn default() -> Self {
        Self { large_permits: Arc::new(Semaphore::new(MAX_LARGE_CONCURRENT)) }
    }
}

impl ImageWorkers {
    /// Runs the work on a blocking thread and returns only when it has ended. Large work that still waits for its turn when
    /// the token is cancelled never starts.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        is_large: bool,
        cancel: &CancellationToken,
        work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let permit = async { if is_large { self.large_permits.acquire().await.ok() } else { None } };
        let Some(_permit) = cancel.run_until_cancelled(permit).await else {
            return Err(EngineError::Cancelled.into());
        };
        let cancel = cancel.clone();
        tokio::task::spawn_blocking(move || work(&cancel)).await.map_err(|_| JobError::Panic)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn large_images_are_limited_and_small_ones_do_not_wait() {
        let (workers, cancel) = (ImageWorkers::default(), CancellationToken::new());
        let (active, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let large = (0..12).map(|_| {
            let (active, peak) = (active.clone(), peak.clone());
            workers.run(true, &cancel, move |_| {
                peak.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                active.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for done in futures_util::future::join_all(large).await {
            done.unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), MAX_LARGE_CONCURRENT);

        let _all = workers.large_permits.acquire_many(2).await.unwrap();
        assert_eq!(workers.run(false, &cancel, |_| 7).await, Ok(7));
        cancel.cancel();
        let never_started = workers.run(true, &cancel, |_| unreachable!("it was cancelled while waiting"));
        assert_eq!(never_started.await, Err::<(), _>(EngineError::Cancelled.into()));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let (workers, cancel) = (ImageWorkers::default(), CancellationToken::new());
        let done = workers.run(false, &cancel, |_| panic!("a bug"));
        assert_eq!(done.await, Err::<(), _>(JobError::Panic));
    }
}
