//! The graphics card: one thread samples it, and everyone else reads the last sample. No request ever waits for the driver.
//! `readiness` evaluates the samples.

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

/// If the last sample is older than this, a driver call hangs.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(5);

/// Starts the thread `nvml`, which takes its first sample at once and ends when every receiver is gone. It is never joined,
/// because a driver call may hang forever; the age of the last sample shows that.
pub fn start(config: GpuSamplerConfig) -> io::Result<watch::Receiver<Option<Arc<GpuSample>>>> {
    sampler::start(config)
}

/// What is sampled, and how often.
#[derive(Debug, Clone)]
pub struct GpuSamplerConfig {
    /// Absolute path of `libnvidia-ml.so.1`; None: the loader's own search.
    pub library: Option<PathBuf>,
    /// NVML's index, or a UUID.
    pub gpu_id: String,
    /// Between two samples.
    pub interval: Duration,
    /// The systemd unit whose GPU memory counts as the engine's.
    pub engine_unit: String,
    /// Where processes and their units are read.
    pub kernel: KernelPaths,
}

/// Where the kernel shows processes and their control groups.
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

/// One sample of the card.
#[derive(Debug, Clone)]
pub struct GpuSample {
    /// When it was taken, for its age.
    pub taken: Instant,
    /// When it was taken, for output.
    pub timestamp: SystemTime,
    /// The result.
    pub state: GpuState,
    /// Successful samples in a row, including this one.
    pub consecutive_good: u32,
    /// Samples without a reading since our start.
    pub failed_total: u64,
    /// How often the driver was loaded after it was absent.
    pub driver_loads: u32,
    /// The driver's error reports.
    pub xids: Arc<XidLog>,
}

/// The driver's error reports (XIDs) since we registered for them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct XidLog {
    /// The last ones, oldest first.
    pub recent: Vec<Xid>,
    /// For each code, how many, and when the last one arrived.
    pub totals: BTreeMap<u32, (u64, SystemTime)>,
}

/// One report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xid {
    /// Counts up by one for each report.
    pub sequence: u64,
    /// 999 if the driver does not report the code.
    pub code: u32,
    /// When it arrived, for its age.
    pub at: Instant,
    /// When it arrived, for output.
    pub timestamp: SystemTime,
}

/// The result of a sample.
#[derive(Debug, Clone)]
pub enum GpuState {
    /// A reading.
    Present(Box<GpuReading>),
    /// NVML could not be loaded, with the loader's message.
    LibraryUnavailable(String),
    /// NVML is installed, but the kernel module is not loaded.
    DriverNotLoaded,
    /// The driver denies us access.
    NoPermission,
    /// The driver was upgraded under the running kernel module: a reboot is needed.
    VersionMismatch,
    /// No card of that index or UUID.
    NoDevice {
        /// As configured.
        requested: String,
        /// The existing cards.
        found: Vec<String>,
    },
    /// The card fell off the bus, or needs a reset.
    Lost,
    /// Any other error.
    Failed(String),
}

impl GpuState {
    /// Whether we must release the driver: it recommends a reset or more, which our open device files would block.
    pub fn must_release_driver(&self) -> bool {
        let Self::Present(reading) = self else { return false };
        matches!(reading.health.recovery_action, Some(1 | 2 | 4 | 6 | 7))
    }
}

impl fmt::Display for GpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(reading) => write!(f, "{} is responding", reading.report.name),
            Self::LibraryUnavailable(message) => write!(f, "cannot load NVML: {message}"),
            Self::DriverNotLoaded => f.write_str("the NVIDIA driver is not loaded"),
            Self::NoPermission => f.write_str("no permission to use the NVIDIA driver"),
            Self::VersionMismatch => f.write_str("driver and library versions differ: reboot needed"),
            Self::NoDevice { requested, found } if found.is_empty() => {
                write!(f, "GPU {requested} not found: this host has none")
            }
            Self::NoDevice { requested, found } => {
                write!(f, "GPU {requested} not found; available: {}", found.join(", "))
            }
            Self::Lost => f.write_str("GPU is lost"),
            Self::Failed(message) => write!(f, "NVML error: {message}"),
        }
    }
}

/// A reading of the card.
///
/// Processes are read less often than the rest, because the driver takes long for them. `memory`, `processes` and
/// `engine_unit_active` are the last ones *read together*, and `report.memory_effective_free` follows from them; all other
/// values of `report` are of this sample.
#[derive(Debug, Clone)]
pub struct GpuReading {
    /// The reading in `/readyz`.
    pub report: GpuReport,
    /// The input of the rules.
    pub health: HealthReading,
    /// Memory at the time of `processes`; None with unified memory.
    pub memory: Option<GpuMemory>,
    /// The processes that hold memory; None if the driver does not list them.
    pub processes: Option<Vec<GpuProcess>>,
    /// When they were read.
    pub processes_taken_at: Instant,
    /// Whether the engine's unit had any process at the time of `processes`.
    pub engine_unit_active: bool,
    /// Other cards on which the engine's processes hold memory; read rarely, and only while they hold none here.
    pub other_gpus: Vec<OtherGpuUsage>,
}

/// Another card on which the engine's processes hold memory.
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

/// The readings that readiness evaluates; None if the driver does not support them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthReading {
    /// Why the clocks are reduced: bits of `nvmlClocksEventReasons`.
    pub clock_event_reasons: Option<u64>,
    /// Uncorrected memory errors since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Error correction now, and after the next reboot.
    pub ecc_mode: Option<(bool, bool)>,
    /// Memory rows replaced after uncorrectable errors.
    pub remapped_uncorrectable: Option<u64>,
    /// A row will be replaced at the next reset.
    pub remap_pending: Option<bool>,
    /// A row could not be replaced.
    pub remap_failure: Option<bool>,
    /// What the driver recommends (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`): 0 nothing, 1 reset, 2 reboot, …
    pub recovery_action: Option<u32>,
    /// PCIe lanes now, and at most.
    pub pcie_width: Option<(u32, u32)>,
    /// Whether the driver reports XIDs to us.
    pub receives_xids: bool,
    /// The driver version on disk, if another one is loaded.
    pub driver_on_disk: Option<String>,
}

/// The card's memory in bytes; `total = reserved + used + free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuMemory {
    /// The whole card.
    pub total: u64,
    /// Reserved by the driver.
    pub reserved: u64,
    /// In use by processes.
    pub used: u64,
    /// Free.
    pub free: u64,
}

/// A process that holds memory of the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// In the host's PID namespace.
    pub pid: u32,
    /// Its short name (`comm`).
    pub name: String,
    /// The systemd unit that it belongs to, or that started it.
    pub unit: Option<String>,
    /// How it uses the card.
    pub process_type: GpuProcessType,
    /// In bytes; None if the driver does not report it.
    pub used: Option<u64>,
}

impl GpuProcess {
    /// Whether it belongs to this unit and holds memory, as far as the driver reports it.
    pub fn holds_memory_for(&self, unit: &str) -> bool {
        self.unit.as_deref() == Some(unit) && self.used != Some(0)
    }
}

/// How a process uses the card.
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
    /// As `nvidia-smi` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "C",
            Self::Graphics => "G",
            Self::Both => "C+G",
        }
    }
}

/// Whether the sample is so old that a driver call must hang.
pub(crate) fn is_stale(sample: &GpuSample, now: Instant) -> bool {
    now.saturating_duration_since(sample.taken) > STALE_AFTER
}
