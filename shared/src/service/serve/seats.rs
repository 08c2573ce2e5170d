//! How many connections there are, and which of them goes when there is no room for another.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::{Bounds, lingering::Unread};

/// How many connections there are, in all and per address.
#[derive(Debug, Clone)]
pub(super) struct Counts(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    open: Mutex<Open>,
    /// Numbers every wait for a head, so that the oldest is known without a clock.
    waits: AtomicU64,
    total: usize,
    each: usize,
}

#[derive(Debug, Default)]
struct Open {
    here: HashMap<IpAddr, usize>,
    seats: HashMap<u64, (IpAddr, Arc<State>)>,
    next: u64,
}

impl Counts {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self(Arc::new(Shared {
            open: Mutex::default(),
            waits: AtomicU64::new(0),
            total: bounds.connections,
            each: bounds.per_address,
        }))
    }

    /// A place. Where there is none, the connection that has waited longest for the head of a request makes room: of the
    /// same address if that has too many, else of any. None if all are at work.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Arc<Seat>> {
        let address = address.to_canonical();
        let mut open = self.lock();
        if open.here.get(&address).copied().unwrap_or(0) >= self.0.each && !open.evict(Some(address)) {
            return None;
        }
        if open.seats.len() >= self.0.total && !open.evict(None) {
            return None;
        }
        let id = open.next;
        open.next += 1;
        *open.here.entry(address).or_default() += 1;
        let state = Arc::new(State::default());
        state.wait(self);
        open.seats.insert(id, (address, state.clone()));
        Some(Arc::new(Seat { counts: self.clone(), id, state }))
    }

    /// Ends the connection that has waited longest for a head, if there is one: its descriptor is needed.
    pub(super) fn make_room(&self) -> bool {
        self.lock().evict(None)
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// It no longer counts from this moment on, and its task ends as soon as it hears of it.
    fn evict(&mut self, address: Option<IpAddr>) -> bool {
        let waiting = self.seats.iter().filter(|(_, (of, _))| address.is_none_or(|address| *of == address));
        let waiting = waiting.filter_map(|(id, (_, state))| state.waits_since().map(|since| (since, *id)));
        let Some((_, id)) = waiting.min() else { return false };
        if let Some(state) = self.remove(id) {
            state.evicted.store(true, Ordering::Release);
            state.notify.notify_one();
        }
        true
    }

    fn remove(&mut self, id: u64) -> Option<Arc<State>> {
        let (address, state) = self.seats.remove(&id)?;
        if let Some(here) = self.here.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                self.here.remove(&address);
            }
        }
        Some(state)
    }
}

/// One connection's place, free again when the last holder drops it. In every request's extensions, so that a tunnel
/// that outlives its HTTP connection goes on counting.
#[derive(Debug)]
pub struct Seat {
    counts: Counts,
    id: u64,
    state: Arc<State>,
}

impl Seat {
    /// How the connection stands.
    pub(super) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The head of a request is awaited from now on.
    pub(super) fn wait(&self) {
        self.state.wait(&self.counts);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counts.lock().remove(self.id);
    }
}

/// How a connection stands: written by its task, read by whoever looks for room.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The number of its wait for a head; 0 while it has one.
    wait: AtomicU64,
    /// Bytes of an answer are still to be written.
    pub(super) writing: AtomicBool,
    evicted: AtomicBool,
    /// The service drains: nothing is waited for that can be left.
    pub(super) shutting_down: AtomicBool,
    /// A request without the body it announced: its client waited for our word, and got the answer in its place.
    pub(super) unmet: AtomicBool,
    /// The rest of a request that was answered is being read, or was as far as it is.
    pub(super) reading_on: AtomicBool,
    /// What a request's handler did not read.
    pub(super) unread: Mutex<Option<Unread>>,
    /// Rings when the connection is evicted, and when `unread` is filled.
    pub(super) notify: Notify,
}

impl State {
    fn wait(&self, counts: &Counts) {
        self.wait.store(1 + counts.0.waits.fetch_add(1, Ordering::Relaxed), Ordering::Release);
    }

    /// A whole head has come.
    pub(super) fn work(&self) {
        self.wait.store(0, Ordering::Release);
        self.reading_on.store(false, Ordering::Release);
    }

    /// The number of the wait for a head, if it is at that.
    pub(super) fn wait_number(&self) -> Option<u64> {
        Some(self.wait.load(Ordering::Acquire)).filter(|number| *number > 0)
    }

    /// The same of one that has nothing else to do.
    fn waits_since(&self) -> Option<u64> {
        self.wait_number().filter(|_| !self.writing.load(Ordering::Acquire))
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

    fn counts(connections: usize, per_address: usize) -> Counts {
        Counts::new(&Bounds { connections, per_address, ..Bounds::default() })
    }

    fn evicted(seats: &[Arc<Seat>]) -> Vec<bool> {
        seats.iter().map(|seat| seat.state.is_evicted()).collect()
    }

    #[test]
    fn the_one_that_has_waited_longest_for_a_head_makes_room() {
        let counts = counts(3, 9);
        let seats = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|text| counts.enter(address(text)).unwrap());
        seats[0].state.work();
        seats[0].wait(); // between two requests: the youngest wait of all
        let fourth = counts.enter(address("10.0.0.4")).unwrap();
        assert_eq!(evicted(&seats), [false, true, false]);
        fourth.state.work();
        let _fifth = counts.enter(address("10.0.0.5")).unwrap();
        assert_eq!(evicted(&seats), [false, true, true]);
        drop(seats);
        assert!(counts.enter(address("10.0.0.6")).is_some(), "who was evicted is not counted down twice");
    }

    #[test]
    fn one_address_makes_room_for_itself_and_nobody_who_is_at_work_or_still_writing_goes() {
        let counts = counts(9, 2);
        let (here, there) = (address("10.0.0.1"), address("10.0.0.2"));
        let other = counts.enter(there).unwrap();
        let seats = [counts.enter(here).unwrap(), counts.enter(here).unwrap()];
        seats[0].state.work();
        seats[1].state.writing.store(true, Ordering::Release);
        assert!(counts.enter(here).is_none());
        assert!(!other.state.is_evicted(), "it is not its address that has too many");
        seats[1].state.writing.store(false, Ordering::Release);
        assert!(counts.enter(here).is_some());
        assert_eq!(evicted(&seats), [false, true]);
    }
}
