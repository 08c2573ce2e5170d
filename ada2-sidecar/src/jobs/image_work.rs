//! Decoding and encoding as part of a job: how much of it may be done at once.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::JobError;
use crate::engine::EngineError;

/// Large pictures that are decoded at once: each takes up to 400 MB. Small ones are bounded by the slots alone, so that
/// they do not wait for large ones.
const MAX_LARGE_CONCURRENT: usize = 2;

/// Where jobs have their pixels worked on.
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
    /// Does it on a thread that may block, and returns only when it is over. Where large work must wait for its turn, it is
    /// given up once cancelled.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        large: bool,
        cancel: &CancellationToken,
        work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let permit = async { if large { self.large_permits.acquire().await.ok() } else { None } };
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
    async fn only_so_many_large_pictures_are_worked_on_at_once_and_small_ones_do_not_wait() {
        let (pixels, cancel) = (ImageWorkers::default(), CancellationToken::new());
        let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let large = (0..12).map(|_| {
            let (at_work, most) = (at_work.clone(), most.clone());
            pixels.run(true, &cancel, move |_| {
                most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
                at_work.fetch_sub(1, Ordering::SeqCst);
            })
        });
        for done in futures_util::future::join_all(large).await {
            done.unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), MAX_LARGE_CONCURRENT);

        let _all = pixels.large_permits.acquire_many(2).await.unwrap();
        assert_eq!(pixels.run(false, &cancel, |_| 7).await, Ok(7));
        cancel.cancel();
        let never_begun = pixels.run(true, &cancel, |_| unreachable!("nobody waits for it"));
        assert_eq!(never_begun.await, Err::<(), _>(EngineError::Cancelled.into()));
    }

    #[tokio::test]
    async fn a_panic_is_told() {
        let (pixels, cancel) = (ImageWorkers::default(), CancellationToken::new());
        let done = pixels.run(false, &cancel, |_| panic!("a fault of ours"));
        assert_eq!(done.await, Err::<(), _>(JobError::Panic));
    }
}
