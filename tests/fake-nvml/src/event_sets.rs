//! What each set of events has reported. A set reports no XID from before its registration, and each one
//! after that once; but with the card's newest code, as NVML does it: older ones are not to be had any more.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    Gpu, Scenario,
    call::{Code, GPU_IS_LOST, INVALID_ARGUMENT, scripted_error},
};

/// `nvmlEventTypeXidCriticalError`.
pub(crate) const XID: u64 = 8;

/// By their handles, which are not used again.
static SETS: Mutex<Sets> = Mutex::new(Sets { newest: 0, open: BTreeMap::new() });

struct Sets {
    newest: usize,
    open: BTreeMap<usize, Vec<Registration>>,
}

/// One card that a set looks at.
struct Registration {
    index: u32,
    types: u64,
    /// The sequence number of the last reported XID.
    last_reported: u64,
}

/// What a set reports.
pub(crate) struct Event {
    pub(crate) index: u32,
    pub(crate) xid: u64,
}

/// A new set, of no cards.
pub(crate) fn create() -> usize {
    let mut sets = sets();
    sets.newest += 1;
    let set = sets.newest;
    sets.open.insert(set, Vec::new());
    set
}

/// Ends a set.
pub(crate) fn free(set: usize) -> Result<(), Code> {
    sets().open.remove(&set).map(drop).ok_or(INVALID_ARGUMENT)
}

/// From now on the set reports these too.
pub(crate) fn register(set: usize, gpu: &Gpu, types: u64) -> Result<(), Code> {
    let mut sets = sets();
    let watches = sets.open.get_mut(&set).ok_or(INVALID_ARGUMENT)?;
    match watches.iter_mut().find(|watch| watch.index == gpu.index) {
        Some(watch) if watch.types & XID != 0 => watch.types |= types,
        Some(watch) => {
            *watch = Registration { types: watch.types | types, last_reported: gpu.newest_xid(), ..*watch }
        }
        None => watches.push(Registration { index: gpu.index, types, last_reported: gpu.newest_xid() }),
    }
    Ok(())
}

/// What the set has not reported yet. A loss is reported after the XIDs that came with it.
pub(crate) fn next(set: usize, symbol: &str, scenario: &Scenario) -> Result<Option<Event>, Code> {
    let mut sets = sets();
    let watches = sets.open.get_mut(&set).ok_or(INVALID_ARGUMENT)?;
    let mut lost = false;
    for watch in watches {
        let Some(gpu) = scenario.gpus.iter().find(|gpu| gpu.index == watch.index) else { continue };
        scripted_error(symbol, gpu)?;
        if let Some(event) = watch.next(gpu) {
            return Ok(Some(event));
        }
        lost |= gpu.lost;
    }
    if lost { Err(GPU_IS_LOST) } else { Ok(None) }
}

impl Registration {
    fn next(&mut self, gpu: &Gpu) -> Option<Event> {
        if self.types & XID == 0 {
            return None;
        }
        let unreported =
            gpu.xids.iter().map(|event| event.sequence).filter(|sequence| *sequence > self.last_reported);
        self.last_reported = unreported.min()?;
        let newest = gpu.xids.iter().max_by_key(|event| event.sequence)?;
        Some(Event { index: gpu.index, xid: newest.xid })
    }
}

fn sets() -> MutexGuard<'static, Sets> {
    SETS.lock().unwrap_or_else(PoisonError::into_inner)
}
