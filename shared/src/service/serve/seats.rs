//! How many connections there are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::Bounds;

/// How many connections there are, in all and per address.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    total: usize,
    each: usize,
}

impl Counts {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Self { open: Arc::default(), total: bounds.connections, each: bounds.per_address }
    }

    pub(super) fn enter(&self, address: IpAddr) -> Option<Arc<Seat>> {
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let here = open.get(&address).copied().unwrap_or(0);
        if all >= self.total || here >= self.each {
            return None;
        }
        open.insert(address, here + 1);
        Some(Arc::new(Seat { counts: self.clone(), address }))
    }
}

/// One connection's place, free again when the last holder drops it. In every request's extensions, so that a tunnel
/// that outlives its HTTP connection goes on counting.
#[derive(Debug)]
pub struct Seat {
    counts: Counts,
    address: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = open.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.remove(&self.address);
            }
        }
    }
}
