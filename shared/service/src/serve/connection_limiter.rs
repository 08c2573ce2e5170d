//! Limits the number of connections, and chooses which one to evict for another.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hyper::body::{Body, Incoming};
use tokio::sync::Notify;

use super::{MAX_LINGER_BYTES, ServerLimits};

/// Numbers every wait for a client, so that the oldest is known without a clock.
static NEXT_WAIT: AtomicU64 = AtomicU64::new(1);

/// Limits connections in total and per address.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimiter(Arc<LimiterInner>);

#[derive(Debug)]
struct LimiterInner {
    open: Mutex<OpenConnections>,
    max_connections: usize,
    max_per_address: usize,
}

#[derive(Debug, Default)]
struct OpenConnections {
    by_address: HashMap<IpAddr, usize>,
    connections: HashMap<u64, (IpAddr, Arc<ConnectionState>)>,
    next_id: u64,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        Self(Arc::new(LimiterInner {
            open: Mutex::default(),
            max_connections: limits.max_connections,
            max_per_address: limits.max_per_address,
        }))
    }

    /// A permit. At the limit, the connection that has waited longest for its client is evicted: one of the same address if
    /// that has too many, else any. `None` if all are busy.
    pub(super) fn try_acquire(&self, address: IpAddr) -> Option<Arc<ConnectionPermit>> {
        let address = address.to_canonical();
        let mut open = self.lock();
        if open.by_address.get(&address).copied().unwrap_or(0) >= self.0.max_per_address
            && !open.evict(Some(address))
        {
            return None;
        }
        if open.connections.len() >= self.0.max_connections && !open.evict(None) {
            return None;
        }
        let id = open.next_id;
        open.next_id += 1;
        *open.by_address.entry(address).or_default() += 1;
        let state = Arc::new(ConnectionState::default());
        state.wait_for_head();
        open.connections.insert(id, (address, state.clone()));
        Some(Arc::new(ConnectionPermit { limiter: self.clone(), id, state }))
    }

    /// Evicts the connection that has waited longest for its client, if any waits: its file descriptor is needed.
    pub(super) fn evict_one(&self) -> bool {
        self.lock().evict(None)
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    /// Evicts a connection that waits for a head, or one that waits for a body if there are more of those: otherwise clients
    /// with endless bodies could fill nearly all permits and have every new connection closed before its head arrives. The
    /// evicted one no longer counts, and its task ends soon.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let (mut heads, mut bodies) = (Vec::new(), Vec::new());
        for (id, (peer, state)) in &self.connections {
            if address.is_some_and(|address| *peer != address) || state.writing.load(Ordering::Acquire) {
                continue;
            }
            heads.extend(state.head_wait().map(|since| (since, *id)));
            bodies.extend(state.body_wait().map(|since| (since, *id)));
        }
        let waiting = if bodies.len() > heads.len() { bodies } else { heads };
        let Some((_, id)) = waiting.into_iter().min() else { return false };
        if let Some(state) = self.remove(id) {
            state.evicted.store(true, Ordering::Release);
            state.notify.notify_one();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Arc<ConnectionState>> {
        let (address, state) = self.connections.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some(state)
    }
}

/// One connection's permit, released when the last holder drops it. In every request's extensions, so that a tunnel that
/// outlives its HTTP connection still limiter.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: ConnectionLimiter,
    id: u64,
    state: Arc<ConnectionState>,
}

impl ConnectionPermit {
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }

    pub(super) fn wait_for_head(&self) {
        self.state.wait_for_head();
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.lock().remove(self.id);
    }
}

