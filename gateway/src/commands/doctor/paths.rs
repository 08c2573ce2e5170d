//! The places on disk: pictures, data, log, and the disks that they are on.

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
    tools::{CommandOutput, SystemTools},
};
use crate::{blocking::blocking, writable_paths::FileKind};

/// A disk that takes longer hangs.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// What launchd's own log of standard error is called.
const STDERR_LOG: &str = "/var/lib/gateway/logs/gateway.stderr.log";

/// What is known of them.
#[derive(Debug)]
pub(super) struct PathsFacts {
    store: Option<PathFacts>,
    holder: Option<LockHolder>,
    data: Option<PathFacts>,
    log: Option<PathFacts>,
    stderr: Option<u64>,
    /// The rule that rotates the log, on a Mac.
    rotation: Option<Rotation>,
    account: Account,
}

/// The process that holds the store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LockHolder {
    process: u32,
    /// Its program, for a terminal.
    program: String,
}

impl LockHolder {
    /// Whether it is the gateway: launchd's job, or a program of that name.
    fn is_gateway(&self, job: Option<u32>) -> bool {
        job == Some(self.process) || self.program.rsplit('/').next() == Some("gateway")
    }
}

impl PathsFacts {
    /// The gateway that runs with the store, though none answers at the configured address. `job` is the process of launchd's job.
    pub(super) fn gateway(&self, job: Option<u32>) -> Option<u32> {
        self.holder.as_ref().filter(|holder| holder.is_gateway(job)).map(|holder| holder.process)
    }
}

/// One of them.
#[derive(Debug, Clone)]
struct PathFacts {
    path: PathBuf,
    kind: FileKind,
    found: PathKind,
    writable: Option<bool>,
    disk: Option<DiskSpace>,
    /// Which disk that is.
    device: Option<u64>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathKind {
    Folder,
    /// With its size.
    File(u64),
    /// Something else.
    Other,
    /// A symbolic link to nowhere.
    Dangling(PathBuf),
    /// Nothing; the nearest folder that is there.
    Nothing(PathBuf),
    /// Something that is no folder stands in the way.
    BlockedBy(PathBuf),
    Hidden(String),
    TimedOut,
}

/// The lines of newsyslog's configuration that name the gateway's logs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rotation {
    /// The path of each rule.
    rules: Vec<String>,
    /// A file of them cannot be read.
    unread: bool,
}

/// Where they are, as configured.
#[derive(Debug, Default)]
pub(super) struct ConfiguredPaths {
    pub(super) store: Option<PathBuf>,
    pub(super) data: Option<PathBuf>,
    pub(super) log: Option<PathBuf>,
}

/// Looks at them. `answers` is whether the gateway does: then the store's lock is its own.
pub(super) async fn inspect(
    tools: &SystemTools,
    account: Account,
    named: ConfiguredPaths,
    is_mac: bool,
    answers: bool,
) -> PathsFacts {
    let place = |path: Option<PathBuf>, kind| {
        let account = &account;
        async move {
            match path {
                Some(path) => Some(inspect_path(tools, account, path, kind).await),
                None => None,
            }
        }
    };
    let lock = named.store.clone().filter(|_| !answers);
    let holder = async { lock_holder(tools, &lock?.join(".lock")).await };
    let (store, data, log, holder) = tokio::join!(
        place(named.store.clone(), FileKind::Folder),
        place(named.data.clone(), FileKind::Folder),
        place(named.log.clone(), FileKind::File),
        holder,
    );
    let stderr = fs::metadata(STDERR_LOG).ok().filter(|_| is_mac).map(|found| found.len());
    let rotation = if is_mac { Some(blocking(|| read_rotation(Path::new("/etc"))).await) } else { None };
    PathsFacts { store, holder, data, log, stderr, rotation, account }
}

async fn inspect_path(tools: &SystemTools, account: &Account, path: PathBuf, kind: FileKind) -> PathFacts {
    let looked = path.clone();
    let looking = blocking(move || {
        let found = path_kind(&looked);
        let at = match &found {
            PathKind::Folder | PathKind::File(_) | PathKind::Other => Some(looked),
            PathKind::Nothing(above) => Some(above.clone()),
            _ => None,
        };
        let disk = at.as_ref().and_then(|at| disk_space(at).ok());
        let device = at.as_ref().and_then(|at| Some(fs::metadata(at).ok()?.dev()));
        (found, at, disk, device)
    });
    let Ok((found, at, disk, device)) = timeout(DISK_TIMEOUT, looking).await else {
        return PathFacts { path, kind, found: PathKind::TimedOut, writable: None, disk: None, device: None };
    };
    let writable = match (&at, &found) {
        // In a folder that is there to be made something in.
        (Some(at), PathKind::Folder | PathKind::Nothing(_)) => {
            match (account.has_access(tools, "-w", at).await, account.has_access(tools, "-x", at).await) {
                (Some(write), Some(search)) => Some(write && search),
                _ => None,
            }
        }
        (Some(at), _) => account.has_access(tools, "-w", at).await,
        (None, _) => None,
    };
    PathFacts { path, kind, found, writable, disk, device }
}

