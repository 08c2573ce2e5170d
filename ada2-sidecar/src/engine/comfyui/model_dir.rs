//! The engine's models directory on this host: what the headers of its files say. Only regular files below it are read, and
//! only their headers; symbolic links are followed, because models often lie on another disk.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::Semaphore;
use tracing::warn;

use crate::{
    images::models::{ModelKind, Tensors, kind_from_header},
    sandbox,
};

/// The longest header that is read. Those of models are below 2 MiB, thumbnails in them aside.
const MAX_HEADER: u64 = 16 << 20;
const EXTENSIONS: [&str; 2] = [".safetensors", ".sft"];

/// Which of the engine's lists names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Folder {
    Checkpoints,
    DiffusionModels,
}

impl Folder {
    /// Its directories, the one that the engine's loaders take first being the first.
    fn directories(self) -> &'static [&'static str] {
        match self {
            Self::Checkpoints => &["checkpoints"],
            Self::DiffusionModels => &["unet", "diffusion_models"],
        }
    }
}

/// A file in one of the engine's lists.
type ListedFile = (Folder, String);

/// Identifies a version of a file: its header is read once for each.
type Stamp = (Option<SystemTime>, u64);

/// The directory.
#[derive(Debug)]
pub(super) struct ModelDir(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// One reader at a time: a disk that hangs holds one thread.
    reader: Arc<Semaphore>,
    kinds: Mutex<HashMap<ListedFile, (Stamp, Option<ModelKind>)>>,
    /// Whether it was reported that the directory cannot be read.
    warned: AtomicBool,
}

impl ModelDir {
    pub(super) fn new(root: PathBuf) -> Self {
        let reader = Arc::new(Semaphore::new(1));
        Self(Arc::new(Shared { root, reader, kinds: Mutex::default(), warned: AtomicBool::new(false) }))
    }

    /// Reads the headers of those files that are new or have changed, and forgets those of all others. Goes on if the caller
    /// stops waiting.
    pub(super) async fn read(&self, files: Vec<ListedFile>) {
        let Ok(reader) = self.0.reader.clone().acquire_owned().await else { return };
        let shared = self.0.clone();
        let reading = tokio::task::spawn_blocking(move || {
            shared.read_all(&files);
            drop(reader);
        });
        // A panic leaves the rest unread.
        let _ = reading.await;
    }

    /// What the file is by its header, if that was read and says it.
    pub(super) fn kind(&self, folder: Folder, file: &str) -> Option<ModelKind> {
        self.0.kinds().get(&(folder, file.to_owned())).and_then(|(_, kind)| kind.clone())
    }
}

impl Shared {
    fn kinds(&self) -> MutexGuard<'_, HashMap<ListedFile, (Stamp, Option<ModelKind>)>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_all(&self, files: &[ListedFile]) {
        let listed: HashSet<_> = files.iter().collect();
        self.kinds().retain(|file, _| listed.contains(file));
        match fs::read_dir(self.root.join(Folder::Checkpoints.directories()[0])) {
            Ok(_) => self.warned.store(false, Ordering::Relaxed),
            Err(error) => return self.warn_once(&error),
        }
        for listed in files {
            self.read_file(listed);
        }
    }

    fn warn_once(&self, error: &io::Error) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let hint = sandbox::access_hint(&self.root, error.kind()).unwrap_or_default();
            warn!(
                "engine_model_dir {}: its directory checkpoints cannot be read ({error}); models are classified by metadata \
                 and name alone{hint}",
                self.root.display()
            );
        }
    }

    fn read_file(&self, listed: &ListedFile) {
        let (folder, name) = listed;
        if !EXTENSIONS.iter().any(|extension| name.ends_with(extension)) || !is_inside(Path::new(name)) {
            return;
        }
        let found = folder.directories().iter().find_map(|directory| {
            let path = self.root.join(directory).join(name);
            // Opening a FIFO would wait for a writer.
            let metadata = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            Some((path, (metadata.modified().ok(), metadata.len())))
        });
        let Some((path, stamp)) = found else {
            self.kinds().remove(listed);
            return;
        };
        if self.kinds().get(listed).is_some_and(|(read, _)| *read == stamp) {
            return;
        }
        // Permissions may change without the file.
        let Ok(file) = File::open(path) else { return };
        let kind = read_header(file, stamp.1).ok().and_then(|tensors| kind_from_header(&tensors));
        self.kinds().insert(listed.clone(), (stamp, kind));
    }
}

/// Whether the name leads to no other directory: the engine's list is not to be trusted with that.
fn is_inside(name: &Path) -> bool {
    name.components().all(|component| matches!(component, Component::Normal(_)))
}

/// The tensors in the header: its length in 8 bytes, then JSON.
fn read_header(mut file: impl Read, size: u64) -> io::Result<Tensors> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8).min(MAX_HEADER) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(serde_json::from_reader(BufReader::new(file.take(length)))?)
}

#[cfg(test)]
mod tests;
