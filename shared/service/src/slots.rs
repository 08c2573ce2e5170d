//! A bounded number of slots, acquired at once or not at all: there is no queue.

use std::sync::Arc;

use crate::sync::{AtomicUsize, Ordering};

/// A bounded number of slots.
#[derive(Debug)]
pub struct Slots {
    limit: AtomicUsize,
    inflight: AtomicUsize,
}

impl Slots {
    /// All of them free.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), inflight: AtomicUsize::new(0) })
    }

    /// A slot, if one is free now.
    pub fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        self.inflight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |inflight| {
                (inflight < self.limit()).then_some(inflight + 1)
            })
            .ok()
            .map(|_| Permit(self.clone()))
    }

    /// How many slots there are.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Changes the number of slots. Those in use stay in use, even above the limit.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Release);
    }

    /// How many are in use.
    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Acquire)
    }

    /// How many are free.
    pub fn available(&self) -> usize {
        self.limit().saturating_sub(self.inflight())
    }
}

/// A slot in use; dropping it releases the slot.
#[derive(Debug)]
pub struct Permit(Arc<Slots>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A slot shared by several tasks that work on one request: released when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct SharedPermit {
    _permits: Arc<(Permit, Option<Permit>)>,
}

impl SharedPermit {
    /// A slot, with one of a second set that counts the request as well.
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
    fn the_limit_holds_and_a_dropped_permit_frees_its_slot() {
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
    fn a_slot_in_two_sets_is_released_in_both_with_the_last_clone() {
        let (one, other) = (Slots::new(2), Slots::new(1));
        let permit = SharedPermit::new(one.try_acquire().unwrap(), other.try_acquire());
        let clone = permit.clone();
        drop(permit);
        assert_eq!((one.inflight(), other.inflight()), (1, 1));
        drop(clone);
        assert_eq!((one.inflight(), other.inflight()), (0, 0));
    }

    #[test]
    fn a_changed_limit_counts_at_once_and_revokes_no_slot() {
        let slots = Slots::new(2);
        let taken = [slots.try_acquire(), slots.try_acquire()];
        slots.set_limit(3);
        let third = slots.try_acquire();
        assert!(third.is_some() && slots.try_acquire().is_none());
        slots.set_limit(1);
        assert_eq!((slots.limit(), slots.inflight(), slots.available()), (1, 3, 0));
        drop(taken);
        assert!(slots.try_acquire().is_none(), "the third still has the only slot");
        drop(third);
        assert!(slots.try_acquire().is_some());
    }
}
