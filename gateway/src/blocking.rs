//! Blocking work (hashing, decoding, disk access) off the async threads. A blocking thread cannot be cancelled.

use service::slots::SharedPermit;

/// Runs it on a blocking thread. A panic is passed on.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled because the runtime shuts down.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The same, holding a slot until the work is done, even if its caller is cancelled.
pub(crate) async fn run_blocking_with_permit<T: Send + 'static>(
    permit: SharedPermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    blocking(move || {
        let _permit = permit;
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
    async fn a_slot_is_held_until_the_work_is_done_even_if_cancelled() {
        let slots = Slots::new(1);
        let permit = slots.try_acquire().unwrap().into();
        let ((started, has_started), (finish, may_finish)) = (mpsc::channel(), mpsc::channel::<()>());
        let work = run_blocking_with_permit(permit, move || {
            started.send(()).unwrap();
            let _ = may_finish.recv();
        });
        let cancelled = tokio::time::timeout(Duration::from_millis(50), work).await;
        assert!(cancelled.is_err() && has_started.recv().is_ok());
        assert_eq!(slots.available(), 0);
        drop(finish);
        while slots.available() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
