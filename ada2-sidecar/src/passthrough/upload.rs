//! The client's body on its way to the engine, passed on frame by frame and given up when it stalls.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use service::serve::RequestBody;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{CLIENT_TIMEOUT, PassThroughError};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type FramePoll = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

#[derive(Debug)]
pub(super) struct Upload {
    /// None for a request without a body.
    active: Option<ActiveUpload>,
}

#[derive(Debug)]
struct ActiveUpload {
    body: RequestBody,
    idle_timer: IdleTimer,
    /// Bytes that may still come; none for no limit.
    remaining_bytes: Option<u64>,
    state: Arc<UploadState>,
}

/// How the upload is going, for the task that waits for the response.
#[derive(Debug)]
pub(super) struct UploadState(Mutex<(Instant, Option<UploadError>)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadError {
    TooLarge,
    Stalled,
    Aborted,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upload failed: {self:?}")
    }
}

impl std::error::Error for UploadError {}

impl UploadState {
    /// When the last bytes came, or the body ended.
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

    /// Fails at once if the body announces that it is too large. There is no state for a request without a body.
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
        let active = ActiveUpload {
            body,
            idle_timer: IdleTimer::new(CLIENT_TIMEOUT),
            remaining_bytes: max_bytes,
            state: state.clone(),
        };
        Ok((Self { active: Some(active) }, Some(state)))
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
                match active.remaining_bytes.map(|remaining| remaining.checked_sub(bytes)) {
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
        self.active.as_ref().is_none_or(|active| active.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.active.as_ref().map_or_else(|| SizeHint::with_exact(0), |active| active.body.size_hint())
    }
}

pub(super) struct IdleTimeout;

/// Fails a body that makes no progress for `limit`.
#[derive(Debug)]
pub(super) struct IdleTimer {
    limit: Duration,
    last_progress: Instant,
    /// Created at the first wait and reset only when it fires, because most waits are short.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, last_progress: Instant::now(), sleep: None }
    }

    pub(super) fn poll_progress<T>(
        &mut self,
        polled: Poll<T>,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, IdleTimeout>> {
        if let Poll::Ready(ready) = polled {
            self.last_progress = Instant::now();
            return Poll::Ready(Ok(ready));
        }
        let due = self.last_progress + self.limit;
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
