//! A picture on its way into the store: hashed and judged as it comes, and written into a file that nobody is served. What
//! touches the file blocks.

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

/// How an unfinished file is called. Nothing else is ever swept.
const TEMP_NAME: (&str, &str) = (".incoming-", ".tmp");

/// What a picture's bytes are, as far as they came. Pure.
#[derive(Debug, Default)]
pub(super) struct ImageValidator {
    hash: Sha256,
    walk: Scanner,
    bytes: u64,
}

/// What a picture's bytes are.
#[derive(Debug)]
pub(super) struct ImageDigest {
    hash: [u8; 32],
    format: Format,
    bytes: u64,
}

/// A picture that is whole and flushed, and has no name yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct FlushedFile {
    pub(super) file: TempFile,
    digest: ImageDigest,
}

impl ImageValidator {
    /// Goes on with the next bytes; where they are cut does not matter.
    pub(super) fn update(&mut self, chunk: &[u8]) {
        self.hash.update(chunk);
        self.walk.feed(chunk);
        self.bytes += chunk.len() as u64;
    }

    /// That was all: is it a picture?
    pub(super) fn finish(self) -> Result<ImageDigest, InvalidImage> {
        let format = self.walk.finish()?;
        Ok(ImageDigest { hash: self.hash.finalize().into(), format, bytes: self.bytes })
    }
}

impl FlushedFile {
    /// Once the file, in which all of it is, is safe on the disk.
    pub(super) fn flush(file: TempFile, what: ImageDigest) -> io::Result<Self> {
        file.file.sync_all()?;
        Ok(Self { file, digest: what })
    }

    /// The name that it is kept under when it was made at `unix` seconds.
    pub(super) fn name(&self, unix: u64) -> ImageName {
        ImageName::new(unix, &self.digest.hash, self.digest.format)
    }

    /// Its size.
    pub(super) const fn size(&self) -> u64 {
        self.digest.bytes
    }
}

/// A file being written; removed unless it was given its name.
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

    /// A name for one that nobody has.
    pub(super) fn path_in(dir: &Path) -> PathBuf {
        dir.join(format!("{}{}{}", TEMP_NAME.0, uuid::Uuid::new_v4().simple(), TEMP_NAME.1))
    }

    /// Whether a name is that of such a file: `.incoming-{32 hex digits}.tmp`.
    pub(super) fn is_temp_name(name: &str) -> bool {
        let inside = name.strip_prefix(TEMP_NAME.0).and_then(|name| name.strip_suffix(TEMP_NAME.1));
        inside.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Writes to it.
    pub(super) fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Removes it, and keeps its descriptor.
    pub(super) fn unlink(self) -> Arc<File> {
        self.file.clone()
    }

    /// Gives it its name. Needs no descriptor besides the one that it has.
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
