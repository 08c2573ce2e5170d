//! The readings of a card that belong together.

use serde::{Deserialize, Serialize};

/// Where a card is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pci {
    /// The first part of the bus id, of eight hexadecimal digits.
    pub domain: u32,
    /// The second, of two.
    pub bus: u32,
    /// The third, of two.
    pub device: u32,
    /// The card's type and, in the lower half, its vendor.
    pub device_id: u32,
    /// The same of who built it.
    pub subsystem_id: u32,
}

impl Default for Pci {
    fn default() -> Self {
        Self { domain: 0, bus: 1, device: 0, device_id: 0x26b1_10de, subsystem_id: 0x16a1_10de }
    }
}

/// A card's outputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Display {
    /// A monitor is plugged in.
    pub connected: bool,
    /// A screen is set up, with or without a monitor.
    pub active: bool,
}

/// Whether a card is partitioned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mig {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// Memory in MiB; what is neither reserved nor used is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CardMemory {
    /// The whole card.
    pub total: u64,
    /// The driver's version.
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
    /// Of the time the encoder was busy.
    pub encoder: u32,
    /// Of the time the decoder was busy.
    pub decoder: u32,
}

/// Power limits that a card knows, in milliwatts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerRange {
    /// As shipped.
    pub default_mw: u32,
    /// The least that can be set.
    pub min_mw: u32,
    /// The most that can be set.
    pub max_mw: u32,
}

impl Default for PowerRange {
    fn default() -> Self {
        Self { default_mw: 300_000, min_mw: 100_000, max_mw: 300_000 }
    }
}

/// MHz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clocks {
    /// Of drawing.
    pub graphics: u32,
    /// Of computing.
    pub sm: u32,
    /// Of the memory.
    pub memory: u32,
    /// Of encoding and decoding.
    pub video: u32,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { graphics: 210, sm: 210, memory: 405, video: 1185 }
    }
}

/// The link to the host. An idle card lowers its generation, never its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pcie {
    /// Now.
    pub generation: u32,
    /// What card and host can do.
    pub max_generation: u32,
    /// Lanes now.
    pub width: u32,
    /// Lanes that card and host have.
    pub max_width: u32,
}

impl Default for Pcie {
    fn default() -> Self {
        Self { generation: 1, max_generation: 4, width: 16, max_width: 16 }
    }
}

/// Memory errors. While they are not looked for, their counts are not supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ecc {
    /// Whether they are looked for.
    pub current: bool,
    /// Whether they are after the next reset.
    pub pending: bool,
    /// Those that did no harm.
    pub corrected: EccCounts,
    /// Those that did.
    pub uncorrected: EccCounts,
}

impl Default for Ecc {
    fn default() -> Self {
        Self {
            current: true,
            pending: true,
            corrected: EccCounts::default(),
            uncorrected: EccCounts::default(),
        }
    }
}

/// How many memory errors there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EccCounts {
    /// Since the driver was loaded.
    pub volatile: u64,
    /// In the card's life.
    pub aggregate: u64,
}

/// Memory rows replaced by spare ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RemappedRows {
    /// After errors that were corrected.
    pub correctable: u32,
    /// After errors that were not.
    pub uncorrectable: u32,
    /// One is to be replaced at the next reset.
    pub pending: bool,
    /// One could not be replaced.
    pub failure: bool,
}

/// An event of the driver's log. [`Gpu::xid`](super::Gpu::xid) numbers it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Xid {
    /// Only ever rises: a waiter gets what is above the last one reported. So leave the older ones there.
    pub sequence: u64,
    /// The code: 79 is off the bus.
    pub xid: u64,
}
