//! `X-On-Disconnect`: whether the work of a request ends when its client disconnects, or goes on without one.

use std::{error::Error, future::Future, pin::pin};

use axum::http::{HeaderMap, HeaderValue};
use futures_util::{
    StreamExt,
    future::Either,
    stream::{Stream, unfold},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};
use tracing::info;
use wire::openai::fields::FieldError;

use super::lifecycle::Lifecycle;

const X_ON_DISCONNECT: &str = "X-On-Disconnect";
/// A client that leaves more items of a stream unread counts as disconnected: they would pile up in memory.
const MAX_UNREAD: usize = 32;

/// What a client wants to happen when it disconnects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Nothing that nobody waits for goes on.
    #[default]
    Cancel,
    /// The work goes on, within the same time limit. A drain waits for it, and cancels it at the end of the grace period.
    Finish,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl OnDisconnect {
    /// From the request's header.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, FieldError> {
        let mut values = headers.get_all(X_ON_DISCONNECT).iter();
        match (values.next().map(HeaderValue::as_bytes), values.next()) {
            (None, _) => Ok(Self::default()),
            (Some(b"cancel"), None) => Ok(Self::Cancel),
            (Some(b"finish"), None) => Ok(Self::Finish),
            _ => Err(FieldError::new(X_ON_DISCONNECT, "X-On-Disconnect must be \"finish\" or \"cancel\".")),
        }
    }

    /// Does the work. With `Finish` in a task of its own, which goes on if the returned future is dropped. `None` if the work
    /// panicked, or the service stops before it is done.
    pub async fn run<T: Send + 'static>(
        self,
        lifecycle: &Lifecycle,
        request_id: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        if self == Self::Cancel {
            return Some(work.await);
        }
        let (sender, receiver) = oneshot::channel();
        let (aborting, request_id) = (lifecycle.aborting().clone(), request_id.to_owned());
        lifecycle.spawn("request", async move {
            tokio::select! {
                result = work => if sender.send(result).is_err() {
                    info!(request_id, "finished for a client that has disconnected");
                },
                () = aborting.cancelled() => {}
            }
        });
        receiver.await.ok()
    }

    /// The stream as it is. With `Finish` it is read to its end in a task of its own, whether or not anybody reads the returned
    /// one, which breaks if it is read too slowly.
    pub fn stream<S, T, E>(
        self,
        lifecycle: &Lifecycle,
        request_id: &str,
        stream: S,
    ) -> impl Stream<Item = Result<T, BoxError>> + Send + use<S, T, E>
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        if self == Self::Cancel {
            return Either::Left(stream.map(|item| item.map_err(Into::into)));
        }
        // One more for the end.
        let (sender, receiver) = mpsc::channel(MAX_UNREAD + 1);
        let (aborting, request_id) = (lifecycle.aborting().clone(), request_id.to_owned());
        lifecycle.spawn("stream", async move {
            tokio::select! {
                () = read_to_end(stream, sender, &request_id) => {}
                () = aborting.cancelled() => {}
            }
        });
        Either::Right(unfold(Some(receiver), async |receiver| {
            let mut receiver = receiver?;
            let error = match receiver.recv().await {
                Some(Some(Ok(item))) => return Some((Ok(item), Some(receiver))),
                Some(Some(Err(error))) => error.into(),
                Some(None) => return None,
                None => "the client read too slowly, or the service stopped".into(),
            };
            // Lets hyper send what came before, above all the head: a library that has seen no head retries.
            yield_now().await;
            Some((Err(error), None))
        }))
    }
}

