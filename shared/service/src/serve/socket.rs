//! A client's TCP stream: fails if the client stops reading or has vanished, and closes only after what it still sends was
//! discarded.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    LINGER_TIMEOUT, MAX_LINGER_BYTES,
    connection_limiter::ConnectionState,
    tcp_info::{DeadPeerDetector, SendQueue},
};

/// How often the kernel is asked about bytes in its send buffer.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const DISCARD_BUFFER: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    state: Arc<ConnectionState>,
    stall_timeout: Duration,
    /// Since when the send buffer is full.
    blocked_since: Option<Instant>,
    retry_ticker: Ticker,
    /// Something was written that is not known to have arrived.
    unacknowledged: bool,
    dead_peer: DeadPeerDetector,
    check_ticker: Ticker,
    /// The wait for a head during which bytes arrived last.
    last_heard_wait: Option<u64>,
    lingering: Option<Lingering>,
}

/// Ticks every [`CHECK_INTERVAL`] while somebody waits for it. Reset only after a tick: most waits are far shorter.
#[derive(Debug, Default)]
struct Ticker(Option<Pin<Box<Sleep>>>);

impl Ticker {
    fn poll_tick(&mut self, context: &mut Context<'_>) -> bool {
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + CHECK_INTERVAL)));
        let ticked = timer.as_mut().poll(context).is_ready();
        if ticked {
            timer.as_mut().reset(Instant::now() + CHECK_INTERVAL);
            let _ = timer.as_mut().poll(context);
        }
        ticked
    }
}

/// Our side is closed; what the client still sends is discarded.
#[derive(Debug)]
struct Lingering {
    remaining: u64,
    deadline: Pin<Box<Sleep>>,
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, stall_timeout: Duration, state: Arc<ConnectionState>) -> Self {
        Self {
            tcp,
            state,
            stall_timeout,
            blocked_since: None,
            retry_ticker: Ticker::default(),
            unacknowledged: false,
            dead_peer: DeadPeerDetector::default(),
            check_ticker: Ticker::default(),
            last_heard_wait: None,
            lingering: None,
        }
    }

    fn on_written(&mut self) {
        self.unacknowledged = true;
        if self.blocked_since.take().is_some() {
            self.state.writing.store(false, Ordering::Release);
        }
    }

    /// The kernel reports a writable socket only when much of its buffer (megabytes on a fast connection) was sent, for which
    /// a slow reader may need minutes. But a write succeeds as soon as anything was sent, so one is tried at each tick.
    fn poll_blocked(
        &mut self,
        context: &mut Context<'_>,
        offer: impl FnOnce(SockRef<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let since = *self.blocked_since.get_or_insert_with(|| {
            self.state.writing.store(true, Ordering::Release);
            Instant::now()
        });
        if !self.retry_ticker.poll_tick(context) {
            return Poll::Pending;
        }
        match offer(SockRef::from(&self.tcp)) {
            Ok(written) if written > 0 => {
                self.on_written();
                return Poll::Ready(Ok(written));
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            _ => {}
        }
        // One tick more than the limit: on loopback the window opens by 64 KiB, which takes 64 s at 1 KiB/s.
        if since.elapsed() >= self.stall_timeout + CHECK_INTERVAL {
            return Poll::Ready(Err(timed_out("the client stopped reading")));
        }
        Poll::Pending
    }

    /// Checks at each tick whether what was written arrives.
    fn check_peer(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.unacknowledged || !self.check_ticker.poll_tick(context) {
            return Ok(());
        }
        let queue = SendQueue::of(&self.tcp)?;
        self.unacknowledged = queue != SendQueue::Acknowledged;
        if self.dead_peer.is_dead(queue, Instant::now()) {
            return Err(timed_out("the client no longer acknowledges data"));
        }
        Ok(())
    }

    /// Whether the client was sending a head that was refused as too long or malformed.
    fn has_unread_head(&self) -> bool {
        self.last_heard_wait.is_some() && self.last_heard_wait == self.state.head_wait()
    }
}

fn timed_out(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// Resets the connection if a close-delimited response is incomplete: a normal close would make it look complete.
impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.state.response_incomplete.load(Ordering::Acquire) {
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if Pin::new(&mut this.tcp).poll_read(context, buffer)?.is_ready() {
            if buffer.filled().len() > before {
                let discarding = this.state.discarding.load(Ordering::Acquire);
                this.last_heard_wait = this.state.head_wait().filter(|_| !discarding);
            }
            return Poll::Ready(Ok(()));
        }
        this.check_peer(context)?;
        Poll::Pending
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.tcp).poll_write(context, bytes) {
            this.on_written();
            return Poll::Ready(result);
        }
        this.check_peer(context)?;
        this.poll_blocked(context, |socket| socket.send(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.tcp).poll_write_vectored(context, bytes) {
            this.on_written();
            return Poll::Ready(result);
        }
        this.check_peer(context)?;
        this.poll_blocked(context, |socket| socket.send_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            // hyper shuts down only after a complete response.
            this.state.response_incomplete.store(false, Ordering::Release);
            ready!(Pin::new(&mut this.tcp).poll_shutdown(context))?;
            if !this.has_unread_head() {
                return Poll::Ready(Ok(()));
            }
            let deadline = Box::pin(sleep_until(Instant::now() + LINGER_TIMEOUT));
            this.lingering = Some(Lingering { remaining: MAX_LINGER_BYTES, deadline });
        }
        let Some(lingering) = &mut this.lingering else { return Poll::Ready(Ok(())) };
        let mut scratch = [0; DISCARD_BUFFER];
        loop {
            if this.state.shutting_down.load(Ordering::Acquire)
                || lingering.deadline.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut this.tcp).poll_read(context, &mut buffer));
            let received = buffer.filled().len() as u64;
            match lingering.remaining.checked_sub(received) {
                Some(rest) if read.is_ok() && received > 0 => lingering.remaining = rest,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
