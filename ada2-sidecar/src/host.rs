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
pub struct Watch {
    /// Where the engine writes its pictures.
    pub output_dir: Option<PathBuf>,
    /// The engine's systemd unit.
    pub engine_unit: String,
    /// Whether the engine is this very process.
    pub engine_is_us: bool,
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
    pub disk: Disk,
    /// The engine's process, if its unit has one.
    pub engine: Option<EngineProcess>,
}

/// The disk that the engine's pictures go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disk {
    /// Nobody said which.
    NotConfigured,
    /// The folder is not there, or hidden from us.
    NotSeen(PathBuf),
    /// Its room.
    Seen {
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
    pub resident: u64,
}

/// Starts the thread `host`, which ends when every receiver is gone.
pub fn start(watch: Watch) -> io::Result<watch::Receiver<Option<Arc<HostSample>>>> {
    let (sender, receiver) = watch::channel(None);
    thread::Builder::new().name("host".to_owned()).spawn(move || {
        let mut system = match System::new() {
            Ok(system) => system,
            Err(error) => {
                return warn!(%error, "the host cannot be looked at: disk and host_memory stay unknown");
            }
        };
        while !sender.is_closed() {
            sender.send_replace(Some(Arc::new(look(&mut system, &watch))));
            thread::sleep(INTERVAL);
        }
    })?;
    Ok(receiver)
}

/// One look now.
pub fn look(system: &mut System, watch: &Watch) -> HostSample {
    system.refresh_memory();
    let pids = if watch.engine_is_us {
        vec![std::process::id()]
    } else {
        pids_of_unit(Path::new("/sys/fs/cgroup"), &watch.engine_unit)
    };
    HostSample {
        taken: Instant::now(),
        memory_total: system.total_memory(),
        memory_available: system.available_memory(),
        swap_total: system.total_swap(),
        swap_used: system.used_swap(),
        disk: watch.output_dir.as_deref().map_or(Disk::NotConfigured, disk),
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
        resident: alive.iter().map(|process| process.memory()).sum(),
    })
}

fn disk(folder: &Path) -> Disk {
    let Ok(real) = fs::canonicalize(folder) else { return Disk::NotSeen(folder.to_owned()) };
    let Ok(disks) = Disks::new_with_refreshed_list() else { return Disk::NotSeen(folder.to_owned()) };
    let holding = disks.iter().filter(|disk| real.starts_with(disk.mount_point()));
    match holding.max_by_key(|disk| disk.mount_point().components().count()) {
        Some(disk) => Disk::Seen {
            mount: disk.mount_point().to_owned(),
            total: disk.total_space(),
            available: disk.available_space(),
        },
        None => Disk::NotSeen(folder.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_this_process_are_seen() {
        let watch = Watch {
            output_dir: Some(std::env::temp_dir()),
            engine_unit: "x.service".into(),
            engine_is_us: true,
        };
        let sample = look(&mut System::new().unwrap(), &watch);
        assert!(sample.memory_total > sample.memory_available && sample.memory_available > 0);
        let engine = sample.engine.unwrap();
        assert_eq!((engine.pid, engine.count), (std::process::id(), 1));
        assert!(engine.resident > 1 << 20);
        assert!(
            matches!(sample.disk, Disk::Seen { total, available, .. } if total >= available && total > 0)
        );
    }

    #[test]
    fn what_is_not_there_is_not_guessed() {
        let watch = Watch {
            output_dir: Some("/no/such".into()),
            engine_unit: "no-such.service".into(),
            engine_is_us: false,
        };
        let sample = look(&mut System::new().unwrap(), &watch);
        assert_eq!((sample.disk, sample.engine), (Disk::NotSeen("/no/such".into()), None));
    }
}
