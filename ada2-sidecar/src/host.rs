//! The host around the card: memory, swap, the disk that the engine writes its pictures to, and the engine's process. A
//! thread of its own looks, because a disk can hang; nobody waits for it.

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

/// Between looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is looked at.
#[derive(Debug, Clone)]
pub struct HostSamplerConfig {
    /// Where the engine writes its pictures.
    pub output_dir: Option<PathBuf>,
    /// The engine's systemd unit.
    pub engine_unit: String,
    /// Whether the engine is this very process.
    pub is_engine_in_process: bool,
}

/// One look. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct HostSample {
    /// When.
    pub taken: Instant,
    /// All memory.
    pub memory_total: u64,
    /// Memory that a program could have without swapping.
    pub memory_available: u64,
    /// All swap.
    pub swap_total: u64,
    /// Swap in use.
    pub swap_used: u64,
    /// The disk of the engine's pictures.
    pub disk: OutputDisk,
    /// The engine's process, if its unit has one.
    pub engine: Option<EngineProcess>,
}

/// The disk that the engine's pictures go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputDisk {
    /// Nobody said which.
    NotConfigured,
    /// The folder is not there, or hidden from us.
    NotFound(PathBuf),
    /// Its room.
    Found {
        /// Where it is mounted.
        mount: PathBuf,
        /// All.
        total: u64,
        /// What an ordinary user may still write.
        available: u64,
    },
}

/// The engine's processes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineProcess {
    /// The first, which started the others.
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
                return warn!(%error, "the host cannot be looked at: disk and host_memory stay unknown");
            }
        };
        while !sender.is_closed() {
            sender.send_replace(Some(Arc::new(sample(&mut system, &config))));
            thread::sleep(INTERVAL);
        }
    })?;
    Ok(receiver)
}

/// One look now.
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

fn disk(folder: &Path) -> OutputDisk {
    let Ok(real) = fs::canonicalize(folder) else { return OutputDisk::NotFound(folder.to_owned()) };
    let Ok(disks) = Disks::new_with_refreshed_list() else { return OutputDisk::NotFound(folder.to_owned()) };
    let holding = disks.iter().filter(|disk| real.starts_with(disk.mount_point()));
    match holding.max_by_key(|disk| disk.mount_point().components().count()) {
        Some(disk) => OutputDisk::Found {
            mount: disk.mount_point().to_owned(),
            total: disk.total_space(),
            available: disk.available_space(),
        },
        None => OutputDisk::NotFound(folder.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_this_process_are_seen() {
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
    fn what_is_not_there_is_not_guessed() {
        let watch = HostSamplerConfig {
            output_dir: Some("/no/such".into()),
            engine_unit: "no-such.service".into(),
            is_engine_in_process: false,
        };
        let sample = sample(&mut System::new().unwrap(), &watch);
        assert_eq!((sample.disk, sample.engine), (OutputDisk::NotFound("/no/such".into()), None));
    }
}
