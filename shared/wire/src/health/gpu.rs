//! One reading of the GPU as it travels: keys and words of `nvidia-smi --query-gpu` (help of driver 595.80).

use serde::{Deserialize, Serialize};

macro_rules! report {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $key:literal;)*) => {
        /// One reading of the GPU. Memory is in MiB, power in W, clocks in MHz, temperature in degrees Celsius, ratios
        /// in percent. What the driver does not support is absent.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct GpuReport {
            /// NVML's index.
            pub index: u32,
            /// Product name.
            pub name: String,
            /// `GPU-…`.
            pub uuid: String,
            $($(#[$doc])* #[serde(rename = $key, default, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}

report! {
    /// The whole card. Absent, as what follows of memory, on cards that have none of their own (unified memory).
    memory_total: u64 = "memory.total";
    /// What the driver keeps for itself.
    memory_reserved: u64 = "memory.reserved";
    /// In use by processes.
    memory_used: u64 = "memory.used";
    /// In nobody's use.
    memory_free: u64 = "memory.free";
    /// What the engine could have: free, and what it holds itself. Not `nvidia-smi`'s; absent if its share cannot be
    /// told.
    memory_effective_free: u64 = "memory.effective_free";
    /// For example `595.80`.
    driver_version: String = "driver_version";
    /// For example `13.1`: the newest CUDA that this driver serves.
    cuda_version: String = "cuda_version";
    /// Cards in this host.
    count: u32 = "count";
    /// The board's serial number; consumer cards tell none.
    serial: String = "serial";
    /// Of its firmware, for example `95.02.66.00.02`.
    vbios_version: String = "vbios_version";
    /// For example `00000000:01:00.0`.
    pci_bus_id: String = "pci.bus_id";
    /// The parts of the bus id, in hexadecimal, for example `0x0000`.
    pci_domain: String = "pci.domain";
    /// For example `0x01`.
    pci_bus: String = "pci.bus";
    /// For example `0x00`.
    pci_device: String = "pci.device";
    /// Device and vendor, for example `0x26B110DE`.
    pci_device_id: String = "pci.device_id";
    /// The same of who built the board.
    pci_sub_device_id: String = "pci.sub_device_id";
    /// For example `8.9`.
    compute_cap: String = "compute_cap";
    /// `Default`, `Exclusive_Process`, `Prohibited`.
    compute_mode: String = "compute_mode";
    /// `Enabled`, `Disabled`.
    persistence_mode: String = "persistence_mode";
    /// `Enabled` while a monitor is plugged in.
    display_mode: String = "display_mode";
    /// The same as `Yes` and `No`.
    display_attached: String = "display_attached";
    /// `Enabled` while a display is driven.
    display_active: String = "display_active";
    /// `P0` to `P15`.
    pstate: String = "pstate";
    /// Degrees Celsius.
    temperature: u32 = "temperature.gpu";
    /// Of the memory's chips, in degrees Celsius.
    temperature_memory: u32 = "temperature.memory";
    /// Of the time some kernel ran.
    utilization_gpu: u32 = "utilization.gpu";
    /// Of the time memory was read or written.
    utilization_memory: u32 = "utilization.memory";
    /// Of the time the encoder was busy.
    utilization_encoder: u32 = "utilization.encoder";
    /// Of the time the decoder was busy.
    utilization_decoder: u32 = "utilization.decoder";
    /// Of its full speed; the first fan. Absent on passive boards.
    fan_speed: u32 = "fan.speed";
    /// Now.
    power_draw: f64 = "power.draw";
    /// Over the last second.
    power_draw_average: f64 = "power.draw.average";
    /// At this moment.
    power_draw_instant: f64 = "power.draw.instant";
    /// As shipped.
    power_default_limit: f64 = "power.default_limit";
    /// The least that can be set.
    power_min_limit: f64 = "power.min_limit";
    /// The most that can be set.
    power_max_limit: f64 = "power.max_limit";
    /// As set.
    power_limit: f64 = "power.limit";
    /// In force.
    enforced_power_limit: f64 = "enforced.power.limit";
    /// Graphics clock.
    clocks_graphics: u32 = "clocks.current.graphics";
    /// Streaming multiprocessors' clock.
    clocks_sm: u32 = "clocks.current.sm";
    /// Memory clock.
    clocks_memory: u32 = "clocks.current.memory";
    /// Encoder's and decoder's clock.
    clocks_video: u32 = "clocks.current.video";
    /// The fastest graphics clock.
    clocks_max_graphics: u32 = "clocks.max.graphics";
    /// The multiprocessors' fastest clock.
    clocks_max_sm: u32 = "clocks.max.sm";
    /// The memory's fastest clock.
    clocks_max_memory: u32 = "clocks.max.memory";
    /// Bit mask of the reasons that this card can tell.
    clocks_event_reasons_supported: String = "clocks_event_reasons.supported";
    /// Bit mask of what slows the clocks, for example `0x0000000000000004`.
    clocks_event_reasons: String = "clocks_event_reasons.active";
    /// `Enabled`, `Disabled`.
    ecc_mode_current: String = "ecc.mode.current";
    /// After the next reboot.
    ecc_mode_pending: String = "ecc.mode.pending";
    /// Since the driver was loaded.
    ecc_corrected_volatile: u64 = "ecc.errors.corrected.volatile.total";
    /// Since the driver was loaded.
    ecc_uncorrected_volatile: u64 = "ecc.errors.uncorrected.volatile.total";
    /// In the card's life.
    ecc_corrected_aggregate: u64 = "ecc.errors.corrected.aggregate.total";
    /// In the card's life.
    ecc_uncorrected_aggregate: u64 = "ecc.errors.uncorrected.aggregate.total";
    /// Memory rows replaced after correctable errors.
    remapped_correctable: u64 = "remapped_rows.correctable";
    /// Memory rows replaced after uncorrectable errors.
    remapped_uncorrectable: u64 = "remapped_rows.uncorrectable";
    /// `Yes`: a row is replaced at the next reset.
    remapped_pending: String = "remapped_rows.pending";
    /// `Yes`: no spare row was left.
    remapped_failure: String = "remapped_rows.failure";
    /// `None`, `Reset`, `Reboot`, `Drain P2P`, `Drain and Reset`, …
    recovery_action: String = "gpu_recovery_action";
    /// Falls when idle.
    pcie_gen_current: u32 = "pcie.link.gen.current";
    /// Of card and slot.
    pcie_gen_max: u32 = "pcie.link.gen.max";
    /// Lanes in use.
    pcie_width_current: u32 = "pcie.link.width.current";
    /// Lanes of card and slot.
    pcie_width_max: u32 = "pcie.link.width.max";
    /// `Enabled` while the card is partitioned.
    mig_mode_current: String = "mig.mode.current";
    /// After the next reset.
    mig_mode_pending: String = "mig.mode.pending";
    /// Drawn since the driver was loaded, in joules. Not `nvidia-smi`'s.
    energy_joules: f64 = "energy.joules";
}
