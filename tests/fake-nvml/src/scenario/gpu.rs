//! One card: what it is, how it does, and how it fails.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    CardMemory, Clocks, Display, Ecc, Mig, Pci, Pcie, PowerRange, Process, RemappedRows, Utilization, Xid,
};

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
    /// The board's serial number; null where it is not reported.
    pub serial: Option<String>,
    /// Of its firmware.
    pub vbios: String,
    /// Where it is plugged in.
    pub pci: Pci,
    /// Major and minor.
    pub compute_capability: (i32, i32),
    /// 0 default, 2 prohibited, 3 exclusive to one process.
    pub compute_mode: u32,
    /// Whether the driver stays loaded while nobody uses the card.
    pub persistence: bool,
    /// Its outputs.
    pub display: Display,
    /// Partitioning; null where it is not supported.
    pub mig: Option<Mig>,
    /// Its memory.
    pub memory: CardMemory,
    /// Who holds memory.
    pub processes: Vec<Process>,
    /// Degrees Celsius.
    pub temperature: u32,
    /// Degrees Celsius of the memory's chips; null where it is not reported.
    pub memory_temperature: Option<u32>,
    /// Percent of each fan's full speed.
    pub fans: Vec<u32>,
    /// How busy it is.
    pub utilization: Utilization,
    /// Milliwatts.
    pub power_draw_mw: u32,
    /// Milliwatts, as enforced.
    pub power_limit_mw: u32,
    /// Milliwatts, as requested: others may set a lower one.
    pub power_management_limit_mw: u32,
    /// The allowed range.
    pub power_range: PowerRange,
    /// Millijoules since the driver was loaded.
    pub energy_mj: u64,
    /// 0 to 15; 32 is unknown.
    pub pstate: u32,
    /// How fast it runs.
    pub clocks: Clocks,
    /// How fast it can run.
    pub max_clocks: Clocks,
    /// Why it does not run faster, one bit for each reason: 1 idle, 4 power cap, 8 slowdown, 32 and 64 heat as seen by
    /// software and by hardware, 128 power brake.
    pub throttle_reasons: u64,
    /// Which of these it reports.
    pub supported_throttle_reasons: u64,
    /// The link to the host.
    pub pcie: Pcie,
    /// Memory errors.
    pub ecc: Ecc,
    /// Memory rows replaced by spare ones.
    pub remapped_rows: RemappedRows,
    /// What the driver asks for: 0 nothing, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset.
    pub recovery_action: u32,
    /// Types of events that can be registered for, one bit each: 8 is XIDs.
    pub event_types: u64,
    /// Every XID so far.
    pub xids: Vec<Xid>,
    /// Off the bus: every call for it returns 15.
    pub lost: bool,
    /// Reading fields succeeds, and each of them says that the card is lost, whether or not it is.
    pub lost_inside_fields: bool,
    /// Fields, by number, that return something else.
    pub field_errors: BTreeMap<u32, u32>,
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
            serial: Some("1324023012345".to_owned()),
            vbios: "95.02.3C.00.05".to_owned(),
            pci: Pci::default(),
            compute_capability: (8, 9),
            compute_mode: 0,
            persistence: true,
            display: Display::default(),
            mig: None,
            memory: CardMemory::default(),
            processes: Vec::new(),
            temperature: 54,
            memory_temperature: None,
            fans: vec![30],
            utilization: Utilization::default(),
            power_draw_mw: 21_500,
            power_limit_mw: 300_000,
            power_management_limit_mw: 300_000,
            power_range: PowerRange::default(),
            energy_mj: 1_234_567,
            pstate: 8,
            clocks: Clocks::default(),
            max_clocks: Clocks { graphics: 3105, sm: 3105, memory: 10_001, video: 2415 },
            throttle_reasons: 1,
            supported_throttle_reasons: 0x1ff,
            pcie: Pcie::default(),
            ecc: Ecc::default(),
            remapped_rows: RemappedRows::default(),
            recovery_action: 0,
            event_types: 0x1f,
            xids: Vec::new(),
            lost: false,
            lost_inside_fields: false,
            field_errors: BTreeMap::new(),
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

    /// One more XID.
    pub fn xid(&mut self, xid: u64) {
        self.xids.push(Xid { sequence: self.newest_xid() + 1, xid });
    }

    /// The sequence number of the newest XID; 0 if there was none.
    pub fn newest_xid(&self) -> u64 {
        self.xids.iter().map(|event| event.sequence).max().unwrap_or(0)
    }
}