/// A connection's state: written by its task, read by the limiter.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// The number of its wait for a head; 0 while it does not wait.
    head_wait_seq: AtomicU64,
    /// The number of its wait for more of a body, new for each chunk; 0 while it does not wait.
    body_wait_seq: AtomicU64,
    heads_received: AtomicU64,
    /// The response has begun: the rest of the request body is only discarded.
    response_started: AtomicBool,
    /// A write is blocked.
    pub(super) writing: AtomicBool,
    /// A close-delimited response is being written: a close now would make it look complete.
    pub(super) response_incomplete: AtomicBool,
    evicted: AtomicBool,
    /// The service drains.
    pub(super) shutting_down: AtomicBool,
    /// The client waited for `100 Continue` and got the response instead, so it does not send the body.
    pub(super) body_withheld: AtomicBool,
    /// A request body had trailers. hyper takes all up to the next empty line that ends in CR LF for trailers, where other
    /// servers may see an end of the body, and a request behind it.
    received_trailers: AtomicBool,
    /// A request body has neither ended nor been given up.
    body_open: AtomicBool,
    body_ended: Notify,
    /// The rest of an answered request is being discarded, or was.
    pub(super) discarding: AtomicBool,
    /// The rest of a body that the handler did not read.
    unread_body: Mutex<Option<Incoming>>,
    /// Notified when the connection is evicted, and when `unread_body` is set.
    pub(super) notify: Notify,
}

impl ConnectionState {
    fn wait_for_head(&self) {
        self.head_wait_seq.store(NEXT_WAIT.fetch_add(1, Ordering::Relaxed), Ordering::Release);
    }

