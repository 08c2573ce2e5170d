//! The graphics card: one thread looks at it and publishes what it sees, everybody else reads the last sample. No
//! request ever waits on the driver, and nothing here judges: that is `readiness`'s business.

mod nvml;
mod processes;
mod sampler;
pub mod vram;

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use shared::health::GpuReport;
use tokio::sync::watch;

/// Starts the thread `nvml`, which takes its first sample at once and ends when every receiver is gone.
///
/// Nobody joins it: a driver call may hang for ever. Then samples only grow old, and their age says so.
pub fn start(sampling: Sampling) -> io::Result<watch::Receiver<Option<Arc<GpuSample>>>> {
    sampler::start(sampling)
}

/// What is sampled, and how often.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Absolute path of `libnvidia-ml.so.1`; the loader's own search if absent.
    pub library: Option<PathBuf>,
    /// NVML's index, or a UUID.
    pub gpu_id: String,
    /// Between two looks.
    pub interval: Duration,
    /// The systemd unit whose GPU memory is the engine's own.
    pub engine_unit: String,
}

/// One look at the card.
#[derive(Debug, Clone)]
pub struct GpuSample {
    /// When, for judging its age.
    pub taken: Instant,
    /// When, for people.
    pub wall: SystemTime,
    /// What was seen.
    pub state: GpuState,
}

/// What a look at the card gives.
#[derive(Debug, Clone)]
pub enum GpuState {
    /// The card answers.
    Present(Box<GpuReading>),
    /// NVML could not be loaded; the words of the loader.
    NoLibrary(String),
    /// NVML is there, the kernel module is not.
    DriverNotLoaded,
    /// The driver does not let us in.
    NoPermission,
    /// The driver was upgraded under the running kernel module: a reboot is needed.
    VersionMismatch,
    /// No card of that index or UUID.
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// What is there, in words.
        found: Vec<String>,
    },
    /// The card fell off the bus, or needs a reset.
    Lost,
    /// Any other error, in words.
    Failed(String),
}

impl fmt::Display for GpuState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present(reading) => write!(f, "{} answers", reading.report.name),
            Self::NoLibrary(words) => write!(f, "NVML cannot be loaded: {words}"),
            Self::DriverNotLoaded => f.write_str("the NVIDIA driver is not loaded"),
            Self::NoPermission => f.write_str("no permission to use the NVIDIA driver"),
            Self::VersionMismatch => f.write_str("driver and library versions differ: reboot needed"),
            Self::NoDevice { wanted, found } if found.is_empty() => {
                write!(f, "no GPU {wanted}: there is none")
            }
            Self::NoDevice { wanted, found } => write!(f, "no GPU {wanted}: there is {}", found.join(", ")),
            Self::Lost => f.write_str("GPU is lost"),
            Self::Failed(words) => write!(f, "NVML fails: {words}"),
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
    /// Memory at the time of `processes`.
    pub memory: Memory,
    /// Who holds memory; absent where the driver does not say.
    pub processes: Option<Vec<GpuProcess>>,
    /// Whether the engine's unit had any process at the time of `processes`.
    pub engine_unit_active: bool,
}

/// The card's memory in bytes; `total = reserved + used + free`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
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
    /// The systemd unit that it belongs to.
    pub unit: Option<String>,
    /// Bytes; absent where the driver does not say.
    pub used: Option<u64>,
}
