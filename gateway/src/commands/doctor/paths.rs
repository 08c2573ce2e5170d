//! The paths that the gateway writes to: images, data, log, and their disks.

mod rules;

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use service::files::{DiskSpace, disk_space, read_no_follow};
use tokio::time::timeout;

pub(super) use self::rules::findings;
use super::{
    account::Account,
    launchd::STDERR_LOG,
    tools::{CommandOutput, SystemTools},
};
use crate::{blocking::blocking, writable_paths::FileKind};

/// A disk that takes longer hangs.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct PathsFacts {
    store: Option<PathFacts>,
    holder: Option<LockHolder>,
    data: Option<PathFacts>,
    log: Option<PathFacts>,
    /// The size of launchd's log of standard error.
    stderr_size: Option<u64>,
    /// On a Mac.
    rotation: Option<Rotation>,
    account: Account,
}

/// The process that has locked the store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LockHolder {
    process: u32,
    program: String,
}

impl LockHolder {
    /// Whether it is a gateway: the launchd job, or a program of that name.
    fn is_gateway(&self, job: Option<u32>) -> bool {
        job == Some(self.process) || self.program.rsplit('/').next() == Some("gateway")
    }
}

impl PathsFacts {
    /// The running gateway that has locked the store, though none answers at the configured address. `job` is the launchd job's
    /// process.
    pub(super) fn gateway(&self, job: Option<u32>) -> Option<u32> {
        self.holder.as_ref().filter(|holder| holder.is_gateway(job)).map(|holder| holder.process)
    }
}

#[derive(Debug, Clone)]
struct PathFacts {
    path: PathBuf,
    kind: FileKind,
    state: PathState,
    /// None if unknown.
    is_writable: Option<bool>,
    disk: Option<DiskSpace>,
    device: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PathState {
    Dir,
    /// With its size.
    File(u64),
    /// Neither directory nor file.
    Other,
    /// A symbolic link to nothing.
    Dangling(PathBuf),
    /// Nothing, below this directory.
    Missing(PathBuf),
    /// A parent is not a directory.
    BlockedBy(PathBuf),
    Hidden(String),
    TimedOut,
}

/// newsyslog's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rotation {
    /// The path of each rule.
    paths: Vec<String>,
    /// Whether part of it cannot be read.
    is_incomplete: bool,
}

#[derive(Debug, Default)]
pub(super) struct ConfiguredPaths {
    pub(super) store: Option<PathBuf>,
    pub(super) data: Option<PathBuf>,
    pub(super) log: Option<PathBuf>,
}

/// `answers` is whether the gateway does: then it holds the store's lock.
pub(super) async fn inspect(
    tools: &SystemTools,
    account: Account,
    configured: ConfiguredPaths,
    is_mac: bool,
    answers: bool,
) -> PathsFacts {
    let inspect = async |path: Option<&PathBuf>, kind| match path {
        Some(path) => Some(inspect_path(tools, &account, path.clone(), kind).await),
        None => None,
    };
    let lock = configured.store.as_ref().filter(|_| !answers).map(|store| store.join(".lock"));
    let (store, data, log, holder) = tokio::join!(
        inspect(configured.store.as_ref(), FileKind::Directory),
        inspect(configured.data.as_ref(), FileKind::Directory),
        inspect(configured.log.as_ref(), FileKind::File),
        async { lock_holder(tools, &lock?).await },
    );
    let stderr_size = fs::metadata(STDERR_LOG).ok().filter(|_| is_mac).map(|file| file.len());
    let rotation = if is_mac { Some(blocking(|| read_rotation(Path::new("/etc"))).await) } else { None };
    PathsFacts { store, holder, data, log, stderr_size, rotation, account }
}

async fn inspect_path(tools: &SystemTools, account: &Account, path: PathBuf, kind: FileKind) -> PathFacts {
    let inspected = path.clone();
    let inspection = blocking(move || {
        let state = path_state(&inspected);
        let existing = match &state {
            PathState::Dir | PathState::File(_) | PathState::Other => Some(inspected),
            PathState::Missing(parent) => Some(parent.clone()),
            _ => None,
        };
        let disk = existing.as_ref().and_then(|path| disk_space(path).ok());
        let device = existing.as_ref().and_then(|path| Some(fs::metadata(path).ok()?.dev()));
        (state, existing, disk, device)
    });
    let Ok((state, existing, disk, device)) = timeout(DISK_TIMEOUT, inspection).await else {
        let state = PathState::TimedOut;
        return PathFacts { path, kind, state, is_writable: None, disk: None, device: None };
    };
    let is_writable = match (&existing, &state) {
        // Files must be created in this directory.
        (Some(dir), PathState::Dir | PathState::Missing(_)) => {
            match (account.has_access(tools, "-w", dir).await, account.has_access(tools, "-x", dir).await) {
                (Some(write), Some(search)) => Some(write && search),
                _ => None,
            }
        }
        (Some(path), _) => account.has_access(tools, "-w", path).await,
        (None, _) => None,
    };
    PathFacts { path, kind, state, is_writable, disk, device }
}

