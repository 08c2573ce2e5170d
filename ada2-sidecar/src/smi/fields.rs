//! The fields of `nvidia-smi --query-gpu`: names and units of the help of driver 595.80, the other spellings that it takes,
//! and what other drivers' helps have beside them.

/// What stands behind a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Words, even where they look like a number.
    Text,
    /// A number, a mask or one of two words.
    None,
    Mib,
    Percent,
    Watts,
    Mhz,
    Micros,
}

impl Unit {
    /// As `nvidia-smi` writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Text | Self::None => "",
            Self::Mib => "MiB",
            Self::Percent => "%",
            Self::Watts => "W",
            Self::Mhz => "MHz",
            Self::Micros => "us",
        }
    }
}

/// A field that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its proper name, which heads its column.
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// Whether it is read here; otherwise it is `[N/A]`.
    pub(crate) told: bool,
}

/// The field of this name, whichever of its spellings it is.
pub(crate) fn find(name: &str) -> Option<Field> {
    let proper = OTHER_SPELLINGS.iter().find(|(other, _)| *other == name).map_or(name, |(_, proper)| proper);
    let told = told().find(|field| field.name == proper);
    told.or_else(|| untold().find(|field| field.name == proper))
}

/// Those that are read here.
pub(crate) fn told() -> impl Iterator<Item = Field> {
    TOLD.iter().map(|(name, unit)| Field { name, unit: *unit, told: true })
}

fn untold() -> impl Iterator<Item = Field> {
    let of = |(unit, names): &'static (Unit, &'static str)| {
        names.split_whitespace().map(|name| Field { name, unit: *unit, told: false })
    };
    UNTOLD.iter().flat_map(of)
}

/// Every name that is taken.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let proper = told().chain(untold()).map(|field| field.name);
    proper.chain(OTHER_SPELLINGS.iter().map(|(other, _)| *other))
}

/// The key of a field in the report, where it is not its name.
pub(crate) const OTHER_KEYS: &[(&str, &str)] =
    &[("kmd_version", "driver_version"), ("pcie.link.gen.gpucurrent", "pcie.link.gen.current")];

const TOLD: &[(&str, Unit)] = &[
    ("timestamp", Unit::Text),
    ("driver_version", Unit::Text),
    ("kmd_version", Unit::Text),
    ("count", Unit::Text),
    ("name", Unit::Text),
    ("serial", Unit::Text),
    ("uuid", Unit::Text),
    ("pci.bus_id", Unit::Text),
    ("pci.domain", Unit::Text),
    ("pci.bus", Unit::Text),
    ("pci.device", Unit::Text),
    ("pci.device_id", Unit::Text),
    ("pci.sub_device_id", Unit::Text),
    ("pcie.link.gen.current", Unit::None),
    ("pcie.link.gen.gpucurrent", Unit::None),
    ("pcie.link.gen.max", Unit::None),
    ("pcie.link.width.current", Unit::None),
    ("pcie.link.width.max", Unit::None),
    ("index", Unit::None),
    ("display_mode", Unit::None),
    ("display_attached", Unit::None),
    ("display_active", Unit::None),
    ("persistence_mode", Unit::None),
    ("vbios_version", Unit::Text),
    ("gpu_recovery_action", Unit::None),
    ("fan.speed", Unit::Percent),
    ("pstate", Unit::None),
    ("clocks_event_reasons.supported", Unit::None),
    ("clocks_event_reasons.active", Unit::None),
    ("clocks_event_reasons.gpu_idle", Unit::None),
    ("clocks_event_reasons.applications_clocks_setting", Unit::None),
    ("clocks_event_reasons.sw_power_cap", Unit::None),
    ("clocks_event_reasons.hw_slowdown", Unit::None),
    ("clocks_event_reasons.hw_thermal_slowdown", Unit::None),
    ("clocks_event_reasons.hw_power_brake_slowdown", Unit::None),
    ("clocks_event_reasons.sw_thermal_slowdown", Unit::None),
    ("clocks_event_reasons.sync_boost", Unit::None),
    ("memory.total", Unit::Mib),
    ("memory.reserved", Unit::Mib),
    ("memory.used", Unit::Mib),
    ("memory.free", Unit::Mib),
    ("compute_mode", Unit::None),
    ("compute_cap", Unit::None),
    ("utilization.gpu", Unit::Percent),
    ("utilization.memory", Unit::Percent),
    ("utilization.encoder", Unit::Percent),
    ("utilization.decoder", Unit::Percent),
    ("ecc.mode.current", Unit::None),
    ("ecc.mode.pending", Unit::None),
    ("ecc.errors.corrected.volatile.total", Unit::None),
    ("ecc.errors.corrected.aggregate.total", Unit::None),
    ("ecc.errors.uncorrected.volatile.total", Unit::None),
    ("ecc.errors.uncorrected.aggregate.total", Unit::None),
    ("remapped_rows.correctable", Unit::None),
    ("remapped_rows.uncorrectable", Unit::None),
    ("remapped_rows.pending", Unit::None),
    ("remapped_rows.failure", Unit::None),
    ("temperature.gpu", Unit::None),
    ("temperature.memory", Unit::None),
    ("power.draw", Unit::Watts),
    ("power.draw.average", Unit::Watts),
    ("power.draw.instant", Unit::Watts),
    ("power.limit", Unit::Watts),
    ("enforced.power.limit", Unit::Watts),
    ("power.default_limit", Unit::Watts),
    ("power.min_limit", Unit::Watts),
    ("power.max_limit", Unit::Watts),
    ("clocks.current.graphics", Unit::Mhz),
    ("clocks.current.sm", Unit::Mhz),
    ("clocks.current.memory", Unit::Mhz),
    ("clocks.current.video", Unit::Mhz),
    ("clocks.max.graphics", Unit::Mhz),
    ("clocks.max.sm", Unit::Mhz),
    ("clocks.max.memory", Unit::Mhz),
    ("mig.mode.current", Unit::None),
    ("mig.mode.pending", Unit::None),
];

/// Names that mean a field by another one.
const OTHER_SPELLINGS: &[(&str, &str)] = &[
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

/// What NVML does not tell, what is not asked of it, and, last, what only other drivers' `nvidia-smi` know.
const UNTOLD: &[(Unit, &str)] = &[
    (
        Unit::None,
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
        Unit::Micros,
        "clocks_event_reasons_counters.sw_power_cap clocks_event_reasons_counters.sync_boost \
     clocks_event_reasons_counters.sw_thermal_slowdown clocks_event_reasons_counters.hw_thermal_slowdown \
     clocks_event_reasons_counters.hw_power_brake_slowdown",
    ),
    (Unit::Percent, "utilization.jpeg utilization.ofa edpp_multiplier"),
    (
        Unit::Watts,
        "module.power.draw.average module.power.draw.instant module.power.limit module.enforced.power.limit \
     module.power.default_limit module.power.min_limit module.power.max_limit",
    ),
    (
        Unit::Mhz,
        "clocks.applications.graphics clocks.applications.memory clocks.default_applications.graphics \
     clocks.default_applications.memory",
    ),
    (Unit::Mib, "protected_memory.total protected_memory.used protected_memory.free"),
    (
        Unit::None,
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
