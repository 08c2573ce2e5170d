//! Parses long bodies on a blocking thread, so that other requests do not wait.

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::body::BufferedBody;

/// Bytes that are parsed inline, in less than a millisecond.
const INLINE_LIMIT: usize = 64 << 10;

/// Parses a body. If the client disconnects, the parser runs to its end; the body counts against the budget until then, which
/// bounds how many there can be.
pub async fn parse_off_thread<T: Send + 'static>(
    body: BufferedBody,
    parser: impl FnOnce(&Bytes) -> T + Send + 'static,
) -> (BufferedBody, T) {
    let is_short = body.bytes.len() <= INLINE_LIMIT;
    let work = move || {
        let parsed = parser(&body.bytes);
        (body, parsed)
    };
    if is_short {
        return work();
    }
    match spawn_blocking(work).await {
        Ok(parsed) => parsed,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Not started because the runtime shuts down: nobody waits for it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::HeaderMap};

    use super::*;
    use crate::body::{BodyBudget, BudgetOwner};

    #[tokio::test]
    async fn a_long_body_is_parsed_on_another_thread_and_counts_until_then() {
        let (budget, owner) = (BodyBudget::new(1 << 20, 1 << 20), BudgetOwner::Token("me".to_owned()));
        for (length, elsewhere) in [(INLINE_LIMIT, false), (INLINE_LIMIT + 1, true)] {
            let body = budget.read(&owner, &HeaderMap::new(), Body::from(vec![b'x'; length])).await.unwrap();
            let here = std::thread::current().id();
            let (body, moved) = parse_off_thread(body, move |_| std::thread::current().id() != here).await;
            assert_eq!((moved, budget.held()), (elsewhere, length));
            drop(body);
        }
        let body =
            budget.read(&owner, &HeaderMap::new(), Body::from(vec![b'x'; 2 * INLINE_LIMIT])).await.unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let parsing = parse_off_thread(body, move |_| wait.recv().is_ok());
        let left = tokio::time::timeout(std::time::Duration::from_millis(20), parsing).await;
        assert!(left.is_err() && budget.held() == 2 * INLINE_LIMIT, "it continues without its client");
        go.send(()).unwrap();
        while budget.held() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