fn path_state(path: &Path) -> PathState {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return PathState::Dir,
        Ok(metadata) if metadata.is_file() => return PathState::File(metadata.len()),
        Ok(_) => return PathState::Other,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return PathState::Hidden(error.to_string());
        }
        Err(_) => {}
    }
    if let Ok(target) = fs::read_link(path) {
        return PathState::Dangling(target);
    }
    let current_dir = Path::new(".");
    for parent in path.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { current_dir } else { parent };
        match fs::metadata(parent) {
            Ok(metadata) if metadata.is_dir() => return PathState::Missing(parent.to_owned()),
            Ok(_) => return PathState::BlockedBy(parent.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return PathState::Hidden(error.to_string());
            }
            Err(_) => {}
        }
    }
    PathState::Missing(current_dir.to_owned())
}

/// The process that holds the store's lock. Its number is in the lock file; a stale one is ignored.
async fn lock_holder(tools: &SystemTools, lock: &Path) -> Option<LockHolder> {
    let mut file = read_no_follow(lock).ok()?;
    let mut text = String::new();
    Read::by_ref(&mut file).take(200).read_to_string(&mut text).ok()?;
    let process: u32 = text.lines().next()?.trim().parse().ok()?;
    let name = match tools.run("ps", &["-p", &process.to_string(), "-o", "comm="]).await {
        CommandOutput::Done { code: Some(0), text } => text.trim().to_owned(),
        // Without ps, its name stays unknown.
        CommandOutput::NotFound => "a process".to_owned(),
        _ => return None,
    };
    is_locked(&file).then_some(LockHolder { process, program: name })
}

fn is_locked(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// The paths in newsyslog's configuration below `etc`.
fn read_rotation(etc: &Path) -> Rotation {
    let mut files = vec![etc.join("newsyslog.conf")];
    let included = fs::read_dir(etc.join("newsyslog.d")).into_iter().flatten().flatten();
    let included = included.map(|entry| entry.path());
    files.extend(included.filter(|path| path.extension().is_some_and(|extension| extension == "conf")));
    let mut rotation = Rotation::default();
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => {
                let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
                rotation.paths.extend(text.lines().map(first).filter(|path| path.starts_with('/')));
            }
            Err(error) => rotation.is_incomplete |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    rotation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn the_states_of_a_path_are_distinguished() {
        let base = temporary("doctor-places");
        let file = base.join("file");
        fs::write(&file, "abc").unwrap();
        std::os::unix::fs::symlink("/not/mounted", base.join("link")).unwrap();
        for (path, expected) in [
            (base.clone(), PathState::Dir),
            (file.clone(), PathState::File(3)),
            (PathBuf::from("/dev/null"), PathState::Other),
            (base.join("link"), PathState::Dangling("/not/mounted".into())),
            (base.join("a/b"), PathState::Missing(base.clone())),
            (file.join("a/b"), PathState::BlockedBy(file.clone())),
        ] {
            assert_eq!(path_state(&path), expected, "{}", path.display());
        }
    }

    #[test]
    fn newsyslogs_rules_are_found_in_every_file() {
        let etc = temporary("doctor-newsyslog");
        assert_eq!(read_rotation(&etc), Rotation::default());
        fs::create_dir(etc.join("newsyslog.d")).unwrap();
        fs::write(etc.join("newsyslog.conf"), "# logfilename\n/var/log/a.log  640 5 * $D0 J\n<include> /x\n")
            .unwrap();
        fs::write(
            etc.join("newsyslog.d/g.conf"),
            "#/no\n/var/lib/gateway/logs/gateway.log _gateway:admin 640 7 10240 * JN\n",
        )
        .unwrap();
        fs::write(etc.join("newsyslog.d/g.conf.off"), "/other.log\n").unwrap();
        assert_eq!(read_rotation(&etc).paths, ["/var/log/a.log", "/var/lib/gateway/logs/gateway.log"]);
    }

    #[tokio::test]
    async fn a_lock_has_a_holder_only_while_it_is_held() {
        let base = temporary("doctor-lock");
        let (lock, tools) = (base.join(".lock"), SystemTools::new(None));
        assert_eq!(lock_holder(&tools, &lock).await, None);
        fs::write(&lock, format!("{}\ngateway 0.1.0\n", std::process::id())).unwrap();
        assert_eq!(lock_holder(&tools, &lock).await, None, "the process exists, without holding the lock");
        let held = File::open(&lock).unwrap();
        held.lock().unwrap();
        let holder = lock_holder(&tools, &lock).await.unwrap();
        assert_eq!(holder.process, std::process::id(), "{holder:?}");
        drop(held);
        fs::write(&lock, "4194999\ngateway 0.1.0\n").unwrap();
        assert_eq!(lock_holder(&tools, &lock).await, None);
    }
}
