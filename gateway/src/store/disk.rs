//! The store on disk: a file appears under its name only when it is complete and flushed. What is not `async` here blocks,
//! and is called from blocking threads.

mod records;

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use service::{
    files::create_group_readable_dir,
    settings::Problem,
    sync::{Mutex, MutexGuard},
};
use tracing::warn;

use crate::writable_paths::{FileKind, unwritable_message};

use super::{
    EncodedImage, ImageName, StoreError, changes,
    index::{LockedIndex, SharedIndex, StoreTotals},
    lock::{LockError, StoreLock},
    metadata::Provenance,
    staging::{FlushedFile, ImageValidator, TempFile, Unfinished},
    thumbnails::Thumbnails,
    writable::{ReservedFiles, Writability, try_write},
};

const COMPARE_CHUNK: usize = 64 << 10;

/// A handle to the store, cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ImageStore {
    pub(super) dir: Arc<PathBuf>,
    index: Arc<SharedIndex>,
    /// Held while an image or its record gets or loses its name, so that nobody else changes either.
    names: Arc<Mutex<()>>,
    pub(super) writability: Arc<Writability>,
    pub(crate) thumbnails: Arc<Thumbnails>,
    /// Held while records are read for the first time.
    pub(super) reading: Arc<Mutex<()>>,
    /// Kept open so that flushing it needs no new descriptor.
    open_dir: Arc<File>,
    _lock: Arc<StoreLock>,
}

#[derive(Debug)]
pub(crate) struct StoredImage {
    pub(crate) name: ImageName,
    /// Readable even after the image is deleted.
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) struct ImageFile {
    pub path: PathBuf,
    /// By the first bytes.
    pub mime: &'static str,
}

impl ImageStore {
    /// Creates the directory if needed, locks it, checks that it is writable, and finishes or removes what an earlier process left
    /// unfinished.
    pub(crate) fn open(dir: &Path) -> Result<Self, Problem> {
        let problem = |why: String| Problem::new("UI_IMAGE_DIR", dir.display().to_string(), why);
        let unwritable = |error: io::Error| problem(unwritable_message(dir, FileKind::Directory, &error));
        create_group_readable_dir(dir).map_err(unwritable)?;
        let lock = StoreLock::acquire(dir).map_err(|error| match error {
            LockError::Held(holder) => {
                problem(format!("expected an image store that no other process uses; it is held by {holder}"))
            }
            LockError::NotRegularFile(why) => problem(format!("expected a lock file of this store: {why}")),
            LockError::Io(error) => unwritable(error),
        })?;
        let open_dir = File::open(dir).map_err(unwritable)?;
        let dir = Arc::new(dir.to_owned());
        let store = Self {
            index: Arc::default(),
            names: Arc::default(),
            writability: Arc::new(Writability::new(dir.clone())),
            thumbnails: Arc::new(Thumbnails::open(dir.clone())),
            reading: Arc::default(),
            open_dir: Arc::new(open_dir),
            _lock: Arc::new(lock),
            dir,
        };
        try_write(&store.dir).map_err(unwritable)?;
        store.finish_interrupted().map_err(unwritable)?;
        store.scan_dir().map_err(unwritable)?;
        Ok(store)
    }

