//! The store on disk: a file appears under its name only when it is complete and flushed. What is not `async` here blocks,
//! and is called from blocking threads.

mod records;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use service::{files::create_group_readable_dir, settings::Problem};
use tracing::warn;

use crate::writable_paths::{FileKind, unwritable_message};

use super::{
    EncodedImage, ImageName, StoreError,
    index::ImageIndex,
    lock::{LockError, StoreLock},
    metadata::Provenance,
    staging::{FlushedFile, ImageValidator, TempFile},
    writable::{ReservedFiles, Writability, try_write},
};

/// Bytes that are compared at a time.
const COMPARE_CHUNK: usize = 64 << 10;

/// The store. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct ImageStore {
    pub(super) dir: Arc<PathBuf>,
    index: Arc<Mutex<ImageIndex>>,
    pub(super) writability: Arc<Writability>,
    /// Held while records are read for the first time.
    pub(super) reading: Arc<Mutex<()>>,
    /// The directory, open: flushing it must not fail for want of a descriptor.
    open_dir: Arc<File>,
    _lock: Arc<StoreLock>,
}

/// A picture that is kept.
#[derive(Debug)]
pub(crate) struct StoredImage {
    /// Its name.
    pub(crate) name: ImageName,
    /// Its bytes, which can be read from here even if it is deleted.
    pub(crate) file: Arc<File>,
    /// How many.
    pub(crate) size: u64,
}

/// What is under a name.
#[derive(Debug)]
pub(crate) struct ImageFile {
    /// Where.
    pub path: PathBuf,
    /// The type by its first bytes.
    pub mime: &'static str,
}