fn path_kind(path: &Path) -> PathKind {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return PathKind::Folder,
        Ok(found) if found.is_file() => return PathKind::File(found.len()),
        Ok(_) => return PathKind::Other,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return PathKind::Hidden(error.to_string());
        }
        Err(_) => {}
    }
    if let Ok(target) = fs::read_link(path) {
        return PathKind::Dangling(target);
    }
    let relative = Path::new(".");
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { relative } else { above };
        match fs::metadata(above) {
            Ok(found) if found.is_dir() => return PathKind::Nothing(above.to_owned()),
            Ok(_) => return PathKind::BlockedBy(above.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return PathKind::Hidden(error.to_string());
            }
            Err(_) => {}
        }
    }
    PathKind::Nothing(relative.to_owned())
}

/// The process that holds the store, if one does. Its number is in the lock's file; that it lives and still holds it is seen.
async fn lock_holder(tools: &SystemTools, lock: &Path) -> Option<LockHolder> {
    let mut file = read_no_follow(lock).ok()?;
    let mut text = String::new();
    Read::by_ref(&mut file).take(200).read_to_string(&mut text).ok()?;
    let process: u32 = text.lines().next()?.trim().parse().ok()?;
    let name = match tools.run("ps", &["-p", &process.to_string(), "-o", "comm="]).await {
        CommandOutput::Done { code: Some(0), text } => text.trim().to_owned(),
        // Without ps its number has to do.
        CommandOutput::NotFound => "a process".to_owned(),
        _ => return None,
    };
    is_locked(&file).then(|| LockHolder { process, program: super::escaped(&name) })
}

fn is_locked(file: &File) -> bool {
    matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Which of newsyslog's rules under this folder are of the gateway's logs.
fn read_rotation(etc: &Path) -> Rotation {
    let mut files = vec![etc.join("newsyslog.conf")];
    let folder = fs::read_dir(etc.join("newsyslog.d")).into_iter().flatten().flatten();
    files.extend(
        folder.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf")),
    );
    let mut rotation = Rotation::default();
    for file in files {
        match fs::read_to_string(&file) {
            Ok(text) => {
                let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
                rotation.rules.extend(text.lines().map(first).filter(|path| path.starts_with('/')));
            }
            Err(error) => rotation.unread |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    rotation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn what_is_at_a_place_is_told_apart() {
        let base = temporary("doctor-places");
        let file = base.join("file");
        fs::write(&file, "abc").unwrap();
        std::os::unix::fs::symlink("/not/mounted", base.join("link")).unwrap();
        for (path, expected) in [
            (base.clone(), PathKind::Folder),
            (file.clone(), PathKind::File(3)),
            (PathBuf::from("/dev/null"), PathKind::Other),
            (base.join("link"), PathKind::Dangling("/not/mounted".into())),
            (base.join("a/b"), PathKind::Nothing(base.clone())),
            (file.join("a/b"), PathKind::BlockedBy(file.clone())),
        ] {
            assert_eq!(path_kind(&path), expected, "{}", path.display());
        }
    }

    #[test]
    fn the_rules_of_newsyslog_are_found_wherever_they_stand() {
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
        assert_eq!(read_rotation(&etc).rules, ["/var/log/a.log", "/var/lib/gateway/logs/gateway.log"]);
    }

    #[tokio::test]
    async fn a_lock_is_told_with_its_holder_while_it_is_held() {
        let base = temporary("doctor-lock");
        let (lock, tools) = (base.join(".lock"), SystemTools::new(None));
        assert_eq!(lock_holder(&tools, &lock).await, None);
        fs::write(&lock, format!("{}\ngateway 0.1.0\n", std::process::id())).unwrap();
        assert_eq!(lock_holder(&tools, &lock).await, None, "it lives, and holds nothing");
        let held = File::open(&lock).unwrap();
        held.lock().unwrap();
        let finding = lock_holder(&tools, &lock).await.unwrap();
        assert_eq!(finding.process, std::process::id(), "{finding:?}");
        drop(held);
        fs::write(&lock, "4194999\ngateway 0.1.0\n").unwrap();
        assert_eq!(lock_holder(&tools, &lock).await, None);
    }
}
