//! The store on disk: a file appears under its name only when it is whole and flushed. Everything here blocks and
//! is called from blocking threads.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use shared::service::settings::Problem;

use super::{
    Picture, PictureName, StoreFault,
    lock::{LockFault, StoreLock},
};

/// How an unfinished file is called. Nothing else is ever swept.
const UNFINISHED: (&str, &str) = (".incoming-", ".tmp");

/// The store. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: Arc<PathBuf>,
    _lock: Arc<StoreLock>,
}

/// What is under a name.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Where.
    pub path: PathBuf,
    /// The type by its first bytes.
    pub mime: &'static str,
}

impl Store {
    /// Makes the directory if needed, takes it for this process, sees that it can be written, removes what an
    /// earlier process left unfinished.
    pub(crate) fn open(dir: &Path) -> Result<Self, Problem> {
        let wrong = |why: String| Problem::new("UI_IMAGE_DIR", dir.display().to_string(), why);
        let unwritable = |error: std::io::Error| wrong(unwritable(dir, &error));
        fs::create_dir_all(dir).map_err(unwritable)?;
        let lock = StoreLock::take(dir).map_err(|fault| match fault {
            LockFault::Held(holder) => {
                wrong(format!("expected a picture store of this process alone; it is held by {holder}"))
            }
            LockFault::Io(error) => unwritable(error),
        })?;
        let store = Self { dir: Arc::new(dir.to_owned()), _lock: Arc::new(lock) };
        store.try_write().map_err(unwritable)?;
        store.sweep().map_err(unwritable)?;
        Ok(store)
    }

    /// Keeps the pictures, made at `unix` seconds, and gives their names in the same order. When it returns, they
    /// outlast a crash.
    pub(crate) fn keep(&self, pictures: &[&Picture], unix: u64) -> Result<Vec<PictureName>, StoreFault> {
        let mut names = Vec::with_capacity(pictures.len());
        for picture in pictures {
            let name = picture.name(unix);
            self.place(&name, picture.bytes())?;
            names.push(name);
        }
        File::open(self.dir.as_path())?.sync_all()?;
        Ok(names)
    }

    fn place(&self, name: &PictureName, bytes: &[u8]) -> Result<(), StoreFault> {
        let target = self.dir.join(name.as_str());
        match fs::read(&target) {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_) => return Err(StoreFault::Collision(name.clone())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let unfinished = Unfinished::create(&self.dir)?;
        unfinished.fill(bytes)?;
        fs::rename(&unfinished.path, &target)?;
        Ok(())
    }

    /// What is under a name, if a picture is.
    pub(crate) fn find(&self, name: &PictureName) -> Option<Stored> {
        let path = self.dir.join(name.as_str());
        if !fs::symlink_metadata(&path).ok()?.is_file() {
            return None;
        }
        let mut head = Vec::with_capacity(16);
        File::open(&path).ok()?.take(16).read_to_end(&mut head).ok()?;
        Some(Stored { path, mime: mime(&head, name) })
    }

    /// Whether a file can be made now.
    pub(crate) fn try_write(&self) -> std::io::Result<()> {
        Unfinished::create(&self.dir)?.file.write_all(b"x")
    }

    /// Removes our own unfinished files.
    fn sweep(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(is_unfinished);
            if ours && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// `.incoming-{32 hex digits}.tmp`.
fn is_unfinished(name: &str) -> bool {
    let inside = name.strip_prefix(UNFINISHED.0).and_then(|name| name.strip_suffix(UNFINISHED.1));
    inside.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A file being written; removed unless it was renamed.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn create(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join(format!("{}{}{}", UNFINISHED.0, uuid::Uuid::new_v4().simple(), UNFINISHED.1));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }

    fn fill(&self, bytes: &[u8]) -> std::io::Result<()> {
        (&self.file).write_all(bytes)?;
        self.file.sync_all()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The type by the bytes; an earlier system's files are served as what they are, too.
fn mime(head: &[u8], name: &PictureName) -> &'static str {
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        "image/png"
    } else if head.starts_with(&[0xFF, 0xD8, 0xFF]) {
        "image/jpeg"
    } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        "image/webp"
    } else if name.is_svg() && head.trim_ascii_start().starts_with(b"<") {
        "image/svg+xml"
    } else {
        "application/octet-stream"
    }
}

/// What is wrong, who owns the nearest directory that exists, and what mends it.
fn unwritable(dir: &Path, error: &std::io::Error) -> String {
    let owner = dir
        .ancestors()
        .find_map(|path| fs::metadata(path).ok().map(|found| (path, found)))
        .map_or_else(String::new, |(path, found)| {
            format!("; {} is owned by uid {}", path.display(), found.uid())
        });
    let quoted = format!("'{}'", dir.display().to_string().replace('\'', "'\\''"));
    format!(
        "expected a directory that the gateway can write: {error}{owner}; as the gateway's user run: \
         sudo mkdir -p {quoted} && sudo chown \"$(id -un)\" {quoted}"
    )
}

#[cfg(test)]
pub(crate) mod tests;
