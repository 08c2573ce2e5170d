//! An image on its way into the store: validated and hashed piece by piece, and written to a temporary file. File access
//! blocks.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use picture::{Format, InvalidImage, Scanner};
use sha2::{Digest, Sha256};

use super::{ImageName, changes, metadata::EXTENSION};

/// Prefix and suffix of unfinished files. Only such files are ever removed at start. In between are 32 hex digits, and for a record
/// its later name.
const TEMP_NAME: (&str, &str) = (".incoming-", ".tmp");

/// Validates an image's bytes as they come. Pure.
#[derive(Debug, Default)]
pub(super) struct ImageValidator {
    hash: Sha256,
    scanner: Scanner,
    bytes: u64,
}

/// A validated image's hash, format and size.
#[derive(Debug)]
pub(super) struct ImageDigest {
    hash: [u8; 32],
    format: Format,
    bytes: u64,
}

/// A complete and flushed image under a temporary name; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct FlushedFile {
    pub(super) file: TempFile,
    digest: ImageDigest,
}

impl ImageValidator {
    pub(super) fn update(&mut self, chunk: &[u8]) {
        self.hash.update(chunk);
        self.scanner.feed(chunk);
        self.bytes += chunk.len() as u64;
    }

    /// An error if the bytes are not a complete image.
    pub(super) fn finish(self) -> Result<ImageDigest, InvalidImage> {
        let format = self.scanner.finish()?;
        Ok(ImageDigest { hash: self.hash.finalize().into(), format, bytes: self.bytes })
    }
}

impl FlushedFile {
    /// Flushes a file that was written completely.
    pub(super) fn flush(file: TempFile, digest: ImageDigest) -> io::Result<Self> {
        file.flush()?;
        Ok(Self { file, digest })
    }

    /// Its name in the store if it was made at `unix` seconds.
    pub(super) fn name(&self, unix: u64) -> ImageName {
        ImageName::new(unix, &self.digest.hash, self.digest.format)
    }

    pub(super) const fn size(&self) -> u64 {
        self.digest.bytes
    }
}

/// What an unfinished file was to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// Or a thumbnail.
    Image,
    RecordOf(ImageName),
}

/// Removed when dropped, unless it was given its final name.
#[derive(Debug)]
pub(super) struct TempFile {
    path: Option<PathBuf>,
    file: Arc<File>,
}

impl TempFile {
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        Self::create_at(temp_path(dir, ""))
    }

    /// For the record of an image.
    pub(super) fn create_record(dir: &Path, image: &ImageName) -> io::Result<Self> {
        Self::create_at(Self::record_path(dir, image))
    }

    fn create_at(path: PathBuf) -> io::Result<Self> {
        let file = changes::create(&path)?;
        Ok(Self { path: Some(path), file: Arc::new(file) })
    }

    /// An unused temporary path for the record of an image.
    pub(super) fn record_path(dir: &Path, image: &ImageName) -> PathBuf {
        temp_path(dir, &format!(".{}{EXTENSION}", image.as_str()))
    }

    /// What an unfinished file was to be; none if it is not ours.
    pub(super) fn parse_name(name: &str) -> Option<Unfinished> {
        let (id, rest) = name.strip_prefix(TEMP_NAME.0)?.strip_suffix(TEMP_NAME.1)?.split_at_checked(32)?;
        if !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        match rest.strip_prefix('.') {
            None => rest.is_empty().then_some(Unfinished::Image),
            Some(record) => ImageName::parse(record.strip_suffix(EXTENSION)?).map(Unfinished::RecordOf),
        }
    }

    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let path = self.path.as_deref().expect("a file that is kept is not written to");
        changes::write_all(&self.file, path, bytes)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        let path = self.path.as_deref().expect("a file that is kept is not written to");
        changes::flush(&self.file, path)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Removes the file and keeps its descriptor.
    pub(super) fn unlink(self) -> Arc<File> {
        self.file.clone()
    }

    /// Renames it to its final name. Needs no further descriptor.
    pub(super) fn persist(mut self, target: &Path) -> io::Result<Arc<File>> {
        if let Some(path) = &self.path {
            changes::rename(path, target)?;
        }
        self.path = None;
        Ok(self.file.clone())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = changes::remove(path);
        }
    }
}

fn temp_path(dir: &Path, later_name: &str) -> PathBuf {
    dir.join(format!("{}{}{later_name}{}", TEMP_NAME.0, uuid::Uuid::new_v4().simple(), TEMP_NAME.1))
}
