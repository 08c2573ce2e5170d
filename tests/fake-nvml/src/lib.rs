//! A graphics card made of a file. As a shared library it has the symbols of NVML that the sidecar calls, and
//! answers each call from the `scenario.json` that lies beside it; as a Rust library it has the [`Scenario`]s to
//! write there. What it keeps between calls (the scenario as last read, its open files, event sets) is kept by each
//! copy of the library for itself, so that copies in different directories are different machines.

mod call;
mod event_sets;
mod files;
mod scenario;
mod scenario_watch;
mod symbols;

pub use scenario::{
    CardMemory, Clocks, Display, Ecc, EccCounts, Gpu, Mig, Pci, Pcie, PowerRange, Process, RemappedRows,
    Scenario, Utilization, Xid,
};

/// The scenario's file name. Replace it by renaming: a call may be reading it.
pub const SCENARIO_FILE: &str = "scenario.json";
/// One line for each call: the name of its symbol.
pub const CALLS_FILE: &str = "calls.log";
