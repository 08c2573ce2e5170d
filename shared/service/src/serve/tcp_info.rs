//! TCP state from the kernel, which std, tokio and socket2 do not expose.

use std::{io, time::Duration};

use nix::{getsockopt_impl, sockopt_impl, sys::socket::getsockopt};
use tokio::{net::TcpStream, time::Instant};

/// A peer that acknowledges nothing for this long is dead. With one [`super::socket::CHECK_INTERVAL`] before and one after
/// it, that is 30 s. Keep-alive probes are sent only while no data is in flight, and the kernel alone would retransmit for a
/// quarter of an hour.
const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(20);
/// The same while the peer's window is closed: it acknowledges only window probes, whose interval grows.
const ZERO_WINDOW_TIMEOUT: Duration = Duration::from_secs(50);

/// What became of the written bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendQueue {
    /// All have arrived.
    Acknowledged,
    /// Some are in flight.
    InFlight(Silence),
    /// The peer's receive window is full.
    WindowClosed(Silence),
}

/// Whether the peer is silent, as far as the system tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// It has acknowledged nothing for this long, and there were retransmissions.
    #[cfg_attr(all(target_os = "macos", not(test)), expect(dead_code, reason = "only Linux reports it"))]
    Since(Duration),
    /// It acknowledges.
    Responsive,
    /// So many bytes are unacknowledged: silent if that does not change.
    #[cfg_attr(all(target_os = "linux", not(test)), expect(dead_code, reason = "Linux reports more"))]
    UnackedBytes(usize),
}

/// Distinguishes a dead peer from a slow one.
#[derive(Debug, Default)]
pub(super) struct DeadPeerDetector {
    /// Since when no check has seen a sign of life, and the last check's result.
    silent_since: Option<(Instant, SendQueue)>,
}

impl DeadPeerDetector {
    /// Whether the peer is dead, judged by all checks so far.
    pub(super) fn is_dead(&mut self, queue: SendQueue, now: Instant) -> bool {
        let (silence, limit) = match queue {
            SendQueue::Acknowledged => (Silence::Responsive, DEAD_PEER_TIMEOUT),
            SendQueue::InFlight(silence) => (silence, DEAD_PEER_TIMEOUT),
            SendQueue::WindowClosed(silence) => (silence, ZERO_WINDOW_TIMEOUT),
        };
        let since = self.silent_since.filter(|(since, last)| match silence {
            Silence::Responsive => false,
            Silence::Since(duration) => duration >= now - *since,
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
        /// tcp(7).
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
        /// Unacknowledged bytes: getsockopt(2).
        Unacknowledged,
        GetOnly,
        libc::SOL_SOCKET,
        libc::SO_NWRITE,
        i32
    );
    sockopt_impl!(
        /// netinet/tcp.h.
        TcpConnectionInfo,
        GetOnly,
        libc::IPPROTO_TCP,
        libc::TCP_CONNECTION_INFO,
        TcpConnectionInfoHead
    );

    /// The first fields of `struct tcp_connection_info`; the kernel copies as much as fits. libc's struct differs in length:
    /// it has integers in place of bit fields.
    #[derive(Debug, Clone, Copy)]
    #[repr(C)]
    #[expect(unreachable_pub, reason = "as public as the socket option that returns it")]
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

    #[cfg(target_os = "macos")]
    pub(super) fn of(tcp: &TcpStream) -> io::Result<Self> {
        let unacked = usize::try_from(getsockopt(tcp, options::Unacknowledged)?).unwrap_or_default();
        let tcp_info = getsockopt(tcp, options::TcpConnectionInfo)?;
        Ok(match unacked {
            0 => Self::Acknowledged,
            // With a window smaller than a segment nothing is sent either.
            _ if tcp_info.snd_wnd < tcp_info.maxseg => Self::WindowClosed(Silence::Responsive),
            _ => Self::InFlight(Silence::UnackedBytes(unacked)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds after which the peer is dead, checked every five seconds with these results.
    fn dead_after(queue_at: impl Fn(u64) -> SendQueue) -> Option<u64> {
        let (mut dead_peer, start) = (DeadPeerDetector::default(), Instant::now());
        let is_dead = |at: &u64| dead_peer.is_dead(queue_at(*at), start + Duration::from_secs(*at));
        (5..200).step_by(5).find(is_dead)
    }

    #[test]
    fn a_silent_peer_is_dead_within_30_s_and_within_60_with_a_closed_window() {
        let silent = |at| Silence::Since(Duration::from_secs(at));
        assert_eq!(dead_after(|at| SendQueue::InFlight(silent(at))), Some(25));
        assert_eq!(dead_after(|_| SendQueue::InFlight(Silence::UnackedBytes(700))), Some(25));
        assert_eq!(dead_after(|at| SendQueue::WindowClosed(silent(at))), Some(55));
    }

    #[test]
    fn a_peer_with_signs_of_life_is_not_dead() {
        let silent = |at| Silence::Since(Duration::from_secs(at));
        assert_eq!(dead_after(|_| SendQueue::Acknowledged), None);
        assert_eq!(dead_after(|_| SendQueue::InFlight(Silence::Responsive)), None, "no retransmissions");
        assert_eq!(dead_after(|at| SendQueue::InFlight(silent(at % 15))), None, "a lossy link");
        assert_eq!(
            dead_after(|at| SendQueue::InFlight(Silence::UnackedBytes(usize::try_from(at / 10).unwrap()))),
            None
        );
        assert_eq!(dead_after(|at| SendQueue::WindowClosed(silent(at % 40))), None, "it acknowledges probes");
        let idle_before = Silence::Since(Duration::from_hours(1));
        assert_eq!(
            dead_after(|at| SendQueue::InFlight(if at < 15 { idle_before } else { Silence::Responsive })),
            None
        );
    }
}
