//! How many connections there are, and which of them goes when there is no room for another.

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

/// Numbers every wait for bytes of a client, so that the oldest is known without a clock.
static NEXT_WAIT: AtomicU64 = AtomicU64::new(1);

/// How many connections there are, in all and per address.
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

    /// A place. Where there is none, the connection whose client has owed us bytes for longest makes room: of the same
    /// address if that has too many, else of any. None if all are at work.
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

    /// Ends the connection whose client has owed us bytes for longest, if there is one: its descriptor is needed.
    pub(super) fn evict_one(&self) -> bool {
        self.lock().evict(None)
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenConnections {
    /// It no longer counts from this moment on, and its task ends as soon as it hears of it.
    ///
    /// Of the kind that more wait for: were it always a head, whoever fills nearly all places with bodies that never end
    /// could have each newcomer closed before its head has come.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let (mut heads, mut bodies) = (Vec::new(), Vec::new());
        for (id, (of, state)) in &self.connections {
            if address.is_some_and(|address| *of != address) || state.writing.load(Ordering::Acquire) {
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

/// One connection's place, free again when the last holder drops it. In every request's extensions, so that a tunnel
/// that outlives its HTTP connection goes on counting.
#[derive(Debug)]
pub struct ConnectionPermit {
    limiter: ConnectionLimiter,
    id: u64,
    state: Arc<ConnectionState>,
}

impl ConnectionPermit {
    /// How the connection stands.
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }

    /// The head of a request is awaited from now on.
    pub(super) fn wait_for_head(&self) {
        self.state.wait_for_head();
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limiter.lock().remove(self.id);
    }
}

/// How a connection stands: written by its task, read by whoever looks for room.
#[derive(Debug, Default)]
pub(super) struct ConnectionState {
    /// The number of its wait for a head; 0 while it has one.
    head_wait_seq: AtomicU64,
    /// The number of its wait for more of a body, anew after each piece; 0 while none is waited for.
    body_wait_seq: AtomicU64,
    /// How many heads have come whole.
    heads_received: AtomicU64,
    /// The answer has begun, so that a body still under way holds nobody up but itself.
    response_started: AtomicBool,
    /// Bytes of an answer are still to be written.
    pub(super) writing: AtomicBool,
    /// An answer is being written that only the end of the connection ends: closed now, it would look whole.
    pub(super) response_incomplete: AtomicBool,
    evicted: AtomicBool,
    /// The service drains: nothing is waited for that can be left.
    pub(super) shutting_down: AtomicBool,
    /// A request without the body it announced: its client waited for our word, and got the answer in its place.
    pub(super) body_withheld: AtomicBool,
    /// The rest of a request that was answered is being read, or was as far as it is.
    pub(super) discarding: AtomicBool,
    /// What a request's handler did not read.
    unread_body: Mutex<Option<Incoming>>,
    /// Rings when the connection is evicted, and when `unread` is filled.
    pub(super) notify: Notify,
}

impl ConnectionState {
    fn wait_for_head(&self) {
        self.head_wait_seq.store(NEXT_WAIT.fetch_add(1, Ordering::Relaxed), Ordering::Release);
    }

    /// More of the body is awaited, unless the answer has begun.
    pub(super) fn wait_for_body(&self) {
        if self.body_wait_seq.load(Ordering::Acquire) == 0 && !self.response_started.load(Ordering::Acquire) {
            self.body_wait_seq.store(NEXT_WAIT.fetch_add(1, Ordering::Relaxed), Ordering::Release);
        }
    }

    /// A piece of the body has come, or nobody asks for more.
    pub(super) fn body_received(&self) {
        self.body_wait_seq.store(0, Ordering::Release);
    }

    /// The answer is about to be written.
    pub(super) fn start_response(&self) {
        self.response_started.store(true, Ordering::Release);
        self.body_received();
    }

    /// A whole head has come.
    pub(super) fn head_received(&self) {
        self.head_wait_seq.store(0, Ordering::Release);
        self.heads_received.fetch_add(1, Ordering::AcqRel);
        self.response_started.store(false, Ordering::Release);
        self.discarding.store(false, Ordering::Release);
    }

    /// How many heads have come whole.
    pub(super) fn heads_received(&self) -> u64 {
        self.heads_received.load(Ordering::Acquire)
    }

    /// The number of the wait for a head, if it is at that.
    pub(super) fn head_wait(&self) -> Option<u64> {
        Some(self.head_wait_seq.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// The number of the wait for more of a body, if it is at that.
    fn body_wait(&self) -> Option<u64> {
        Some(self.body_wait_seq.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// It waits for a head and has nothing else to do.
    pub(super) fn is_idle(&self) -> bool {
        self.head_wait().is_some() && !self.writing.load(Ordering::Acquire)
    }

    /// What is to be read on, if anything is.
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

    /// Whether the connection ends with the answer that is given now: its client does not send what it announced, or
    /// more than is read on.
    pub(super) fn closes_after_response(&self) -> bool {
        let exceeds_limit =
            self.lock_unread_body().as_ref().is_some_and(|body| body.size_hint().lower() > MAX_LINGER_BYTES);
        self.body_withheld.swap(false, Ordering::AcqRel) || exceeds_limit
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

    fn counts(connections: usize, per_address: usize) -> ConnectionLimiter {
        ConnectionLimiter::new(&ServerLimits {
            max_connections: connections,
            max_per_address: per_address,
            ..ServerLimits::default()
        })
    }

    fn evicted(seats: &[Arc<ConnectionPermit>]) -> Vec<bool> {
        seats.iter().map(|seat| seat.state.is_evicted()).collect()
    }

    #[test]
    fn the_one_that_has_waited_longest_for_a_head_makes_room() {
        let counts = counts(3, 9);
        let seats =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| counts.try_acquire(address(text)).unwrap());
        seats[0].state.head_received();
        seats[0].wait_for_head(); // between two requests: the youngest wait of all
        let fourth = counts.try_acquire(address("10.0.0.4")).unwrap();
        assert_eq!(evicted(&seats), [false, true, false]);
        fourth.state.head_received();
        let _fifth = counts.try_acquire(address("10.0.0.5")).unwrap();
        assert_eq!(evicted(&seats), [false, true, true]);
        drop(seats);
        assert!(
            counts.try_acquire(address("10.0.0.6")).is_some(),
            "who was evicted is not counted down twice"
        );
    }

    #[test]
    fn one_address_makes_room_for_itself_and_nobody_who_is_at_work_or_still_writing_goes() {
        let counts = counts(9, 2);
        let (here, there) = (address("10.0.0.1"), address("10.0.0.2"));
        let other = counts.try_acquire(there).unwrap();
        let seats = [counts.try_acquire(here).unwrap(), counts.try_acquire(here).unwrap()];
        seats[0].state.head_received();
        seats[1].state.writing.store(true, Ordering::Release);
        assert!(counts.try_acquire(here).is_none());
        assert!(!other.state.is_evicted(), "it is not its address that has too many");
        seats[1].state.writing.store(false, Ordering::Release);
        assert!(counts.try_acquire(here).is_some());
        assert_eq!(evicted(&seats), [false, true]);
    }

    /// Four at work, each waiting for a body.
    fn uploads(counts: &ConnectionLimiter) -> Vec<Arc<ConnectionPermit>> {
        let seats = (0..4).map(|_| counts.try_acquire(address("10.0.0.1")).unwrap()).collect::<Vec<_>>();
        for seat in &seats {
            seat.state.head_received();
            seat.state.wait_for_body();
        }
        seats
    }

    #[test]
    fn of_the_bodies_the_one_whose_last_piece_is_oldest_makes_room() {
        let counts = counts(4, 9);
        let seats = uploads(&counts);
        seats[0].state.body_received();
        seats[0].state.wait_for_body(); // it goes on: the youngest wait of all
        seats[1].state.body_received(); // it came whole
        seats[2].state.start_response();
        seats[2].state.wait_for_body(); // read on while the answer is written
        let newcomer = counts.try_acquire(address("10.0.0.2")).unwrap();
        assert_eq!(evicted(&seats), [false, false, false, true]);
        newcomer.state.head_received();
        seats[0].state.writing.store(true, Ordering::Release);
        assert!(counts.try_acquire(address("10.0.0.3")).is_none(), "the rest is at work");
    }

    #[test]
    fn a_newcomer_among_endless_bodies_is_not_the_one_that_goes() {
        let counts = counts(4, 9);
        let seats = uploads(&counts);
        let newcomers = ["10.0.0.2", "10.0.0.3"].map(|text| counts.try_acquire(address(text)).unwrap());
        assert_eq!(evicted(&seats), [true, true, false, false]);
        assert_eq!(evicted(&newcomers), [false, false]);
        let _third = counts.try_acquire(address("10.0.0.4")).unwrap();
        assert_eq!(
            (evicted(&seats[2..]), evicted(&newcomers)),
            (vec![false; 2], vec![true, false]),
            "as many heads"
        );
    }
}
