//! The fields of `nvidia-smi --query-gpu`: names and units from the help of driver 595.80, aliases, and names from the helps
//! of other drivers. Those that we read are rows of [`GpuReport`].

pub(crate) use wire::health::FieldUnit;
use wire::health::GpuReport;

/// A field of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its own name, also if an alias was queried: the heading of its column.
    pub(crate) name: &'static str,
    pub(crate) unit: FieldUnit,
    /// Whether we read it; otherwise it is `[N/A]`.
    pub(crate) supported: bool,
}

/// The field with this name or alias.
pub(crate) fn find(name: &str) -> Option<Field> {
    let canonical = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical);
    let supported = supported().find(|field| field.name == canonical);
    supported.or_else(|| unsupported().find(|field| field.name == canonical))
}

/// The fields that we read.
pub(crate) fn supported() -> impl Iterator<Item = Field> {
    let all = GpuReport::NVIDIA_SMI_FIELDS.iter().chain(DERIVED);
    all.map(|(name, unit)| Field { name, unit: *unit, supported: true })
}

fn unsupported() -> impl Iterator<Item = Field> {
    let fields = |(unit, names): &'static (FieldUnit, &'static str)| {
        names.split_whitespace().map(|name| Field { name, unit: *unit, supported: false })
    };
    UNSUPPORTED.iter().flat_map(fields)
}

/// All names and aliases.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let canonical = supported().chain(unsupported()).map(|field| field.name);
    canonical.chain(ALIASES.iter().map(|(alias, _)| *alias))
}

/// Fields whose key in the report differs from their name.
pub(crate) const REPORT_KEYS: &[(&str, &str)] =
    &[("kmd_version", "driver_version"), ("pcie.link.gen.gpucurrent", "pcie.link.gen.current")];

/// Fields that are derived from a reading, or are the same as another one.
const DERIVED: &[(&str, FieldUnit)] = &[
    ("timestamp", FieldUnit::Text),
    ("kmd_version", FieldUnit::Text),
    ("pcie.link.gen.gpucurrent", FieldUnit::Unitless),
    ("clocks_event_reasons.gpu_idle", FieldUnit::Unitless),
    ("clocks_event_reasons.applications_clocks_setting", FieldUnit::Unitless),
    ("clocks_event_reasons.sw_power_cap", FieldUnit::Unitless),
    ("clocks_event_reasons.hw_slowdown", FieldUnit::Unitless),
    ("clocks_event_reasons.hw_thermal_slowdown", FieldUnit::Unitless),
    ("clocks_event_reasons.hw_power_brake_slowdown", FieldUnit::Unitless),
    ("clocks_event_reasons.sw_thermal_slowdown", FieldUnit::Unitless),
    ("clocks_event_reasons.sync_boost", FieldUnit::Unitless),
];

/// Aliases, each with the field's own name.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("gpu_name", "name"),
    ("gpu_serial", "serial"),
    ("gpu_uuid", "uuid"),
    ("gpu_bus_id", "pci.bus_id"),
    ("inforom.image", "inforom.img"),
    ("inforom.power", "inforom.pwr"),
    ("gpu_operation_mode.current", "gom.current"),
    ("gpu_operation_mode.pending", "gom.pending"),
    ("clocks_throttle_reasons.supported", "clocks_event_reasons.supported"),
    ("clocks_throttle_reasons.active", "clocks_event_reasons.active"),
    ("clocks_throttle_reasons.gpu_idle", "clocks_event_reasons.gpu_idle"),
    (
        "clocks_throttle_reasons.applications_clocks_setting",
        "clocks_event_reasons.applications_clocks_setting",
    ),
    ("clocks_throttle_reasons.sw_power_cap", "clocks_event_reasons.sw_power_cap"),
    ("clocks_throttle_reasons.hw_slowdown", "clocks_event_reasons.hw_slowdown"),
    ("clocks_throttle_reasons.hw_thermal_slowdown", "clocks_event_reasons.hw_thermal_slowdown"),
    ("clocks_throttle_reasons.hw_power_brake_slowdown", "clocks_event_reasons.hw_power_brake_slowdown"),
    ("clocks_throttle_reasons.sw_thermal_slowdown", "clocks_event_reasons.sw_thermal_slowdown"),
    ("clocks_throttle_reasons.sync_boost", "clocks_event_reasons.sync_boost"),
    ("retired_pages.sbe", "retired_pages.single_bit_ecc.count"),
    ("retired_pages.dbe", "retired_pages.double_bit.count"),
    ("remapped_rows.sbe", "remapped_rows.correctable"),
    ("remapped_rows.dbe", "remapped_rows.uncorrectable"),
    ("gpu.power.draw.average", "power.draw.average"),
    ("gpu.power.draw.instant", "power.draw.instant"),
    ("gpu.power.requested_limit", "power.limit"),
    ("gpu.power.current_limit", "enforced.power.limit"),
    ("gpu.power.default_limit", "power.default_limit"),
    ("gpu.power.min_limit", "power.min_limit"),
    ("gpu.power.max_limit", "power.max_limit"),
    ("module.power.requested_limit", "module.power.limit"),
    ("module.power.current_limit", "module.enforced.power.limit"),
    ("clocks.gr", "clocks.current.graphics"),
    ("clocks.sm", "clocks.current.sm"),
    ("clocks.mem", "clocks.current.memory"),
    ("clocks.video", "clocks.current.video"),
    ("clocks.applications.gr", "clocks.applications.graphics"),
    ("clocks.applications.mem", "clocks.applications.memory"),
    ("clocks.default_applications.gr", "clocks.default_applications.graphics"),
    ("clocks.default_applications.mem", "clocks.default_applications.memory"),
    ("clocks.max.gr", "clocks.max.graphics"),
    ("clocks.max.mem", "clocks.max.memory"),
];

