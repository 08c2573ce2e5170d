//! The graphics card: one thread looks at it and publishes what it sees, everybody else reads the last sample. No
//! request ever waits on the driver, and nothing here judges: that is `readiness`'s business.

mod cards;
mod library_file;
mod nvml;
pub(crate) mod processes;
mod sampler;
pub mod vram;

pub(crate) use cards::{CardInfo, cards};
pub(crate) use nvml::recovery_action_name;
pub(crate) use sampler::RECOVERY_SAMPLES;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;
use wire::health::GpuReport;

/// A sample older than this means that the driver hangs.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(5);

/// Starts the thread `nvml`, which takes its first sample at once and ends when every receiver is gone.
///
/// Nobody joins it: a driver call may hang for ever. Then samples only grow old, and their age says so.
pub fn start(config: GpuSamplerConfig) -> io::Result<watch::Receiver<Option<Arc<GpuSample>>>> {
    sampler::start(config)
}

/// What is sampled, and how often.
#[derive(Debug, Clone)]
pub struct GpuSamplerConfig {
    /// Absolute path of `libnvidia-ml.so.1`; the loader's own search if absent.
    pub library: Option<PathBuf>,
    /// NVML's index, or a UUID.
    pub gpu_id: String,
    /// Between two looks.
    pub interval: Duration,
    /// The systemd unit whose GPU memory is the engine's own.
    pub engine_unit: String,
    /// Where it is read whose a process is.
    pub kernel: KernelPaths,
}

