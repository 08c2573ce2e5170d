//! A fixed number of places, taken at once or not at all. There is no queue to wait in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A number of places.
#[derive(Debug)]
pub struct Slots {
    limit: AtomicUsize,
    inflight: AtomicUsize,
}

impl Slots {
    /// This many places, all free.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), inflight: AtomicUsize::new(0) })
    }

    /// A place, if one is free now.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.inflight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                (taken < self.limit()).then_some(taken + 1)
            })
            .ok()
            .map(|_| Permit(self.clone()))
    }

    /// How many places there are.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// From now on there are this many. Places that are taken stay so, even above it.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
    }

    /// How many are taken.
    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Acquire)
    }

    /// How many are free.
    pub fn available(&self) -> usize {
        self.limit().saturating_sub(self.inflight())
    }
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub struct Permit(Arc<Slots>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A share in a place taken, for several who work on one request: it is given back once all shares are gone.
#[derive(Debug, Clone)]
pub struct SharedPermit {
    _permits: Arc<(Permit, Option<Permit>)>,
}

impl SharedPermit {
    /// A place that counts in a second set of slots as well, where there is one.
    pub fn new(permit: Permit, second: Option<Permit>) -> Self {
        Self { _permits: Arc::new((permit, second)) }
    }
}

impl From<Permit> for SharedPermit {
    fn from(permit: Permit) -> Self {
        Self::new(permit, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_a_dropped_permit_frees_its_place() {
        let slots = Slots::new(2);
        let first = slots.try_acquire();
        let second = slots.try_acquire();
        assert!(first.is_some() && second.is_some() && slots.try_acquire().is_none());
        assert_eq!((slots.limit(), slots.inflight(), slots.available()), (2, 2, 0));
        drop(first);
        assert_eq!(slots.available(), 1);
        assert!(slots.try_acquire().is_some());
    }

    #[test]
    fn a_place_in_two_sets_is_given_back_in_both_once_all_shares_are_gone() {
        let (one, other) = (Slots::new(2), Slots::new(1));
        let place = SharedPermit::new(one.try_acquire().unwrap(), other.try_acquire());
        let share = place.clone();
        drop(place);
        assert_eq!((one.inflight(), other.inflight()), (1, 1));
        drop(share);
        assert_eq!((one.inflight(), other.inflight()), (0, 0));
    }

    #[test]
    fn a_changed_limit_counts_at_once_and_takes_no_place_away() {
        let slots = Slots::new(2);
        let taken = [slots.try_acquire(), slots.try_acquire()];
        slots.set_limit(3);
        let third = slots.try_acquire();
        assert!(third.is_some() && slots.try_acquire().is_none());
        slots.set_limit(1);
        assert_eq!((slots.limit(), slots.inflight(), slots.available()), (1, 3, 0));
        drop(taken);
        assert!(slots.try_acquire().is_none(), "the third still has the one place");
        drop(third);
        assert!(slots.try_acquire().is_some());
    }
}