    pub(super) fn index(&self) -> LockedIndex<'_> {
        self.index.lock()
    }

    pub(super) fn lock_names(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it returns, the names that files got and lost survive a crash.
    pub(super) fn flush_names(&self) -> io::Result<()> {
        changes::flush_names(&self.open_dir)
    }

    pub(crate) fn totals(&self) -> StoreTotals {
        self.index.totals()
    }

    pub(super) fn create_temp_file(&self) -> io::Result<TempFile> {
        TempFile::create(&self.dir)
    }

    /// Writes and flushes an image under a temporary name.
    pub(crate) fn write(&self, image: &EncodedImage) -> Result<FlushedFile, StoreError> {
        write_to(self.create_temp_file()?, image)
    }

    /// The same into a reserved file, if there is one.
    pub(crate) fn write_reserved(
        &self,
        reserved: &mut ReservedFiles,
        image: &EncodedImage,
    ) -> Result<FlushedFile, StoreError> {
        write_to(reserved.next_or_create(&self.dir)?, image)
    }

    /// Gives images made at `unix` seconds their names, each with its record. When it returns, they survive a crash.
    pub(crate) fn commit(
        &self,
        images: Vec<(FlushedFile, Provenance)>,
        unix: u64,
    ) -> Result<Vec<StoredImage>, StoreError> {
        let commit = |(image, provenance)| self.commit_one(image, unix, &provenance);
        let stored = images.into_iter().map(commit).collect::<Result<_, _>>()?;
        self.flush_names()?;
        Ok(stored)
    }

    fn commit_one(
        &self,
        image: FlushedFile,
        unix: u64,
        provenance: &Provenance,
    ) -> Result<StoredImage, StoreError> {
        let (name, size) = (image.name(unix), image.size());
        let target = self.dir.join(name.as_str());
        let prepared =
            if provenance.is_empty() { None } else { Some(self.prepare_metadata(&name, provenance, false)) };
        let _names = self.lock_names();
        // Usually nothing is there, which is found without opening a file.
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
                if !has_same_contents(&existing, image.file.file(), size)? {
                    return Err(StoreError::Collision(name));
                }
                Arc::new(existing)
            }
        };
        self.index().upsert(&name, size);
        // The image is stored, and matters more than its record.
        let record = prepared
            .map(|prepared| if is_new { prepared } else { self.prepare_metadata(&name, provenance, true) });
        let recorded = record.map(|record| {
            let (file, size, metadata) = record?;
            file.persist(&self.metadata_path(&name))?;
            self.index().set_metadata(&name, size, Some(metadata));
            io::Result::Ok(())
        });
        if let Some(Err(error)) = recorded {
            warn!(picture = name.as_str(), %error, "the image was stored, but not its record: only owner tokens can see it, and nobody its settings");
        }
        Ok(StoredImage { name, file, size })
    }

    /// The image with this name. An unknown answer (without a free descriptor, say) is an error, so that the image is not taken for
    /// deleted.
    pub(crate) fn find(&self, name: &ImageName) -> io::Result<Option<ImageFile>> {
        let path = self.dir.join(name.as_str());
        let mime = || -> io::Result<Option<&'static str>> {
            if !fs::symlink_metadata(&path)?.is_file() {
                return Ok(None);
            }
            let mut head = Vec::with_capacity(16);
            File::open(&path)?.take(16).read_to_end(&mut head)?;
            Ok(Some(sniff_mime(&head, name)))
        };
        match mime() {
            Ok(mime) => Ok(mime.map(|mime| ImageFile { path, mime })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether an image can be stored, or why not.
    pub(crate) async fn check_writable(&self) -> Result<(), String> {
        self.writability.check().await
    }

    /// Reserves files for so many images with so many bytes in total.
    pub(crate) async fn reserve(&self, images: u64, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.writability.reserve(images, bytes).await
    }

    /// The same for the image at the end of a stream.
    pub(crate) async fn reserve_for_stream(&self, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.writability.reserve_for_stream(bytes).await
    }

    /// Removes the store's unfinished files, save records that their images lack.
    fn finish_interrupted(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(unfinished) = name.to_str().and_then(TempFile::parse_name) else { continue };
            if !entry.file_type()?.is_file() {
                continue;
            }
            match unfinished {
                Unfinished::RecordOf(image) if self.lacks_record(&image, &entry.path())? => {
                    changes::rename(&entry.path(), &self.metadata_path(&image))?;
                }
                Unfinished::RecordOf(_) | Unfinished::Image => changes::remove(&entry.path())?,
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

/// Whether both files have the same bytes; `size` is the second file's.
fn has_same_contents(one: &File, other: &File, size: u64) -> io::Result<bool> {
    if one.metadata()?.len() != size {
        return Ok(false);
    }
    let (mut one_chunk, mut other_chunk) = (vec![0; COMPARE_CHUNK], vec![0; COMPARE_CHUNK]);
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(size - offset).unwrap_or(COMPARE_CHUNK).min(COMPARE_CHUNK);
        one.read_exact_at(&mut one_chunk[..length], offset)?;
        other.read_exact_at(&mut other_chunk[..length], offset)?;
        if one_chunk[..length] != other_chunk[..length] {
            return Ok(false);
        }
        offset += length as u64;
    }
    Ok(true)
}

/// By the bytes, as an earlier system's files may have other extensions.
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