    /// Waits for more of the body, unless the response has begun.
    pub(super) fn wait_for_body(&self) {
        if self.body_wait_seq.load(Ordering::Acquire) == 0 && !self.response_started.load(Ordering::Acquire) {
            self.body_wait_seq.store(NEXT_WAIT.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        }
    }

    /// A chunk of the body has arrived, or nobody reads on.
    pub(super) fn body_received(&self) {
        self.body_wait_seq.store(0, Ordering::Release);
    }

    /// The response is about to be written.
    pub(super) fn start_response(&self) {
        self.response_started.store(true, Ordering::Release);
        self.body_received();
    }

    /// A complete head has arrived.
    pub(super) fn head_received(&self) {
        self.head_wait_seq.store(0, Ordering::Release);
        self.heads_received.fetch_add(1, Ordering::AcqRel);
        self.response_started.store(false, Ordering::Release);
        self.discarding.store(false, Ordering::Release);
    }

    pub(super) fn heads_received(&self) -> u64 {
        self.heads_received.load(Ordering::Acquire)
    }

    /// The number of the current wait for a head.
    pub(super) fn head_wait(&self) -> Option<u64> {
        Some(self.head_wait_seq.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// The number of the current wait for more of a body.
    fn body_wait(&self) -> Option<u64> {
        Some(self.body_wait_seq.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// Whether it waits for a head and has nothing to write.
    pub(super) fn is_idle(&self) -> bool {
        self.head_wait().is_some() && !self.writing.load(Ordering::Acquire)
    }

    pub(super) fn take_unread_body(&self) -> Option<Incoming> {
        self.lock_unread_body().take()
    }

    pub(super) fn set_unread_body(&self, body: Incoming) {
        self.discarding.store(true, Ordering::Release);
        *self.lock_unread_body() = Some(body);
        self.notify.notify_one();
    }

    fn lock_unread_body(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.unread_body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn body_began(&self) {
        self.body_open.store(true, Ordering::Release);
    }

    pub(super) fn body_ended(&self) {
        self.body_open.store(false, Ordering::Release);
        self.body_ended.notify_one();
    }

    /// hyper may pass on the next request before the end of a body has been read. That takes a moment.
    pub(super) async fn until_body_ended(&self) {
        while self.body_open.load(Ordering::Acquire) {
            self.body_ended.notified().await;
        }
    }

    pub(super) fn trailers_received(&self) {
        self.received_trailers.store(true, Ordering::Release);
    }

    pub(super) fn received_trailers(&self) -> bool {
        self.received_trailers.load(Ordering::Acquire)
    }

    /// Whether the connection ends with the current response: the client does not send the announced body, or more of it
    /// than is discarded, or has sent trailers.
    pub(super) fn closes_after_response(&self) -> bool {
        let exceeds_limit =
            self.lock_unread_body().as_ref().is_some_and(|body| body.size_hint().lower() > MAX_LINGER_BYTES);
        self.body_withheld.swap(false, Ordering::AcqRel) || exceeds_limit || self.received_trailers()
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn limiter(connections: usize, per_address: usize) -> ConnectionLimiter {
        ConnectionLimiter::new(&ServerLimits {
            max_connections: connections,
            max_per_address: per_address,
            ..ServerLimits::default()
        })
    }

    fn evicted(permits: &[Arc<ConnectionPermit>]) -> Vec<bool> {
        permits.iter().map(|permit| permit.state.is_evicted()).collect()
    }

    #[test]
    fn the_longest_wait_for_a_head_is_evicted() {
        let limiter = limiter(3, 9);
        let permits =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| limiter.try_acquire(address(text)).unwrap());
        permits[0].state.head_received();
        permits[0].wait_for_head(); // between two requests: the youngest wait of all
        let fourth = limiter.try_acquire(address("10.0.0.4")).unwrap();
        assert_eq!(evicted(&permits), [false, true, false]);
        fourth.state.head_received();
        let _fifth = limiter.try_acquire(address("10.0.0.5")).unwrap();
        assert_eq!(evicted(&permits), [false, true, true]);
        drop(permits);
        assert!(
            limiter.try_acquire(address("10.0.0.6")).is_some(),
            "an evicted connection is not released twice"
        );
    }

    #[test]
    fn an_address_evicts_its_own_connection_and_never_a_busy_or_writing_one() {
        let limiter = limiter(9, 2);
        let (here, there) = (address("10.0.0.1"), address("10.0.0.2"));
        let other = limiter.try_acquire(there).unwrap();
        let permits = [limiter.try_acquire(here).unwrap(), limiter.try_acquire(here).unwrap()];
        permits[0].state.head_received();
        permits[1].state.writing.store(true, Ordering::Release);
        assert!(limiter.try_acquire(here).is_none());
        assert!(!other.state.is_evicted(), "another address has too many");
        permits[1].state.writing.store(false, Ordering::Release);
        assert!(limiter.try_acquire(here).is_some());
        assert_eq!(evicted(&permits), [false, true]);
    }

    /// Four requests, each waiting for a body.
    fn uploads(limiter: &ConnectionLimiter) -> Vec<Arc<ConnectionPermit>> {
        let permits = (0..4).map(|_| limiter.try_acquire(address("10.0.0.1")).unwrap()).collect::<Vec<_>>();
        for permit in &permits {
            permit.state.head_received();
            permit.state.wait_for_body();
        }
        permits
    }

    #[test]
    fn among_bodies_the_oldest_wait_for_a_chunk_is_evicted() {
        let limiter = limiter(4, 9);
        let permits = uploads(&limiter);
        permits[0].state.body_received();
        permits[0].state.wait_for_body(); // the youngest wait of all
        permits[1].state.body_received(); // complete
        permits[2].state.start_response();
        permits[2].state.wait_for_body(); // discarded while the response is written
        let newcomer = limiter.try_acquire(address("10.0.0.2")).unwrap();
        assert_eq!(evicted(&permits), [false, false, false, true]);
        newcomer.state.head_received();
        permits[0].state.writing.store(true, Ordering::Release);
        assert!(limiter.try_acquire(address("10.0.0.3")).is_none(), "the others are busy");
    }

    #[test]
    fn a_new_connection_among_endless_bodies_is_not_evicted() {
        let limiter = limiter(4, 9);
        let permits = uploads(&limiter);
        let newcomers = ["10.0.0.2", "10.0.0.3"].map(|text| limiter.try_acquire(address(text)).unwrap());
        assert_eq!(evicted(&permits), [true, true, false, false]);
        assert_eq!(evicted(&newcomers), [false, false]);
        let _third = limiter.try_acquire(address("10.0.0.4")).unwrap();
        assert_eq!(
            (evicted(&permits[2..]), evicted(&newcomers)),
            (vec![false; 2], vec![true, false]),
            "as many heads as bodies"
        );
    }
}