impl ImageStore {
    /// Makes the directory if needed, takes it for this process, sees that it can be written, removes what an
    /// earlier process left unfinished.
    pub(crate) fn open(dir: &Path) -> Result<Self, Problem> {
        let wrong = |why: String| Problem::new("UI_IMAGE_DIR", dir.display().to_string(), why);
        let unwritable = |error: io::Error| wrong(unwritable_message(dir, FileKind::Folder, &error));
        create_group_readable_dir(dir).map_err(unwritable)?;
        let lock = StoreLock::acquire(dir).map_err(|fault| match fault {
            LockError::Held(holder) => {
                wrong(format!("expected a picture store of this process alone; it is held by {holder}"))
            }
            LockError::NotRegularFile(why) => wrong(format!("expected a lock of this store's own: {why}")),
            LockError::Io(error) => unwritable(error),
        })?;
        let open_dir = File::open(dir).map_err(unwritable)?;
        let dir = Arc::new(dir.to_owned());
        let store = Self {
            index: Arc::default(),
            writability: Arc::new(Writability::new(dir.clone())),
            reading: Arc::default(),
            open_dir: Arc::new(open_dir),
            _lock: Arc::new(lock),
            dir,
        };
        try_write(&store.dir).map_err(unwritable)?;
        store.remove_temp_files().map_err(unwritable)?;
        store.scan_dir(&mut store.index()).map_err(unwritable)?;
        Ok(store)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, ImageIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file for a picture that comes.
    pub(super) fn create_temp_file(&self) -> io::Result<TempFile> {
        TempFile::create(&self.dir)
    }

    /// A picture that is there already.
    pub(crate) fn write(&self, image: &EncodedImage) -> Result<FlushedFile, StoreError> {
        write_to(self.create_temp_file()?, image)
    }

    /// The same into a file that was had before, if there is one.
    pub(crate) fn write_reserved(
        &self,
        prepared: &mut ReservedFiles,
        image: &EncodedImage,
    ) -> Result<FlushedFile, StoreError> {
        write_to(prepared.next_or_create(&self.dir)?, image)
    }

    /// Keeps the pictures, made at `unix` seconds, in the same order, each with a record of what is to be noted. When it
    /// returns, they outlast a crash.
    pub(crate) fn commit(
        &self,
        images: Vec<FlushedFile>,
        unix: u64,
        provenance: &Provenance,
    ) -> Result<Vec<StoredImage>, StoreError> {
        let place = |picture| self.commit_one(picture, unix, provenance);
        let stored = images.into_iter().map(place).collect::<Result<_, _>>()?;
        self.open_dir.sync_all()?;
        Ok(stored)
    }

    fn commit_one(
        &self,
        image: FlushedFile,
        unix: u64,
        provenance: &Provenance,
    ) -> Result<StoredImage, StoreError> {
        let (name, bytes) = (image.name(unix), image.size());
        let target = self.dir.join(name.as_str());
        let prepared =
            if provenance.is_empty() { None } else { Some(self.prepare_metadata(&name, provenance, false)) };
        // Held until it has its name: a name that is free now stays free.
        let mut index = self.index();
        // Looking needs no descriptor; the usual case is that nothing is there.
        let mut is_new = false;
        let file = match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                is_new = true;
                image.file.persist(&target)?
            }
            Err(error) => return Err(error.into()),
            Ok(existing) if !existing.is_file() => return Err(StoreError::Collision(name)),
            Ok(_) => {
                let existing = File::open(&target)?;
                if !has_same_contents(&existing, image.file.file(), bytes)? {
                    return Err(StoreError::Collision(name));
                }
                Arc::new(existing)
            }
        };
        index.upsert(&name, bytes);
        // The picture is there, and counts for more than who made it.
        let record = prepared
            .map(|prepared| if is_new { prepared } else { self.prepare_metadata(&name, provenance, true) });
        let placed = record.map(|record| {
            let (file, size, record) = record?;
            file.persist(&self.metadata_path(&name))?;
            index.set_metadata(&name, size, Some(record));
            io::Result::Ok(())
        });
        if let Some(Err(error)) = placed {
            warn!(picture = name.as_str(), %error, "a picture is kept, but not who made it: only tokens that see all see it");
        }
        Ok(StoredImage { name, file, size: bytes })
    }

    /// What is under a name, if a picture is. That it cannot be told now (no descriptor is left, for one) is an error: nobody
    /// must take the picture for gone.
    pub(crate) fn find(&self, name: &ImageName) -> io::Result<Option<ImageFile>> {
        let path = self.dir.join(name.as_str());
        let look = || -> io::Result<Option<&'static str>> {
            if !fs::symlink_metadata(&path)?.is_file() {
                return Ok(None);
            }
            let mut head = Vec::with_capacity(16);
            File::open(&path)?.take(16).read_to_end(&mut head)?;
            Ok(Some(sniff_mime(&head, name)))
        };
        match look() {
            Ok(mime) => Ok(mime.map(|mime| ImageFile { path, mime })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an image can be stored, or why not.
    pub(crate) async fn check_writable(&self) -> Result<(), String> {
        self.writability.check().await
    }

    /// Reserves what it takes to store so many images of so many bytes together.
    pub(crate) async fn reserve(&self, images: u64, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.writability.reserve(images, bytes).await
    }

    /// The same for the one image at the end of a stream.
    pub(crate) async fn reserve_for_stream(&self, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.writability.reserve_for_stream(bytes).await
    }

    /// Removes our own unfinished files.
    fn remove_temp_files(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(TempFile::is_temp_name);
            if ours && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn write_to(file: TempFile, image: &EncodedImage) -> Result<FlushedFile, StoreError> {
    let mut validator = ImageValidator::default();
    validator.update(image.bytes());
    let digest = validator.finish().map_err(|why| StoreError::Io(io::Error::other(why)))?;
    file.write_all(image.bytes())?;
    Ok(FlushedFile::flush(file, digest)?)
}

/// Whether both files have the same bytes, so many.
fn has_same_contents(one: &File, other: &File, bytes: u64) -> io::Result<bool> {
    if one.metadata()?.len() != bytes {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; COMPARE_CHUNK], vec![0; COMPARE_CHUNK]);
    let mut at = 0;
    while at < bytes {
        let next = usize::try_from(bytes - at).unwrap_or(COMPARE_CHUNK).min(COMPARE_CHUNK);
        one.read_exact_at(&mut here[..next], at)?;
        other.read_exact_at(&mut there[..next], at)?;
        if here[..next] != there[..next] {
            return Ok(false);
        }
        at += next as u64;
    }
    Ok(true)
}

/// The type by the bytes; an earlier system's files are served as what they are, too.
fn sniff_mime(head: &[u8], name: &ImageName) -> &'static str {
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

#[cfg(test)]
pub(crate) mod tests;