/// Sends every item, then `None`, for as long as the client keeps up.
async fn read_to_end<I>(stream: impl Stream<Item = I>, sender: mpsc::Sender<Option<I>>, request_id: &str) {
    let end = sender.clone().try_reserve_owned().ok();
    let mut client = end.map(|end| (sender, end));
    let mut stream = pin!(stream);
    while let Some(item) = stream.next().await {
        client = client.filter(|(sender, _)| sender.try_send(Some(item)).is_ok());
    }
    if let Some((_, end)) = client {
        drop(end.send(None));
    } else {
        info!(request_id, "finished for a client that has disconnected or stopped reading");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use futures_util::{FutureExt, TryStreamExt, stream};
    use tokio::time::{Instant, sleep};

    use super::*;

    #[test]
    fn the_header_has_two_values_and_any_other_is_named() {
        let parse = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_ON_DISCONNECT, value.parse().unwrap());
            }
            OnDisconnect::from_headers(&headers)
        };
        assert_eq!(parse(&[]), Ok(OnDisconnect::Cancel));
        assert_eq!(parse(&["cancel"]), Ok(OnDisconnect::Cancel));
        assert_eq!(parse(&["finish"]), Ok(OnDisconnect::Finish));
        for values in [&[""][..], &["Finish"], &["finish, cancel"], &["finish", "finish"], &["yes"]] {
            assert_eq!(parse(values).unwrap_err().param.as_deref(), Some("X-On-Disconnect"), "{values:?}");
        }
    }

    /// Work of a second, and whether it has been done.
    fn work() -> (impl Future<Output = u32> + Send + 'static, Arc<AtomicUsize>) {
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let work = async move {
            sleep(Duration::from_secs(1)).await;
            count.fetch_add(1, Ordering::AcqRel);
            7
        };
        (work, done)
    }

    #[tokio::test(start_paused = true)]
    async fn only_with_finish_does_work_go_on_when_nobody_waits() {
        for (on_disconnect, expected) in [(OnDisconnect::Cancel, 0), (OnDisconnect::Finish, 1)] {
            let life = Lifecycle::new();
            let (task, done) = work();
            assert!(on_disconnect.run(&life, "r", task).now_or_never().is_none());
            sleep(Duration::from_secs(2)).await;
            assert_eq!(done.load(Ordering::Acquire), expected, "{on_disconnect:?}");
            assert_eq!(on_disconnect.run(&life, "r", work().0).await, Some(7));
            assert_eq!(on_disconnect.run(&life, "r", async {}).await, Some(()));
        }
        let life = Lifecycle::new();
        let panicked = OnDisconnect::Finish.run(&life, "r", async { panic!("a bug") });
        assert_eq!(panicked.await, None::<()>);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_the_work_and_the_end_of_the_grace_period_cancels_it() {
        for (grace, expected, after) in [(30, 1, 1000), (0, 0, 0)] {
            let life = Lifecycle::new();
            let (task, done) = work();
            assert!(OnDisconnect::Finish.run(&life, "r", task).now_or_never().is_none());
            life.begin_drain();
            let started = Instant::now();
            life.wait_until_stopped(Duration::from_secs(grace)).await.unwrap();
            assert_eq!((done.load(Ordering::Acquire), started.elapsed().as_millis()), (expected, after));
        }
    }

    /// This many numbers, one each millisecond, and how many have been taken.
    fn numbers(count: usize) -> (impl Stream<Item = Result<usize, Infallible>> + Send, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let numbers = stream::iter(0..count).then(move |number| {
            let counter = counter.clone();
            async move {
                sleep(Duration::from_millis(1)).await;
                counter.fetch_add(1, Ordering::AcqRel);
                Ok(number)
            }
        });
        (numbers, taken)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_goes_on_without_its_client_and_a_stalled_client_loses_only_the_stream() {
        let life = Lifecycle::new();
        let (all, _) = numbers(100);
        let read: Vec<_> = OnDisconnect::Finish.stream(&life, "r", all).try_collect().await.unwrap();
        assert_eq!(read, (0..100).collect::<Vec<_>>());

        let (gone, taken) = numbers(100);
        drop(OnDisconnect::Finish.stream(&life, "r", gone));
        sleep(Duration::from_secs(1)).await;
        assert_eq!(taken.load(Ordering::Acquire), 100);

        for (count, expected, is_complete) in [(32, 32, true), (33, 32, false)] {
            let (slow, taken) = numbers(count);
            let stalled = OnDisconnect::Finish.stream(&life, "r", slow);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(taken.load(Ordering::Acquire), count);
            let read: Vec<_> = stalled.collect().await;
            let items = read.iter().filter(|item| item.is_ok()).count();
            assert_eq!((items, read.len() == items), (expected, is_complete), "{count}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_cut_off_at_the_end_of_the_grace_period_breaks() {
        let life = Lifecycle::new();
        let endless = stream::pending::<Result<(), Infallible>>();
        let stream = OnDisconnect::Finish.stream(&life, "r", endless);
        life.begin_drain();
        life.wait_until_stopped(Duration::from_secs(30)).await.unwrap();
        assert!(stream.collect::<Vec<_>>().await[0].is_err());
    }
}
