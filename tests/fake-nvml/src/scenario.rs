//! What the machine is like. Every key is optional in the file; an unknown one is an error (which NVML calls
//! `UNKNOWN`), so that a typing mistake cannot pass for a healthy card.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What `nvmlInit` returns: 0 success, 4 no permission, 9 driver not loaded, 18 versions differ.
    pub init_error: u32,
    /// For example `595.80`.
    pub driver_version: String,
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
            gpus: vec![Gpu::default()],
            errors: BTreeMap::new(),
            delay_ms: BTreeMap::new(),
            hang: Vec::new(),
        }
    }
}

/// One card.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// NVML's index.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Its memory.
    pub memory: CardMemory,
    /// Who holds memory.
    pub processes: Vec<Process>,
    /// Degrees Celsius.
    pub temperature: u32,
    /// How busy it is.
    pub utilization: Utilization,
    /// Milliwatts.
    pub power_draw_mw: u32,
    /// Milliwatts.
    pub power_limit_mw: u32,
    /// 0 to 15; 32 is unknown.
    pub pstate: u32,
    /// Off the bus: every call for it returns 15.
    pub lost: bool,
    /// Symbols that return 3 for it.
    pub unsupported: Vec<String>,
    /// Symbols that return something else.
    pub errors: BTreeMap<String, u32>,
}

impl Default for Gpu {
    fn default() -> Self {
        Self {
            index: 0,
            uuid: "GPU-6adaf00d-1234-5678-9abc-def012345678".to_owned(),
            name: "NVIDIA RTX 6000 Ada Generation".to_owned(),
            memory: CardMemory::default(),
            processes: Vec::new(),
            temperature: 54,
            utilization: Utilization::default(),
            power_draw_mw: 21_500,
            power_limit_mw: 300_000,
            pstate: 8,
            lost: false,
            unsupported: Vec::new(),
            errors: BTreeMap::new(),
        }
    }
}

impl Gpu {
    /// From now on this symbol returns this code for this card.
    pub fn fail(&mut self, symbol: &str, code: u32) {
        self.errors.insert(symbol.to_owned(), code);
    }
}

/// Memory in MiB; what is neither reserved nor used is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CardMemory {
    /// The whole card.
    pub total: u64,
    /// The driver's own.
    pub reserved: u64,
    /// The processes'.
    pub used: u64,
}

impl Default for CardMemory {
    fn default() -> Self {
        Self { total: 46_068, reserved: 609, used: 0 }
    }
}

/// A process on the card. Its memory does not add to [`CardMemory::used`] by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// A real one's, if it is to have a name and a unit.
    pub pid: u32,
    /// MiB; null where the driver does not say.
    pub used_mib: Option<u64>,
    /// Whether it draws; otherwise it computes.
    pub graphics: bool,
}

/// Percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Utilization {
    /// Of the time some kernel ran.
    pub gpu: u32,
    /// Of the time memory was read or written.
    pub memory: u32,
}
