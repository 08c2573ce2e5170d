//! Work that would hold up the async threads: hashing, decoding, the disk.

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
