//! A picture on its way into the store: written as it comes into a file that nobody is served, hashed and judged
//! meanwhile, so that none is ever in memory whole. Everything here blocks.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use shared::picture::{Format, NotAPicture, Walk};

use super::{PictureName, StoreFault};

/// How an unfinished file is called. Nothing else is ever swept.
const UNFINISHED: (&str, &str) = (".incoming-", ".tmp");

/// A picture that comes. Dropping it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: Unfinished,
    hash: Sha256,
    walk: Walk,
    bytes: u64,
}

/// A picture that is whole and flushed, and has no name yet. Dropping it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(super) file: Unfinished,
    hash: [u8; 32],
    format: Format,
    /// Its size.
    pub(super) bytes: u64,
}

impl Incoming {
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let file = Unfinished::create(dir)?;
        Ok(Self { file, hash: Sha256::new(), walk: Walk::default(), bytes: 0 })
    }

    /// The next bytes.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), StoreFault> {
        (&self.file.file).write_all(piece)?;
        self.hash.update(piece);
        self.walk.feed(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }

    /// That was all: is it a picture, and is it safe on the disk?
    pub(crate) fn finish(self) -> Result<Result<Whole, NotAPicture>, StoreFault> {
        let format = match self.walk.finish() {
            Ok(format) => format,
            Err(why) => return Ok(Err(why)),
        };
        self.file.file.sync_all()?;
        let hash = self.hash.finalize().into();
        Ok(Ok(Whole { file: self.file, hash, format, bytes: self.bytes }))
    }
}

impl Whole {
    /// The name that it is kept under when it was made at `unix` seconds.
    pub(super) fn name(&self, unix: u64) -> PictureName {
        PictureName::of(unix, &self.hash, self.format)
    }
}

/// A file being written; removed unless it was given its name.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: Option<PathBuf>,
    file: File,
}

impl Unfinished {
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!("{}{}{}", UNFINISHED.0, uuid::Uuid::new_v4().simple(), UNFINISHED.1));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Self { path: Some(path), file })
    }

    /// Whether a name is that of such a file: `.incoming-{32 hex digits}.tmp`.
    pub(super) fn is_name(name: &str) -> bool {
        let inside = name.strip_prefix(UNFINISHED.0).and_then(|name| name.strip_suffix(UNFINISHED.1));
        inside.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Writes to it.
    pub(super) fn fill(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }

    /// The file.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name.
    pub(super) fn rename(mut self, target: &Path) -> io::Result<File> {
        if let Some(path) = &self.path {
            fs::rename(path, target)?;
        }
        self.path = None;
        self.file.try_clone()
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
