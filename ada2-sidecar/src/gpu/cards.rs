//! Lists all cards of this host, for commands that choose one.

use std::path::Path;

use super::{GpuState, nvml::Library, processes};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CardInfo {
    /// NVML's index.
    pub(crate) index: u32,
    /// `GPU-…`.
    pub(crate) uuid: String,
    /// Product name.
    pub(crate) name: String,
    /// Bytes that the engine's processes hold there; at least 1 if the driver does not report how many.
    pub(crate) engine_holds: u64,
}

/// May hang with the driver: only for commands. The engine's processes are the unit's, and this PID.
pub(crate) fn cards(
    library: Option<&Path>,
    engine_unit: &str,
    engine_pid: Option<u32>,
) -> Result<Vec<CardInfo>, GpuState> {
    let library = Library::load(library)?;
    let all = library.cards()?;
    let engine_memory = |usages: &[processes::ProcessUsage]| {
        let all = processes::describe(usages, Path::new("/proc"), engine_unit);
        let own = all.iter().filter(|one| one.holds_memory_for(engine_unit) || Some(one.pid) == engine_pid);
        own.map(|one| one.used.unwrap_or(1)).sum()
    };
    let cards = all.into_iter().map(|card| CardInfo {
        engine_holds: engine_memory(&card.usages),
        index: card.index,
        uuid: card.uuid,
        name: card.name,
    });
    Ok(cards.collect())
}
