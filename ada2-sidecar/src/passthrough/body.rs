//! Bodies on their way: passed on frame by frame, given up when they stop coming.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use service::serve::RequestBody;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    CLIENT_TIMEOUT, ENGINE_TIMEOUT, PassThroughError,
    pool::{Pool, Sender},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type FramePoll = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// What a caller sends.
#[derive(Debug)]
pub(super) struct Upload {
    /// `Unitless` where there is none.
    active: Option<ActiveUpload>,
}

#[derive(Debug)]
struct ActiveUpload {
    body: RequestBody,
    idle_timer: IdleTimer,
    /// Bytes that may still come; `Unitless` for no limit.
    remaining_bytes: Option<u64>,
    state: Arc<UploadState>,
}

/// How it goes, for whoever waits for the answer.
#[derive(Debug)]
pub(super) struct UploadState(Mutex<(Instant, Option<UploadError>)>);

/// Why a body did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadError {
    TooLarge,
    Stalled,
    Aborted,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the caller's body: {self:?}")
    }
}

impl std::error::Error for UploadError {}

impl UploadState {
    /// When the body last came on, or ended.
    pub(super) fn last_progress(&self) -> Instant {
        self.lock().0
    }

    pub(super) fn error(&self) -> Option<UploadError> {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, Option<UploadError>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    pub(super) fn empty() -> Self {
        Self { active: None }
    }

    /// The body, and how it goes if there is one. Refused at once if it says itself that it is too large.
    pub(super) fn new(
        body: RequestBody,
        max_bytes: Option<u64>,
    ) -> Result<(Self, Option<Arc<UploadState>>), PassThroughError> {
        if body.is_end_stream() {
            return Ok((Self::empty(), None));
        }
        if let Some(limit) = max_bytes.filter(|limit| body.size_hint().lower() > *limit) {
            return Err(PassThroughError::UploadTooLarge(limit));
        }
        let state = Arc::new(UploadState(Mutex::new((Instant::now(), None))));
        let coming = ActiveUpload {
            body,
            idle_timer: IdleTimer::new(CLIENT_TIMEOUT),
            remaining_bytes: max_bytes,
            state: state.clone(),
        };
        Ok((Self { active: Some(coming) }, Some(state)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
        let Some(active) = &mut self.active else { return Poll::Ready(None) };
        let polled = Pin::new(&mut active.body).poll_frame(context);
        let error = match ready!(active.idle_timer.poll_progress(polled, context)) {
            Err(IdleTimeout) => UploadError::Stalled,
            Ok(Some(Err(_))) => UploadError::Aborted,
            Ok(frame) => {
                active.state.lock().0 = Instant::now();
                let frame = frame.transpose().unwrap_or_default();
                let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
                match active.remaining_bytes.map(|room| room.checked_sub(bytes)) {
                    Some(None) => UploadError::TooLarge,
                    remaining => {
                        active.remaining_bytes = remaining.flatten();
                        return Poll::Ready(frame.map(Ok));
                    }
                }
            }
        };
        active.state.lock().1 = Some(error);
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.active.as_ref().is_none_or(|coming| coming.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.active.as_ref().map_or_else(|| SizeHint::with_exact(0), |coming| coming.body.size_hint())
    }
}

/// What the engine answers. Its connection is kept once it has ended; given up, it takes the connection with it.
#[derive(Debug)]
pub(super) struct ResponseBody {
    body: Incoming,
    idle_timer: IdleTimer,
    ended: bool,
    /// Taken when this is dropped.
    sender: Option<Sender>,
    /// None where the connection may not be used again.
    pool: Option<Arc<Pool>>,
}

impl ResponseBody {
    pub(super) fn new(body: Incoming, sender: Sender, pool: Option<Arc<Pool>>) -> Self {
        Self { body, idle_timer: IdleTimer::new(ENGINE_TIMEOUT), ended: false, sender: Some(sender), pool }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> FramePoll {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let frame = ready!(this.idle_timer.poll_progress(polled, context))
            .map_err(|IdleTimeout| "the engine stalled")?;
        this.ended = frame.is_none();
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let (Some(sender), Some(pool)) = (self.sender.take(), &self.pool)
        {
            pool.put(sender);
        }
    }
}

/// Nothing has come for too long.
struct IdleTimeout;

/// Sees to it that something comes from time to time.
#[derive(Debug)]
struct IdleTimer {
    limit: Duration,
    last: Instant,
    /// Made at the first wait, and set anew only when it rings: most waits are short.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), sleep: None }
    }

    fn poll_progress<T>(
        &mut self,
        polled: Poll<T>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, IdleTimeout>> {
        if let Poll::Ready(ready) = polled {
            self.last = Instant::now();
            return Poll::Ready(Ok(ready));
        }
        let due = self.last + self.limit;
        let timer = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while timer.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(Err(IdleTimeout));
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
