//! The host: memory, swap, the disk of the engine's output directory, and the engine's processes. Sampled by a separate
//! thread, because a disk can hang.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use sysinfo::{Disks, Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::watch;
use tracing::warn;

use crate::gpu::processes::pids_of_unit;

/// Between samples.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is sampled.
#[derive(Debug, Clone)]
pub struct HostSamplerConfig {
    /// The engine's output directory.
    pub output_dir: Option<PathBuf>,
    /// The engine's systemd unit.
    pub engine_unit: String,
    /// Whether the engine is this process.
    pub is_engine_in_process: bool,
}

/// One sample. Sizes are in bytes.
#[derive(Debug, Clone)]
pub struct HostSample {
    /// When it was taken.
    pub taken: Instant,
    /// All memory.
    pub memory_total: u64,
    /// Memory that is available without swapping.
    pub memory_available: u64,
    /// All swap.
    pub swap_total: u64,
    /// Swap in use.
    pub swap_used: u64,
    /// The disk of the engine's output directory.
    pub disk: OutputDisk,
    /// The engine's processes, if its unit has any.
    pub engine: Option<EngineProcess>,
}

/// The disk of the engine's output directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputDisk {
    /// The directory is not configured.
    NotConfigured,
    /// The directory does not exist, or is hidden from us.
    NotFound(PathBuf),
    /// Its space.
    Found {
        /// Where it is mounted.
        mount: PathBuf,
        /// In all.
        total: u64,
        /// What an ordinary user may still write.
        available: u64,
    },
}

/// The engine's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineProcess {
    /// Of the first, which started the others.
    pub pid: u32,
    /// How many.
    pub count: usize,
    /// Their resident memory.
    pub resident_bytes: u64,
}

/// Starts the thread `host`, which ends when every receiver is gone.
pub fn start(config: HostSamplerConfig) -> io::Result<watch::Receiver<Option<Arc<HostSample>>>> {
    let (sender, receiver) = watch::channel(None);
    thread::Builder::new().name("host".to_owned()).spawn(move || {
        let mut system = match System::new() {
            Ok(system) => system,
            Err(error) => {
                return warn!(%error, "cannot read host statistics; the checks disk and host_memory stay unknown");
            }
        };
        while !sender.is_closed() {
            sender.send_replace(Some(Arc::new(sample(&mut system, &config))));
            thread::sleep(INTERVAL);
        }
    })?;
    Ok(receiver)
}

/// Takes one sample.
pub fn sample(system: &mut System, config: &HostSamplerConfig) -> HostSample {
    system.refresh_memory();
    let pids = if config.is_engine_in_process {
        vec![std::process::id()]
    } else {
        pids_of_unit(Path::new("/sys/fs/cgroup"), &config.engine_unit)
    };
    HostSample {
        taken: Instant::now(),
        memory_total: system.total_memory(),
        memory_available: system.available_memory(),
        swap_total: system.total_swap(),
        swap_used: system.used_swap(),
        disk: config.output_dir.as_deref().map_or(OutputDisk::NotConfigured, disk),
        engine: engine(system, &pids),
    }
}

fn engine(system: &mut System, pids: &[u32]) -> Option<EngineProcess> {
    let pids: Vec<_> = pids.iter().map(|pid| Pid::from_u32(*pid)).collect();
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&pids), true, what);
    let alive: Vec<_> = pids.iter().filter_map(|pid| system.process(*pid)).collect();
    Some(EngineProcess {
        pid: alive.first()?.pid().as_u32(),
        count: alive.len(),
        resident_bytes: alive.iter().map(|process| process.memory()).sum(),
    })
}

fn disk(dir: &Path) -> OutputDisk {
    let Ok(canonical) = fs::canonicalize(dir) else { return OutputDisk::NotFound(dir.to_owned()) };
    let Ok(disks) = Disks::new_with_refreshed_list() else { return OutputDisk::NotFound(dir.to_owned()) };
    let candidates = disks.iter().filter(|disk| canonical.starts_with(disk.mount_point()));
    match candidates.max_by_key(|disk| disk.mount_point().components().count()) {
        Some(disk) => OutputDisk::Found {
            mount: disk.mount_point().to_owned(),
            total: disk.total_space(),
            available: disk.available_space(),
        },
        None => OutputDisk::NotFound(dir.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_this_process_are_sampled() {
        let watch = HostSamplerConfig {
            output_dir: Some(std::env::temp_dir()),
            engine_unit: "x.service".into(),
            is_engine_in_process: true,
        };
        let sample = sample(&mut System::new().unwrap(), &watch);
        assert!(sample.memory_total > sample.memory_available && sample.memory_available > 0);
        let engine = sample.engine.unwrap();
        assert_eq!((engine.pid, engine.count), (std::process::id(), 1));
        assert!(engine.resident_bytes > 1 << 20);
        assert!(
            matches!(sample.disk, OutputDisk::Found { total, available, .. } if total >= available && total > 0)
        );
    }

    #[test]
    fn missing_things_are_reported_as_missing() {
        let watch = HostSamplerConfig {
            output_dir: Some("/no/such".into()),
            engine_unit: "no-such.service".into(),
            is_engine_in_process: false,
        };
        let sample = sample(&mut System::new().unwrap(), &watch);
        assert_eq!((sample.disk, sample.engine), (OutputDisk::NotFound("/no/such".into()), None));
    }
}
