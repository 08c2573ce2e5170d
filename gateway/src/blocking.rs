//! Work that would hold up the async threads: hashing, decoding, the disk. A thread that blocks cannot be cancelled.

use service::slots::SharedPermit;

/// Runs it on a thread of its own. Its panic is the caller's.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Not started because the runtime ends: nobody waits for it any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The same as part of an exchange: its place is free only once the work is over, whoever still waits for it.
pub(crate) async fn run_blocking_with_permit<T: Send + 'static>(
    permit: SharedPermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    blocking(move || {
        let _held = permit;
        work()
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use service::slots::Slots;

    use super::*;

    #[tokio::test]
    async fn a_place_is_taken_until_the_work_is_over_though_nobody_waits() {
        let slots = Slots::new(1);
        let place = slots.try_acquire().unwrap().into();
        let ((begun, has_begun), (end, ends)) = (mpsc::channel(), mpsc::channel::<()>());
        let work = run_blocking_with_permit(place, move || {
            begun.send(()).unwrap();
            let _ = ends.recv();
        });
        let left = tokio::time::timeout(Duration::from_millis(50), work).await;
        assert!(left.is_err() && has_begun.recv().is_ok());
        assert_eq!(slots.available(), 0);
        drop(end);
        while slots.available() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
