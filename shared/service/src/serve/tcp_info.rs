//! What the kernel knows of bytes that it took from us. Neither std nor tokio nor socket2 can ask it.

use std::{io, time::Duration};

use nix::{getsockopt_impl, sockopt_impl, sys::socket::getsockopt};
use tokio::{net::TcpStream, time::Instant};

/// A peer that acknowledges nothing for this long, as far as a look every [`super::socket::CHECK_INTERVAL`] can tell, has vanished: with a look before
/// and a look after it, that is 30 s. Keep-alive probes find one only while nothing is on its way, and the kernel alone
/// would send again for a quarter of an hour.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// The same where the peer's window is closed: there is only the answer to a probe to wait for, and probes come ever more
/// rarely.
const ZERO_WINDOW_TIMEOUT: Duration = Duration::from_secs(50);

/// What became of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendQueue {
    /// All of it has arrived.
    Acknowledged,
    /// Some of it is on its way, and this is how the peer has been silent.
    InFlight(Silence),
    /// The peer has no room for it.
    WindowClosed(Silence),
}

/// How it is known that a peer is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// This long since it acknowledged anything; it was sent something again in the meantime.
    #[cfg_attr(all(target_os = "macos", not(test)), expect(dead_code, reason = "Linux alone tells it"))]
    Since(Duration),
    /// It answers.
    Responsive,
    /// So many bytes have not arrived: silent, if it does not change.
    #[cfg_attr(all(target_os = "linux", not(test)), expect(dead_code, reason = "Linux tells more"))]
    UnackedBytes(usize),
}

/// Tells a peer that vanished from one that is slow.
#[derive(Debug, Default)]
pub(super) struct DeadPeerDetector {
    /// Since when no look has seen a sign of life, and the last one's finding.
    silent_since: Option<(Instant, SendQueue)>,
}

impl DeadPeerDetector {
    /// Whether the peer is gone, from what was seen up to now.
    pub(super) fn is_dead(&mut self, queue: SendQueue, now: Instant) -> bool {
        let (silence, limit) = match queue {
            SendQueue::Acknowledged => (Silence::Responsive, DEAD_PEER_TIMEOUT),
            SendQueue::InFlight(silence) => (silence, DEAD_PEER_TIMEOUT),
            SendQueue::WindowClosed(silence) => (silence, ZERO_WINDOW_TIMEOUT),
        };
        let since = self.silent_since.filter(|(since, last)| match silence {
            Silence::Responsive => false,
            Silence::Since(quiet) => quiet >= now - *since,
            Silence::UnackedBytes(_) => *last == queue,
        });
        let since = since.map_or(now, |(since, _)| since);
        self.silent_since = (silence != Silence::Responsive).then_some((since, queue));
        self.silent_since.is_some() && now - since >= limit
    }
}

#[cfg(target_os = "linux")]
mod options {
    use super::{getsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// TCP's own account of a connection: tcp(7).
        TcpInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_INFO,
        libc::tcp_info
    );
}

#[cfg(target_os = "macos")]
mod options {
    use super::{getsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Bytes that were not acknowledged yet: getsockopt(2).
        Unacknowledged,
        GetOnly,
        libc::SOL_SOCKET,
        libc::SO_NWRITE,
        i32
    );
    sockopt_impl!(
        /// TCP's own account of a connection: netinet/tcp.h.
        TcpConnectionInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_CONNECTION_INFO,
        TcpConnectionInfoHead
    );

    /// How `struct tcp_connection_info` begins; the kernel copies as much as there is room for. libc's own has words where
    /// Apple's has bits, and so another length.
    #[derive(Debug, Clone, Copy)]
    #[repr(C)]
    #[expect(unreachable_pub, reason = "as public as the option that gives it")]
    pub struct TcpConnectionInfoHead {
        state_scales_pad: [u8; 4],
        options: u32,
        flags: u32,
        rto: u32,
        pub(super) maxseg: u32,
        snd_ssthresh: u32,
        snd_cwnd: u32,
        pub(super) snd_wnd: u32,
    }
}

impl SendQueue {
    /// As it is now.
    #[cfg(target_os = "linux")]
    pub(super) fn of(tcp: &TcpStream) -> io::Result<Self> {
        let tcp_info = getsockopt(tcp, options::TcpInfo)?;
        let silence = Silence::Since(Duration::from_millis(tcp_info.tcpi_last_ack_recv.into()));
        Ok(if tcp_info.tcpi_unacked > 0 {
            Self::InFlight(if tcp_info.tcpi_retransmits > 0 { silence } else { Silence::Responsive })
        } else if tcp_info.tcpi_probes > 0 {
            Self::WindowClosed(silence)
        } else {
            Self::Acknowledged
        })
    }

    /// As it is now.
    #[cfg(target_os = "macos")]
    pub(super) fn of(tcp: &TcpStream) -> io::Result<Self> {
        let unacked = usize::try_from(getsockopt(tcp, options::Unacknowledged)?).unwrap_or_default();
        let tcp_info = getsockopt(tcp, options::TcpConnectionInfo)?;
        Ok(match unacked {
            0 => Self::Acknowledged,
            // With less room than a segment needs nothing is sent either.
            _ if tcp_info.snd_wnd < tcp_info.maxseg => Self::WindowClosed(Silence::Responsive),
            _ => Self::InFlight(Silence::UnackedBytes(unacked)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds after which the peer is given up, looked at every five, with what was seen each time.
    fn given_up(seen: impl Fn(u64) -> SendQueue) -> Option<u64> {
        let (mut dead_peer, start) = (DeadPeerDetector::default(), Instant::now());
        let gone = |at: &u64| dead_peer.is_dead(seen(*at), start + Duration::from_secs(*at));
        (5..200).step_by(5).find(gone)
    }

    #[test]
    fn a_peer_that_answers_nothing_is_gone_within_30_s_and_within_60_where_its_window_is_closed() {
        let silent = |at| Silence::Since(Duration::from_secs(at));
        assert_eq!(given_up(|at| SendQueue::InFlight(silent(at))), Some(25));
        assert_eq!(given_up(|_| SendQueue::InFlight(Silence::UnackedBytes(700))), Some(25));
        assert_eq!(given_up(|at| SendQueue::WindowClosed(silent(at))), Some(55));
    }

    #[test]
    fn a_peer_that_gives_a_sign_of_life_stays() {
        let silent = |at| Silence::Since(Duration::from_secs(at));
        assert_eq!(given_up(|_| SendQueue::Acknowledged), None);
        assert_eq!(given_up(|_| SendQueue::InFlight(Silence::Responsive)), None, "nothing was sent twice");
        assert_eq!(given_up(|at| SendQueue::InFlight(silent(at % 15))), None, "a bad line");
        assert_eq!(
            given_up(|at| SendQueue::InFlight(Silence::UnackedBytes(usize::try_from(at / 10).unwrap()))),
            None
        );
        assert_eq!(given_up(|at| SendQueue::WindowClosed(silent(at % 40))), None, "it answers probes");
        let idle_before = Silence::Since(Duration::from_hours(1));
        assert_eq!(
            given_up(|at| SendQueue::InFlight(if at < 15 { idle_before } else { Silence::Responsive })),
            None
        );
    }
}
