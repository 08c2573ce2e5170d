//! All cards of this host, for a command that chooses one.

use std::path::Path;

use super::{GpuState, nvml::Library, processes};

/// A card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CardInfo {
    /// NVML's index.
    pub(crate) index: u32,
    /// `GPU-…`.
    pub(crate) uuid: String,
    /// Product name.
    pub(crate) name: String,
    /// Bytes that the engine's processes hold there; at least 1 where the driver does not say how many.
    pub(crate) engine_holds: u64,
}

/// Asks the driver, which may hang: not from where that matters. The engine is the unit's processes, and this one.
pub(crate) fn cards(
    library: Option<&Path>,
    engine_unit: &str,
    engine_pid: Option<u32>,
) -> Result<Vec<CardInfo>, GpuState> {
    let library = Library::load(library)?;
    let all = library.cards()?;
    let held = |usages: &[processes::ProcessUsage]| {
        let all = processes::describe(usages, Path::new("/proc"), engine_unit);
        let own = all.iter().filter(|one| one.holds_memory_for(engine_unit) || Some(one.pid) == engine_pid);
        own.map(|one| one.used.unwrap_or(1)).sum()
    };
    let seen = all.into_iter().map(|card| CardInfo {
        engine_holds: held(&card.usages),
        index: card.index,
        uuid: card.uuid,
        name: card.name,
    });
    Ok(seen.collect())
}