/// Where the kernel shows processes and their groups.
#[derive(Debug, Clone)]
pub struct KernelPaths {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`.
    pub cgroups: PathBuf,
}

impl Default for KernelPaths {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroups: "/sys/fs/cgroup".into() }
    }
}

/// One look at the card.
#[derive(Debug, Clone)]
pub struct GpuSample {
    /// When, for judging its age.
    pub taken: Instant,
    /// When, for people.
    pub timestamp: SystemTime,
    /// What was seen.
    pub state: GpuState,
    /// Looks in a row, this one included, that the card answered.
    pub consecutive_good: u32,
    /// Looks since our start that gave no reading.
    pub failed_total: u64,
    /// Loads of the driver that were seen to follow its absence.
    pub driver_loads: u32,
    /// What the driver reported of itself.
    pub xids: Arc<XidLog>,
}

/// The driver's error reports (XIDs) since this process began to listen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct XidLog {
    /// The last ones, oldest first.
    pub recent: Vec<Xid>,
    /// How many of each code, and when the last came.
    pub totals: BTreeMap<u32, (u64, SystemTime)>,
}

/// One report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xid {
    /// Counts up by one for each report.
    pub sequence: u64,
    /// The code; 999 where the driver does not tell it.
    pub code: u32,
    /// When, for judging its age.
    pub at: Instant,
    /// When, for people.
    pub timestamp: SystemTime,
}

/// What a look at the card gives.
#[derive(Debug, Clone)]
pub enum GpuState {
    /// The card answers.
    Present(Box<GpuReading>),
    /// NVML could not be loaded; the words of the loader.
    LibraryUnavailable(String),
    /// NVML is there, the kernel module is not.
    DriverNotLoaded,
    /// The driver does not let us in.
    NoPermission,
    /// The driver was upgraded under the running kernel module: a reboot is needed.
    VersionMismatch,
    /// No card of that index or UUID.
    NoDevice {
        /// What was asked for.
        requested: String,
        /// What is there, in words.
        found: Vec<String>,
    },
    /// The card fell off the bus, or needs a reset.
    Lost,
    /// Any other error, in words.
    Failed(String),
}

impl GpuState {
    /// Whether the driver must be let go of: it advises a reset or more, which our hold on its device files would block.
    pub fn must_release_driver(&self) -> bool {
        let Self::Present(reading) = self else { return false };
        matches!(reading.health.recovery_action, Some(1 | 2 | 4 | 6 | 7))
    }
}

impl fmt::Display for GpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(reading) => write!(f, "{} answers", reading.report.name),
            Self::LibraryUnavailable(message) => write!(f, "NVML cannot be loaded: {message}"),
            Self::DriverNotLoaded => f.write_str("the NVIDIA driver is not loaded"),
            Self::NoPermission => f.write_str("no permission to use the NVIDIA driver"),
            Self::VersionMismatch => f.write_str("driver and library versions differ: reboot needed"),
            Self::NoDevice { requested: wanted, found } if found.is_empty() => {
                write!(f, "no GPU {wanted}: there is none")
            }
            Self::NoDevice { requested: wanted, found } => {
                write!(f, "no GPU {wanted}: there is {}", found.join(", "))
            }
            Self::Lost => f.write_str("GPU is lost"),
            Self::Failed(message) => write!(f, "NVML fails: {message}"),
        }
    }
}

/// What a card that answers says.
///
/// Processes are asked for less often than the rest, because the driver takes long over them. `memory`, `processes`
/// and `engine_unit_active` are the last ones *taken together*, and so is `report.memory_effective_free`, which
/// follows from them; every other figure of `report` is of this very look.
#[derive(Debug, Clone)]
pub struct GpuReading {
    /// As `/readyz` says it.
    pub report: GpuReport,
    /// What the rules judge.
    pub health: HealthReading,
    /// Memory at the time of `processes`; absent where the card has none of its own (unified memory).
    pub memory: Option<GpuMemory>,
    /// Who holds memory; absent where the driver does not say.
    pub processes: Option<Vec<GpuProcess>>,
    /// When they were asked for.
    pub processes_taken_at: Instant,
    /// Whether the engine's unit had any process at the time of `processes`.
    pub engine_unit_active: bool,
    /// Other cards on which the engine's processes hold memory; looked for seldom, and only while they hold none here.
    pub other_gpus: Vec<OtherGpuUsage>,
}

/// A card that is not the one judged, on which the engine's processes hold memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherGpuUsage {
    /// NVML's index.
    pub index: u32,
    /// Product name.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// The engine's processes there.
    pub processes: Vec<GpuProcess>,
}

/// Readings that say how well the card is. Absent where the driver does not support them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthReading {
    /// What slows the clocks: bits of `nvmlClocksEventReasons`.
    pub clock_event_reasons: Option<u64>,
    /// Uncorrected memory errors since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Error correction now, and after the next reboot.
    pub ecc_mode: Option<(bool, bool)>,
    /// Memory rows replaced after uncorrectable errors.
    pub remapped_uncorrectable: Option<u64>,
    /// A row is to be replaced at the next reset.
    pub remap_pending: Option<bool>,
    /// A row could not be replaced.
    pub remap_failure: Option<bool>,
    /// What the driver advises (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`): 0 nothing, 1 reset, 2 reboot, …
    pub recovery_action: Option<u32>,
    /// PCIe lanes now, and at most.
    pub pcie_width: Option<(u32, u32)>,
    /// Whether the driver reports XIDs to us.
    pub receives_xids: bool,
    /// The driver on disk, if it is not the one that is loaded.
    pub driver_on_disk: Option<String>,
}

/// The card's memory in bytes; `total = reserved + used + free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// The whole card.
    pub total: u64,
    /// What the driver keeps for itself.
    pub reserved: u64,
    /// In use by processes.
    pub used: u64,
    /// In nobody's use.
    pub free: u64,
}

/// A process that holds memory of the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// As the host numbers it.
    pub pid: u32,
    /// The kernel's short name of it.
    pub name: String,
    /// The systemd unit that it belongs to, or that started it.
    pub unit: Option<String>,
    /// What it does with the card.
    pub process_type: GpuProcessType,
    /// Bytes; absent where the driver does not say.
    pub used: Option<u64>,
}

impl GpuProcess {
    /// Whether it is this unit's and holds memory, as far as the driver says.
    pub fn holds_memory_for(&self, unit: &str) -> bool {
        self.unit.as_deref() == Some(unit) && self.used != Some(0)
    }
}

/// What a process does with the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuProcessType {
    /// It computes.
    Compute,
    /// It draws.
    Graphics,
    /// Both.
    Both,
}

impl GpuProcessType {
    /// `nvidia-smi`'s word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "C",
            Self::Graphics => "G",
            Self::Both => "C+G",
        }
    }
}

/// Whether a sample is so old that a driver call must be hanging.
pub(crate) fn is_stale(sample: &GpuSample, now: Instant) -> bool {
    now.saturating_duration_since(sample.taken) > STALE_AFTER
}
