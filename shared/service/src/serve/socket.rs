//! A client's connection: given up when the client takes nothing or has vanished, and not closed before what it still
//! sends was read.

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

/// How often the kernel is asked what became of bytes that it took from us.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// What is read at a time of bytes that nobody wants.
const DISCARD_BUFFER: usize = 16 << 10;

/// The connection.
#[derive(Debug)]
pub(super) struct ClientStream {
    tcp: TcpStream,
    state: Arc<ConnectionState>,
    /// A client that takes nothing for this long is gone.
    stall: Duration,
    /// Since when the kernel takes nothing from us.
    blocked_since: Option<Instant>,
    retry_ticker: Ticker,
    /// Something was written whose arrival was not seen yet.
    unacknowledged: bool,
    dead_peer: DeadPeerDetector,
    check_ticker: Ticker,
    /// The wait for a head in which bytes came last.
    last_heard_wait: Option<u64>,
    lingering: Option<Lingering>,
}

/// Rings every [`CHECK_INTERVAL`] while somebody waits for it. Set anew only when it has rung: most waits are far shorter.
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

/// Closed by us, and still read.
#[derive(Debug)]
struct Lingering {
    left: u64,
    deadline: Pin<Box<Sleep>>,
}

impl ClientStream {
    pub(super) fn new(tcp: TcpStream, stall: Duration, state: Arc<ConnectionState>) -> Self {
        Self {
            tcp,
            state,
            stall,
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

    /// The kernel reports room only when much of its buffer, megabytes on a fast connection, has been sent, which a slow
    /// reader may need minutes for. Offered a piece, it takes it as soon as anything has left: that is asked from time to time.
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
            Ok(taken) if taken > 0 => {
                self.on_written();
                return Poll::Ready(Ok(taken));
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            _ => {}
        }
        // One look later than the limit: on loopback the window opens by 64 KiB, which at 1 KiB/s takes 64 s.
        if since.elapsed() >= self.stall + CHECK_INTERVAL {
            return Poll::Ready(Err(timed_out("the client takes nothing")));
        }
        Poll::Pending
    }

    /// Looks from time to time whether what was written arrives.
    fn check_peer(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.unacknowledged || !self.check_ticker.poll_tick(context) {
            return Ok(());
        }
        let queue = SendQueue::of(&self.tcp)?;
        self.unacknowledged = queue != SendQueue::Acknowledged;
        if self.dead_peer.is_dead(queue, Instant::now()) {
            return Err(timed_out("nothing that was sent arrives any more"));
        }
        Ok(())
    }

    /// Whether the client was sending something that was not read as a request: a head that is too long or nonsense.
    fn has_unread_head(&self) -> bool {
        self.last_heard_wait.is_some() && self.last_heard_wait == self.state.head_wait()
    }
}

fn timed_out(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

/// An answer that broke off is not ended as a whole one is: the connection is reset.
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
                let reading_on = this.state.discarding.load(Ordering::Acquire);
                this.last_heard_wait = this.state.head_wait().filter(|_| !reading_on);
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
        if let Poll::Ready(done) = Pin::new(&mut this.tcp).poll_write(context, bytes) {
            this.on_written();
            return Poll::Ready(done);
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
        if let Poll::Ready(done) = Pin::new(&mut this.tcp).poll_write_vectored(context, bytes) {
            this.on_written();
            return Poll::Ready(done);
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
            // Only what was written whole is ended this way.
            this.state.response_incomplete.store(false, Ordering::Release);
            ready!(Pin::new(&mut this.tcp).poll_shutdown(context))?;
            if !this.has_unread_head() {
                return Poll::Ready(Ok(()));
            }
            let end = Box::pin(sleep_until(Instant::now() + LINGER_TIMEOUT));
            this.lingering = Some(Lingering { left: MAX_LINGER_BYTES, deadline: end });
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
            match lingering.left.checked_sub(received) {
                Some(left) if read.is_ok() && received > 0 => lingering.left = left,
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}
