//! A picture on its way into the store: hashed and judged as it comes, and written into a file that nobody is served. What
//! touches the file blocks.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use picture::{Format, NotAPicture, Walk};
use service::files::create_for_group;
use sha2::{Digest, Sha256};

use super::PictureName;

/// How an unfinished file is called. Nothing else is ever swept.
const UNFINISHED: (&str, &str) = (".incoming-", ".tmp");

/// What a picture's bytes are, as far as they came. Pure.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    hash: Sha256,
    walk: Walk,
    bytes: u64,
}

/// What a picture's bytes are.
#[derive(Debug)]
pub(super) struct Inspected {
    hash: [u8; 32],
    format: Format,
    bytes: u64,
}

/// A picture that is whole and flushed, and has no name yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(super) file: Unfinished,
    what: Inspected,
}

impl Inspection {
    /// Goes on with the next bytes; where they are cut does not matter.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.walk.feed(piece);
        self.bytes += piece.len() as u64;
    }

    /// That was all: is it a picture?
    pub(super) fn finish(self) -> Result<Inspected, NotAPicture> {
        let format = self.walk.finish()?;
        Ok(Inspected { hash: self.hash.finalize().into(), format, bytes: self.bytes })
    }
}

impl Whole {
    /// Once the file, in which all of it is, is safe on the disk.
    pub(super) fn flush(file: Unfinished, what: Inspected) -> io::Result<Self> {
        file.file.sync_all()?;
        Ok(Self { file, what })
    }

    /// The name that it is kept under when it was made at `unix` seconds.
    pub(super) fn name(&self, unix: u64) -> PictureName {
        PictureName::of(unix, &self.what.hash, self.what.format)
    }

    /// Its size.
    pub(super) const fn bytes(&self) -> u64 {
        self.what.bytes
    }
}

/// A file being written; removed unless it was given its name.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: Option<PathBuf>,
    file: Arc<File>,
}

impl Unfinished {
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = Self::path_in(dir);
        let file = create_for_group(File::options().read(true).write(true), &path)?;
        Ok(Self { path: Some(path), file: Arc::new(file) })
    }

    /// A name for one that nobody has.
    pub(super) fn path_in(dir: &Path) -> PathBuf {
        dir.join(format!("{}{}{}", UNFINISHED.0, uuid::Uuid::new_v4().simple(), UNFINISHED.1))
    }

    /// Whether a name is that of such a file: `.incoming-{32 hex digits}.tmp`.
    pub(super) fn is_name(name: &str) -> bool {
        let inside = name.strip_prefix(UNFINISHED.0).and_then(|name| name.strip_suffix(UNFINISHED.1));
        inside.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Writes to it.
    pub(super) fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.file).write_all(bytes)
    }

    /// The file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Removes it, and keeps its descriptor.
    pub(super) fn remove(self) -> Arc<File> {
        self.file.clone()
    }

    /// Gives it its name. Needs no descriptor besides the one that it has.
    pub(super) fn rename(mut self, target: &Path) -> io::Result<Arc<File>> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        Ok(self.file.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
