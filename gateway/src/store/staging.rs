//! An image on its way into the store: validated and hashed piece by piece, and written to a temporary file. File access
//! blocks.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use picture::{Format, InvalidImage, Scanner};
use service::files::create_group_readable;
use sha2::{Digest, Sha256};

use super::ImageName;

/// Prefix and suffix of unfinished files. Only such files are ever removed at start.
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
        file.file.sync_all()?;
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

/// Removed when dropped, unless it was given its final name.
#[derive(Debug)]
pub(super) struct TempFile {
    path: Option<PathBuf>,
    file: Arc<File>,
}

impl TempFile {
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = Self::path_in(dir);
        let file = create_group_readable(File::options().read(true).write(true), &path)?;
        Ok(Self { path: Some(path), file: Arc::new(file) })
    }

    /// An unused temporary path.
    pub(super) fn path_in(dir: &Path) -> PathBuf {
        dir.join(format!("{}{}{}", TEMP_NAME.0, uuid::Uuid::new_v4().simple(), TEMP_NAME.1))
    }

    /// Whether a name has the form `.incoming-{32 hex digits}.tmp`.
    pub(super) fn is_temp_name(name: &str) -> bool {
        let id = name.strip_prefix(TEMP_NAME.0).and_then(|name| name.strip_suffix(TEMP_NAME.1));
        id.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)
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
            fs::rename(path, target)?;
        }
        self.path = None;
        Ok(self.file.clone())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
