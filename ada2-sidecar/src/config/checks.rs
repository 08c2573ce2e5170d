//! What the configuration says of readiness checks: their names, and the operator's thresholds.

/// Every check, in the order in which they are told.
pub const CHECKS: &[&str] = &[
    "nvml",
    "driver",
    "snapshot_fresh",
    "gpu_present",
    "recovery_action",
    "xid",
    "ecc",
    "row_remap",
    "thermal",
    "power_brake",
    "pcie_width",
    "vram_headroom",
    "engine_reachable",
    "engine_process",
    "engine_queue",
    "engine_model",
    "engine_works",
    "slots",
    "disk",
    "host_memory",
    "draining",
];
/// Those that gate whatever an operator says: without them nothing else is known, or nothing can be done.
pub const ALWAYS_GATE: &[&str] = &["nvml", "snapshot_fresh", "engine_reachable", "draining"];

/// What the operator thinks of the card's faults.
#[derive(Debug, Clone, Copy)]
pub struct CardRules {
    /// What error correction should be.
    pub ecc_mode: Option<bool>,
    /// Whether uncorrected errors from before our start gate.
    pub old_ecc_errors_gate: bool,
    /// Whether a row that waits for its replacement gates.
    pub remap_pending_gates: bool,
    /// Whether a row that could not be replaced gates.
    pub remap_failure_gates: bool,
}

/// The host's thresholds; 0 = off.
#[derive(Debug, Clone, Copy)]
pub struct HostRules {
    /// Bytes.
    pub min_free_disk: u64,
    /// Bytes.
    pub min_free_memory: u64,
    /// Percent.
    pub max_swap_used: u64,
    /// Bytes.
    pub max_engine_memory: u64,
}
