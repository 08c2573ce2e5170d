//! What the machine is like. Every key is optional in the file; an unknown one is an error (which NVML calls
//! `UNKNOWN`), so that a typing mistake cannot pass for a healthy card.

mod gpu;
mod parts;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use gpu::Gpu;
pub use parts::{
    CardMemory, Clocks, Display, Ecc, EccCounts, Mig, Pci, Pcie, PowerRange, Process, RemappedRows,
    Utilization, Xid,
};

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What `nvmlInit` returns: 0 success, 4 no permission, 9 driver not loaded, 18 versions differ.
    pub init_error: u32,
    /// For example `595.80`.
    pub driver_version: String,
    /// 1000 times the major version and 10 times the minor one.
    pub cuda_version: i32,
    /// The cards.
    pub gpus: Vec<Gpu>,
    /// Symbols that return something else, whatever card they are about.
    pub errors: BTreeMap<String, u32>,
    /// Milliseconds that a symbol takes, until this says otherwise.
    pub delay_ms: BTreeMap<String, u64>,
    /// Symbols that do not return while they are named here.
    pub hang: Vec<String>,
}

impl Default for Scenario {
    /// One healthy, idle RTX 6000 Ada.
    fn default() -> Self {
        Self {
            init_error: 0,
            driver_version: "595.80".to_owned(),
            cuda_version: 13_010,
            gpus: vec![Gpu::default()],
            errors: BTreeMap::new(),
            delay_ms: BTreeMap::new(),
            hang: Vec::new(),
        }
    }
}
