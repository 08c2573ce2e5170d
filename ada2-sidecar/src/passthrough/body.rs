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
    CALLER_PATIENCE, ENGINE_PATIENCE, PassFault,
    pool::{Pool, Sender},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// What a caller sends.
#[derive(Debug)]
pub(super) struct Upload {
    /// `None` where there is none.
    coming: Option<Coming>,
}

#[derive(Debug)]
struct Coming {
    body: RequestBody,
    pace: Pace,
    /// Bytes that may still come; `None` for no limit.
    room: Option<u64>,
    state: Arc<UploadState>,
}

/// How it goes, for whoever waits for the answer.
#[derive(Debug)]
pub(super) struct UploadState(Mutex<(Instant, Option<UploadFault>)>);

/// Why a body did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadFault {
    TooLarge,
    Stalled,
    BrokenOff,
}

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the caller's body: {self:?}")
    }
}

impl std::error::Error for UploadFault {}

impl UploadState {
    /// When the body last came on, or ended.
    pub(super) fn last_progress(&self) -> Instant {
        self.lock().0
    }

    pub(super) fn fault(&self) -> Option<UploadFault> {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, Option<UploadFault>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    pub(super) fn empty() -> Self {
        Self { coming: None }
    }

    /// The body, and how it goes if there is one. Refused at once if it says itself that it is too large.
    pub(super) fn new(
        body: RequestBody,
        room: Option<u64>,
    ) -> Result<(Self, Option<Arc<UploadState>>), PassFault> {
        if body.is_end_stream() {
            return Ok((Self::empty(), None));
        }
        if let Some(limit) = room.filter(|limit| body.size_hint().lower() > *limit) {
            return Err(PassFault::TooLarge(limit));
        }
        let state = Arc::new(UploadState(Mutex::new((Instant::now(), None))));
        let coming = Coming { body, pace: Pace::new(CALLER_PATIENCE), room, state: state.clone() };
        Ok((Self { coming: Some(coming) }, Some(state)))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let Some(coming) = &mut self.coming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut coming.body).poll_frame(context);
        let fault = match ready!(coming.pace.watch(polled, context)) {
            Err(Stalled) => UploadFault::Stalled,
            Ok(Some(Err(_))) => UploadFault::BrokenOff,
            Ok(frame) => {
                coming.state.lock().0 = Instant::now();
                let frame = frame.transpose().unwrap_or_default();
                let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
                match coming.room.map(|room| room.checked_sub(bytes)) {
                    Some(None) => UploadFault::TooLarge,
                    left => {
                        coming.room = left.flatten();
                        return Poll::Ready(frame.map(Ok));
                    }
                }
            }
        };
        coming.state.lock().1 = Some(fault);
        Poll::Ready(Some(Err(fault.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.coming.as_ref().is_none_or(|coming| coming.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.coming.as_ref().map_or_else(|| SizeHint::with_exact(0), |coming| coming.body.size_hint())
    }
}

/// What the engine answers. Its connection is kept once it has ended; given up, it takes the connection with it.
#[derive(Debug)]
pub(super) struct Download {
    body: Incoming,
    pace: Pace,
    ended: bool,
    /// Taken when this is dropped.
    sender: Option<Sender>,
    /// None where the connection may not be used again.
    pool: Option<Arc<Pool>>,
}

impl Download {
    pub(super) fn new(body: Incoming, sender: Sender, pool: Option<Arc<Pool>>) -> Self {
        Self { body, pace: Pace::new(ENGINE_PATIENCE), ended: false, sender: Some(sender), pool }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let frame = ready!(this.pace.watch(polled, context)).map_err(|Stalled| "the engine stalled")?;
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

impl Drop for Download {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
            && let (Some(sender), Some(pool)) = (self.sender.take(), &self.pool)
        {
            pool.keep(sender);
        }
    }
}

/// Nothing has come for too long.
struct Stalled;

/// Sees to it that something comes from time to time.
#[derive(Debug)]
struct Pace {
    limit: Duration,
    last: Instant,
    /// Made at the first wait, and set anew only when it rings: most waits are short.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), timer: None }
    }

    fn watch<T>(&mut self, polled: Poll<T>, context: &mut Context<'_>) -> Poll<Result<T, Stalled>> {
        if let Poll::Ready(come) = polled {
            self.last = Instant::now();
            return Poll::Ready(Ok(come));
        }
        let due = self.last + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while timer.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(Err(Stalled));
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
