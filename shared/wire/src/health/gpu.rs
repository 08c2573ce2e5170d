//! A reading of the GPU in JSON: the table of all fields, with the keys and values of `nvidia-smi --query-gpu` (help of
//! driver 595.80).

use serde::{Deserialize, Serialize};

/// The unit of a reading, as `nvidia-smi` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the unit of that name")]
pub enum FieldUnit {
    /// Text, even where it looks like a number: not a metric.
    Text,
    /// A number, a bit mask or one of two names.
    Unitless,
    Mib,
    Percent,
    Watts,
    Mhz,
    Micros,
}

impl FieldUnit {
    /// As `nvidia-smi` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text | Self::Unitless => "",
            Self::Mib => "MiB",
            Self::Percent => "%",
            Self::Watts => "W",
            Self::Mhz => "MHz",
            Self::Micros => "us",
        }
    }
}

macro_rules! report {
    ($($(#[$doc:meta])* $field:ident: $type:ty = $key:literal $(($unit:ident))?;)*) => {
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

        impl GpuReport {
            /// The fields that `nvidia-smi --query-gpu` has as well, under the same names, with their units.
            pub const NVIDIA_SMI_FIELDS: &[(&str, FieldUnit)] = &[
                ("index", FieldUnit::Unitless),
                ("name", FieldUnit::Text),
                ("uuid", FieldUnit::Text),
                $($(($key, FieldUnit::$unit),)?)*
            ];
        }
    };
}

// A row: the field, its type, and its key in `/readyz` and `/gpu`. With a unit behind it, the key is also a field of
// `nvidia-smi --query-gpu` (`/gpu?query=`) and, unless it is text, a metric: `nvidia_smi_` and the key, with `_` for `.` and
// the suffix of the unit (`_bytes`, `_ratio`, `_watts`, `_clock_hz`, `_seconds`).
report! {
    /// In all. This and the next four are absent with unified memory.
    memory_total: u64 = "memory.total" (Mib);
    /// Reserved by the driver.
    memory_reserved: u64 = "memory.reserved" (Mib);
    /// In use by processes.
    memory_used: u64 = "memory.used" (Mib);
    /// Free.
    memory_free: u64 = "memory.free" (Mib);
    /// Available to the engine: what is free and what it holds itself. Absent if its share is unknown.
    memory_effective_free: u64 = "memory.effective_free";
    /// For example `595.80`.
    driver_version: String = "driver_version" (Text);
    /// The newest CUDA that this driver supports, for example `13.1`.
    cuda_version: String = "cuda_version";
    /// Cards in this host.
    count: u32 = "count" (Text);
    /// The board's; consumer cards have none.
    serial: String = "serial" (Text);
    /// For example `95.02.66.00.02`.
    vbios_version: String = "vbios_version" (Text);
    /// For example `00000000:01:00.0`.
    pci_bus_id: String = "pci.bus_id" (Text);
    /// The parts of the bus id, in hexadecimal, for example `0x0000`.
    pci_domain: String = "pci.domain" (Text);
    /// For example `0x01`.
    pci_bus: String = "pci.bus" (Text);
    /// For example `0x00`.
    pci_device: String = "pci.device" (Text);
    /// Device and vendor, for example `0x26B110DE`.
    pci_device_id: String = "pci.device_id" (Text);
    /// The same for the board's vendor.
    pci_sub_device_id: String = "pci.sub_device_id" (Text);
    /// For example `8.9`.
    compute_cap: String = "compute_cap" (Unitless);
    /// `Default`, `Exclusive_Process`, `Prohibited`.
    compute_mode: String = "compute_mode" (Unitless);
    /// `Enabled`, `Disabled`.
    persistence_mode: String = "persistence_mode" (Unitless);
    /// `Enabled` while a monitor is plugged in.
    display_mode: String = "display_mode" (Unitless);
    /// The same, as `Yes` and `No`.
    display_attached: String = "display_attached" (Unitless);
    /// `Enabled` while a display is driven.
    display_active: String = "display_active" (Unitless);
    /// `P0` to `P15`.
    pstate: String = "pstate" (Unitless);
    /// Degrees Celsius.
    temperature: u32 = "temperature.gpu" (Unitless);
    /// Of the memory chips, in degrees Celsius.
    temperature_memory: u32 = "temperature.memory" (Unitless);
    /// Share of the time in which a kernel ran.
    utilization_gpu: u32 = "utilization.gpu" (Percent);
    /// Share of the time in which memory was read or written.
    utilization_memory: u32 = "utilization.memory" (Percent);
    /// Share of the time in which the encoder was busy.
    utilization_encoder: u32 = "utilization.encoder" (Percent);
    /// Share of the time in which the decoder was busy.
    utilization_decoder: u32 = "utilization.decoder" (Percent);
    /// Share of its full speed, of the first fan. Absent on passive boards.
    fan_speed: u32 = "fan.speed" (Percent);
    /// Now.
    power_draw: f64 = "power.draw" (Watts);
    /// Over the last second.
    power_draw_average: f64 = "power.draw.average" (Watts);
    /// At this moment.
    power_draw_instant: f64 = "power.draw.instant" (Watts);
    /// As shipped.
    power_default_limit: f64 = "power.default_limit" (Watts);
    /// The least that can be set.
    power_min_limit: f64 = "power.min_limit" (Watts);
    /// The most that can be set.
    power_max_limit: f64 = "power.max_limit" (Watts);
    /// As set.
    power_limit: f64 = "power.limit" (Watts);
    /// In force.
    enforced_power_limit: f64 = "enforced.power.limit" (Watts);
    /// Graphics clock.
    clocks_graphics: u32 = "clocks.current.graphics" (Mhz);
    /// Streaming multiprocessors' clock.
    clocks_sm: u32 = "clocks.current.sm" (Mhz);
    /// Memory clock.
    clocks_memory: u32 = "clocks.current.memory" (Mhz);
    /// Encoder's and decoder's clock.
    clocks_video: u32 = "clocks.current.video" (Mhz);
    /// The fastest graphics clock.
    clocks_max_graphics: u32 = "clocks.max.graphics" (Mhz);
    /// The multiprocessors' fastest clock.
    clocks_max_sm: u32 = "clocks.max.sm" (Mhz);
    /// The memory's fastest clock.
    clocks_max_memory: u32 = "clocks.max.memory" (Mhz);
    /// Bit mask of the reasons that this card reports.
    clocks_event_reasons_supported: String = "clocks_event_reasons.supported" (Unitless);
    /// Bit mask of why the clocks are reduced, for example `0x0000000000000004`.
    clocks_event_reasons: String = "clocks_event_reasons.active" (Unitless);
    /// `Enabled`, `Disabled`.
    ecc_mode_current: String = "ecc.mode.current" (Unitless);
    /// After the next reboot.
    ecc_mode_pending: String = "ecc.mode.pending" (Unitless);
    /// Since the driver was loaded.
    ecc_corrected_volatile: u64 = "ecc.errors.corrected.volatile.total" (Unitless);
    /// Since the driver was loaded.
    ecc_uncorrected_volatile: u64 = "ecc.errors.uncorrected.volatile.total" (Unitless);
    /// In the card's life.
    ecc_corrected_aggregate: u64 = "ecc.errors.corrected.aggregate.total" (Unitless);
    /// In the card's life.
    ecc_uncorrected_aggregate: u64 = "ecc.errors.uncorrected.aggregate.total" (Unitless);
    /// Memory rows replaced after correctable errors.
    remapped_correctable: u64 = "remapped_rows.correctable" (Unitless);
    /// Memory rows replaced after uncorrectable errors.
    remapped_uncorrectable: u64 = "remapped_rows.uncorrectable" (Unitless);
    /// `Yes`: a row is replaced at the next reset.
    remapped_pending: String = "remapped_rows.pending" (Unitless);
    /// `Yes`: no spare row was left.
    remapped_failure: String = "remapped_rows.failure" (Unitless);
    /// `None`, `Reset`, `Reboot`, `Drain P2P`, `Drain and Reset`, …
    recovery_action: String = "gpu_recovery_action" (Unitless);
    /// Falls when idle.
    pcie_gen_current: u32 = "pcie.link.gen.current" (Unitless);
    /// Of card and slot.
    pcie_gen_max: u32 = "pcie.link.gen.max" (Unitless);
    /// Lanes in use.
    pcie_width_current: u32 = "pcie.link.width.current" (Unitless);
    /// Lanes of card and slot.
    pcie_width_max: u32 = "pcie.link.width.max" (Unitless);
    /// `Enabled` while the card is partitioned.
    mig_mode_current: String = "mig.mode.current" (Unitless);
    /// After the next reset.
    mig_mode_pending: String = "mig.mode.pending" (Unitless);
    /// Drawn since the driver was loaded, in joules.
    energy_joules: f64 = "energy.joules";
}
