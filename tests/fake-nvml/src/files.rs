//! The two files beside this copy of the library, opened as rarely as possible: a call costs a look at the scenario's
//! inode and a line in the list of calls. State belongs to this copy alone.

use std::{
    ffi::{CStr, OsStr, c_void},
    fs::{self, File, Metadata, OpenOptions},
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::{
    CALLS_FILE, SCENARIO_FILE, Scenario,
    call::{Code, UNKNOWN},
};

/// State between calls.
struct OpenFiles {
    calls: Option<File>,
    scenario: Option<LastRead>,
}

static OPEN_FILES: Mutex<OpenFiles> = Mutex::new(OpenFiles { calls: None, scenario: None });

/// The scenario as it was last read.
struct LastRead {
    stamp: FileStamp,
    /// `None` if it was no scenario.
    scenario: Option<Arc<Scenario>>,
    /// Open, so that no later file can get the same inode number.
    _file: File,
}

/// Two files with the same mark have the same contents.
#[derive(PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    changed: (i64, i64),
    size: u64,
}

impl FileStamp {
    fn of(file: &Metadata) -> Self {
        Self { inode: file.ino(), changed: (file.mtime(), file.mtime_nsec()), size: file.size() }
    }
}

/// One write, to a file that is only ever appended to: lines of several threads do not mix. A test that is over has
/// removed the directory, and then nobody reads it.
pub(crate) fn log_call(symbol: &str) {
    let Some(Paths { calls, .. }) = paths() else { return };
    let mut files = open_files();
    if files.calls.is_none() {
        files.calls = OpenOptions::new().append(true).create(true).open(calls).ok();
    }
    if let Some(calls) = &mut files.calls {
        let _ = calls.write_all(format!("{symbol}\n").as_bytes());
    }
}

/// What the machine is like now.
pub(crate) fn scenario() -> Result<Arc<Scenario>, Code> {
    let path = &paths().ok_or(UNKNOWN)?.scenario;
    let now = FileStamp::of(&fs::metadata(path).map_err(|_| UNKNOWN)?);
    let mut files = open_files();
    if files.scenario.as_ref().is_none_or(|last| last.stamp != now) {
        files.scenario = Some(read(path).ok_or(UNKNOWN)?);
    }
    files.scenario.as_ref().and_then(|last| last.scenario.clone()).ok_or(UNKNOWN)
}

/// Closes the files. After the last shutdown the library may be unloaded, and then nobody else could.
pub(crate) fn close_files() {
    *open_files() = OpenFiles { calls: None, scenario: None };
}

fn open_files() -> MutexGuard<'static, OpenFiles> {
    OPEN_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(path: &Path) -> Option<LastRead> {
    let mut file = File::open(path).ok()?;
    let mark = FileStamp::of(&file.metadata().ok()?);
    let mut json = Vec::new();
    file.read_to_end(&mut json).ok()?;
    Some(LastRead { stamp: mark, scenario: serde_json::from_slice(&json).ok().map(Arc::new), _file: file })
}

struct Paths {
    dir: PathBuf,
    scenario: PathBuf,
    calls: PathBuf,
}

/// Where scenarios are renamed into place.
pub(crate) fn dir() -> Option<&'static Path> {
    paths().map(|paths| paths.dir.as_path())
}

fn paths() -> Option<&'static Paths> {
    static PATHS: OnceLock<Option<Paths>> = OnceLock::new();
    let beside = |dir: PathBuf| Paths { scenario: dir.join(SCENARIO_FILE), calls: dir.join(CALLS_FILE), dir };
    PATHS.get_or_init(|| library_dir().map(beside)).as_ref()
}

/// Where this copy of the library was loaded from.
fn library_dir() -> Option<PathBuf> {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: the address is of a function in this library, and `found` is ours to be written.
    let result = unsafe { libc::dladdr(library_dir as *const c_void, &raw mut found) };
    if result == 0 || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's string, which lives as long as the library is loaded.
    let path = unsafe { CStr::from_ptr(found.dli_fname) };
    Path::new(OsStr::from_bytes(path.to_bytes())).parent().map(Path::to_owned)
}