/// Fields that NVML does not have, that we do not read, and (last) that only other drivers' `nvidia-smi` have.
const UNSUPPORTED: &[(FieldUnit, &str)] = &[
    (
        FieldUnit::Unitless,
        "vgpu_driver_capability.heterogenous_multivGPU pci.baseClass pci.subClass \
     vgpu_device_capability.fractional_multiVgpu vgpu_device_capability.heterogeneous_timeSlice_profile \
     vgpu_device_capability.heterogeneous_timeSlice_sizes vgpu_device_capability.homogeneous_placements \
     vgpu_device_capability.mig_timeSlicing vgpu_device_capability.mig_timeSlicing_mode pcie.link.gen.gpumax \
     pcie.link.gen.hostmax addressing_mode accounting.mode accounting.buffer_size driver_model.current \
     driver_model.pending inforom.img inforom.oem inforom.ecc inforom.pwr inforom.checksum_validation gom.current \
     gom.pending encoder.stats.sessionCount encoder.stats.averageFps encoder.stats.averageLatency \
     dramEncryption.mode.current dramEncryption.mode.pending ecc.errors.corrected.volatile.device_memory \
     ecc.errors.corrected.volatile.dram ecc.errors.corrected.volatile.register_file \
     ecc.errors.corrected.volatile.l1_cache ecc.errors.corrected.volatile.l2_cache \
     ecc.errors.corrected.volatile.texture_memory ecc.errors.corrected.volatile.cbu \
     ecc.errors.corrected.volatile.sram ecc.errors.corrected.aggregate.device_memory \
     ecc.errors.corrected.aggregate.dram ecc.errors.corrected.aggregate.register_file \
     ecc.errors.corrected.aggregate.l1_cache ecc.errors.corrected.aggregate.l2_cache \
     ecc.errors.corrected.aggregate.texture_memory ecc.errors.corrected.aggregate.cbu \
     ecc.errors.corrected.aggregate.sram ecc.errors.uncorrected.volatile.device_memory \
     ecc.errors.uncorrected.volatile.dram ecc.errors.uncorrected.volatile.register_file \
     ecc.errors.uncorrected.volatile.l1_cache ecc.errors.uncorrected.volatile.l2_cache \
     ecc.errors.uncorrected.volatile.texture_memory ecc.errors.uncorrected.volatile.cbu \
     ecc.errors.uncorrected.volatile.sram ecc.errors.uncorrected.aggregate.device_memory \
     ecc.errors.uncorrected.aggregate.dram ecc.errors.uncorrected.aggregate.register_file \
     ecc.errors.uncorrected.aggregate.l1_cache ecc.errors.uncorrected.aggregate.l2_cache \
     ecc.errors.uncorrected.aggregate.texture_memory ecc.errors.uncorrected.aggregate.cbu \
     ecc.errors.uncorrected.aggregate.sram ecc.errors.uncorrected.volatile.sram.parity \
     ecc.errors.uncorrected.volatile.sram.secded ecc.errors.uncorrected.aggregate.sram.parity \
     ecc.errors.uncorrected.aggregate.sram.secded ecc.errors.uncorrected.aggregate.sram.thresholdExceeded \
     ecc.errors.uncorrected.aggregate.sram.l2 ecc.errors.uncorrected.aggregate.sram.sm \
     ecc.errors.uncorrected.aggregate.sram.mcu ecc.errors.uncorrected.aggregate.sram.pcie \
     ecc.errors.uncorrected.aggregate.sram.other retired_pages.single_bit_ecc.count retired_pages.double_bit.count \
     retired_pages.pending remapped_rows.correctable_inactive remapped_rows.uncorrectable_inactive \
     remapped_rows.histogram.max remapped_rows.histogram.high remapped_rows.histogram.partial \
     remapped_rows.histogram.low remapped_rows.histogram.none temperature.gpu.tlimit power.management \
     gsp.mode.current gsp.mode.default c2c.mode fabric.state fabric.status fabric.cliqueId fabric.clusterUuid \
     fabric.health.summary fabric.health.bandwidth fabric.health.route_recovery_in_progress \
     fabric.health.route_unhealthy fabric.health.access_timeout_recovery fabric.health.incorrect_configuration \
     fabric.health.partition_assigned platform.chassis_serial_number platform.slot_number platform.tray_index \
     platform.host_id platform.peer_type platform.module_id platform.gpu_fabric_guid hostname",
    ),
    (
        FieldUnit::Micros,
        "clocks_event_reasons_counters.sw_power_cap clocks_event_reasons_counters.sync_boost \
     clocks_event_reasons_counters.sw_thermal_slowdown clocks_event_reasons_counters.hw_thermal_slowdown \
     clocks_event_reasons_counters.hw_power_brake_slowdown",
    ),
    (FieldUnit::Percent, "utilization.jpeg utilization.ofa edpp_multiplier"),
    (
        FieldUnit::Watts,
        "module.power.draw.average module.power.draw.instant module.power.limit module.enforced.power.limit \
     module.power.default_limit module.power.min_limit module.power.max_limit",
    ),
    (
        FieldUnit::Mhz,
        "clocks.applications.graphics clocks.applications.memory clocks.default_applications.graphics \
     clocks.default_applications.memory",
    ),
    (FieldUnit::Mib, "protected_memory.total protected_memory.used protected_memory.free"),
    (
        FieldUnit::Unitless,
        "bbx.time_run gpu.base.current gpu.base.default gpu.base.max gpu.base.min gpu.base.requested \
     power_smoothing.active_profile power_smoothing.admin_override.percent_tmp_floor \
     power_smoothing.admin_override.primary_floor_act_offset \
     power_smoothing.admin_override.primary_floor_act_window_multiplier \
     power_smoothing.admin_override.primary_floor_tar_window_multiplier \
     power_smoothing.admin_override.ramp_down_hysteresis power_smoothing.admin_override.ramp_down_rate \
     power_smoothing.admin_override.ramp_up_rate power_smoothing.admin_override.secondary_power_floor \
     power_smoothing.curr_profile.percent_tmp_floor power_smoothing.curr_profile.primary_floor_act_offset \
     power_smoothing.curr_profile.primary_floor_act_window_multiplier \
     power_smoothing.curr_profile.primary_floor_tar_window_multiplier \
     power_smoothing.curr_profile.ramp_down_hysteresis power_smoothing.curr_profile.ramp_down_rate \
     power_smoothing.curr_profile.ramp_up_rate power_smoothing.curr_profile.secondary_power_floor \
     power_smoothing.delayed_power_smoothing_supported power_smoothing.enabled \
     power_smoothing.hw_lifetime_remaining_percent power_smoothing.imm_ramp_down \
     power_smoothing.max_percent_tmp_floor power_smoothing.min_percent_tmp_floor \
     power_smoothing.min_primary_floor_activation_offset power_smoothing.min_primary_floor_activation_point \
     power_smoothing.num_preset_profiles power_smoothing.primary_power_floor power_smoothing.priv_level \
     power_smoothing.secondary_power_floor power_smoothing.soc_power_smoothing_enabled power_smoothing.tmp_ceil \
     power_smoothing.tmp_floor power_smoothing.window_multiplier",
    ),
];
