//! Small versions of the stored images, for lists of them: made when first asked for, and kept in a directory of their own below
//! the images. They can be made again at any time, so they do not count towards the store's size, and what fails here fails
//! nothing else.

mod index;
mod render;

use std::{
    fs,
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use service::files::{create_group_readable_dir, read_no_follow};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{debug, info, warn};

use self::index::ThumbnailIndex;
use super::{ImageName, StoreError, changes, staging::TempFile, writable::check_free_space};
use crate::blocking::blocking;

/// In the store's directory.
const FOLDER: &str = ".thumbnails";
/// After the image's name.
const EXTENSION: &str = ".webp";
/// Requests that may wait while one image is decoded.
const MAX_WAITING: usize = 64;
/// For so long at most.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Bounds what is read of one file.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why there is no thumbnail.
#[derive(Debug)]
pub(crate) enum ThumbnailError {
    /// No such image, or none that can be decoded.
    NotFound,
    /// Too many are waited for.
    Busy,
    Io(io::Error),
}

#[derive(Debug)]
pub(crate) struct Thumbnails {
    images: Arc<PathBuf>,
    dir: PathBuf,
    index: Mutex<ThumbnailIndex>,
    /// One image is decoded at a time.
    turn: Arc<Semaphore>,
    /// Of those that wait, and the one whose turn it is.
    places: Arc<Semaphore>,
    /// Whether the last one could not be kept.
    failing: AtomicBool,
}

impl Thumbnails {
    /// Removes what is left of unfinished thumbnails and of images that are gone.
    pub(super) fn open(images: Arc<PathBuf>) -> Self {
        let thumbnails = Self {
            dir: images.join(FOLDER),
            images,
            index: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            places: Arc::new(Semaphore::new(MAX_WAITING + 1)),
            failing: AtomicBool::new(false),
        };
        if let Err(error) = thumbnails.sweep() {
            warn!(dir = %thumbnails.dir.display(), %error, "the directory of thumbnails cannot be read");
        }
        thumbnails
    }

    /// The thumbnail of an image, a WebP file.
    pub(crate) async fn get(self: &Arc<Self>, name: &ImageName) -> Result<Bytes, ThumbnailError> {
        if name.is_svg() {
            return Err(ThumbnailError::NotFound);
        }
        let (thumbnails, image) = (self.clone(), name.clone());
        if let Some(kept) = blocking(move || thumbnails.read(&image)).await {
            return Ok(kept);
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| ThumbnailError::Busy)?;
        let turn = timeout(MAX_WAIT, self.turn.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| ThumbnailError::Busy)?.map_err(|_| ThumbnailError::Busy)?;
        let (thumbnails, image) = (self.clone(), name.clone());
        // Both are held until the work is done, even if nobody waits for it any more.
        blocking(move || {
            let _held = (place, turn);
            // Perhaps it was made while this one waited.
            thumbnails.read(&image).map_or_else(|| thumbnails.make(&image), Ok)
        })
        .await
    }

    /// Called once the image is gone.
    pub(super) fn remove(&self, name: &ImageName) {
        self.index().remove(name);
        self.remove_files(std::slice::from_ref(name));
    }

    fn index(&self) -> MutexGuard<'_, ThumbnailIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &ImageName) -> PathBuf {
        self.dir.join(format!("{}{EXTENSION}", name.as_str()))
    }

    fn remove_files(&self, names: &[ImageName]) {
        if names.is_empty() || !is_own_dir(&self.dir).unwrap_or(false) {
            return;
        }
        for name in names {
            match changes::remove(&self.path(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    debug!(picture = name.as_str(), %error, "its thumbnail could not be removed");
                }
                _ => {}
            }
        }
    }

    /// An unreadable one is made again.
    fn read(&self, name: &ImageName) -> Option<Bytes> {
        let mut bytes = Vec::new();
        is_own_dir(&self.dir).ok().filter(|is_there| *is_there)?;
        let file = read_no_follow(&self.path(name)).ok()?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes.into())
    }

    pub(super) fn make(&self, name: &ImageName) -> Result<Bytes, ThumbnailError> {
        let image = match read_no_follow(&self.images.join(name.as_str())) {
            Ok(image) => image,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => {
                return Err(ThumbnailError::NotFound);
            }
            Err(error) => return Err(ThumbnailError::Io(error)),
        };
        let thumbnail = render::thumbnail(image).map_err(|why| {
            debug!(picture = name.as_str(), why, "it has no thumbnail");
            ThumbnailError::NotFound
        })?;
        let kept = self.keep(name, &thumbnail);
        let was_failing = self.failing.swap(kept.is_err(), Ordering::Relaxed);
        match kept {
            Err(error) if !was_failing => {
                warn!(%error, "thumbnails cannot be kept: each is made again when it is asked for");
            }
            Ok(()) if was_failing => info!("thumbnails are kept again"),
            _ => {}
        }
        Ok(thumbnail.into())
    }

    fn keep(&self, name: &ImageName, thumbnail: &[u8]) -> Result<(), StoreError> {
        check_free_space(&self.images, thumbnail.len() as u64)?;
        if !is_own_dir(&self.dir)? {
            create_group_readable_dir(&self.dir)?;
        }
        let file = TempFile::create(&self.dir)?;
        file.write_all(thumbnail)?;
        // Browsers keep what is sent for a year, so after a crash it is a whole file or none.
        file.flush()?;
        file.persist(&self.path(name))?;
        let excess = self.index().insert(name.clone(), thumbnail.len() as u64);
        self.remove_files(&excess);
        // Whoever deleted the image meanwhile found no thumbnail to delete.
        if !is_file(&self.images.join(name.as_str())) {
            self.remove(name);
        }
        Ok(())
    }

    /// Only regular files with names of thumbnails are touched.
    fn sweep(&self) -> io::Result<()> {
        if !is_own_dir(&self.dir)? {
            return Ok(());
        }
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else { continue };
            let image = file_name.strip_suffix(EXTENSION).and_then(ImageName::parse);
            let is_ours = image.is_some() || TempFile::parse_name(file_name).is_some();
            if !is_ours || !entry.file_type()?.is_file() {
                continue;
            }
            match image.filter(|name| is_file(&self.images.join(name.as_str()))) {
                Some(name) => {
                    let metadata = entry.metadata()?;
                    kept.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, metadata.len()));
                }
                None => changes::remove(&entry.path())?,
            }
        }
        kept.sort_unstable();
        for (_, name, bytes) in kept {
            let excess = self.index().insert(name, bytes);
            self.remove_files(&excess);
        }
        Ok(())
    }
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// Whether it is a directory; false if nothing is there. A link or a file in its place is an error.
fn is_own_dir(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(io::Error::new(ErrorKind::NotADirectory, format!("{} is no directory", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
