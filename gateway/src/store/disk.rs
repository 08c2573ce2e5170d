//! The store on disk: a file appears under its name only when it is whole and flushed. Everything here blocks and
//! is called from blocking threads.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use service::{files::folder_for_group, settings::Problem};
use tracing::warn;

use crate::places::{Kind, unwritable};

use super::{
    Picture, PictureName, StoreFault,
    incoming::{Inspection, Unfinished, Whole},
    index::Index,
    lock::{LockFault, StoreLock},
    records::Note,
    writable::{LastTry, Prepared},
};

/// Bytes that are compared at a time.
const COMPARED: usize = 64 << 10;

/// The store. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(super) dir: Arc<PathBuf>,
    index: Arc<Mutex<Index>>,
    pub(super) last_try: Arc<LastTry>,
    /// Held while records are read for the first time.
    pub(super) reading: Arc<Mutex<()>>,
    /// The directory, open: flushing it must not fail for want of a descriptor.
    open_dir: Arc<File>,
    _lock: Arc<StoreLock>,
}

/// A picture that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    /// Its name.
    pub(crate) name: PictureName,
    /// Its bytes, which can be read from here even if it is deleted.
    pub(crate) file: Arc<File>,
    /// How many.
    pub(crate) bytes: u64,
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
        let unwritable = |error: io::Error| wrong(unwritable(dir, Kind::Folder, &error));
        folder_for_group(dir).map_err(unwritable)?;
        let lock = StoreLock::take(dir).map_err(|fault| match fault {
            LockFault::Held(holder) => {
                wrong(format!("expected a picture store of this process alone; it is held by {holder}"))
            }
            LockFault::Trap(why) => wrong(format!("expected a lock of this store's own: {why}")),
            LockFault::Io(error) => unwritable(error),
        })?;
        let open_dir = File::open(dir).map_err(unwritable)?;
        let store = Self {
            dir: Arc::new(dir.to_owned()),
            index: Arc::default(),
            last_try: Arc::default(),
            reading: Arc::default(),
            open_dir: Arc::new(open_dir),
            _lock: Arc::new(lock),
        };
        store.try_write().map_err(unwritable)?;
        store.sweep().map_err(unwritable)?;
        store.survey(&mut store.index()).map_err(unwritable)?;
        Ok(store)
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file for a picture that comes.
    pub(super) fn unfinished(&self) -> io::Result<Unfinished> {
        Unfinished::create(&self.dir)
    }

    /// A picture that is there already.
    pub(crate) fn write(&self, picture: &Picture) -> Result<Whole, StoreFault> {
        write_to(self.unfinished()?, picture)
    }

    /// The same into a file that was had before, if there is one.
    pub(crate) fn write_prepared(
        &self,
        prepared: &mut Prepared,
        picture: &Picture,
    ) -> Result<Whole, StoreFault> {
        write_to(prepared.next(self)?, picture)
    }

    /// Keeps the pictures, made at `unix` seconds, in the same order, each with a record of what is to be noted. When it
    /// returns, they outlast a crash.
    pub(crate) fn keep(&self, pictures: Vec<Whole>, unix: u64, note: &Note) -> Result<Vec<Kept>, StoreFault> {
        let place = |picture| self.place(picture, unix, note);
        let kept = pictures.into_iter().map(place).collect::<Result<_, _>>()?;
        self.open_dir.sync_all()?;
        Ok(kept)
    }

    fn place(&self, picture: Whole, unix: u64, note: &Note) -> Result<Kept, StoreFault> {
        let (name, bytes) = (picture.name(unix), picture.bytes());
        let target = self.dir.join(name.as_str());
        let prepared = if note.is_empty() { None } else { Some(self.made(&name, note, false)) };
        // Held until it has its name: a name that is free now stays free.
        let mut index = self.index();
        // Looking needs no descriptor; the usual case is that nothing is there.
        let mut is_new = false;
        let file = match fs::symlink_metadata(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                is_new = true;
                picture.file.rename(&target)?
            }
            Err(error) => return Err(error.into()),
            Ok(there) if !there.is_file() => return Err(StoreFault::Collision(name)),
            Ok(_) => {
                let there = File::open(&target)?;
                if !is_same(&there, picture.file.file(), bytes)? {
                    return Err(StoreFault::Collision(name));
                }
                Arc::new(there)
            }
        };
        index.placed(&name, bytes);
        // The picture is there, and counts for more than who made it.
        let record = prepared.map(|prepared| if is_new { prepared } else { self.made(&name, note, true) });
        let placed = record.map(|record| {
            let (file, size, record) = record?;
            file.rename(&self.record_path(&name))?;
            index.note(&name, size, Some(record));
            io::Result::Ok(())
        });
        if let Some(Err(error)) = placed {
            warn!(picture = name.as_str(), %error, "a picture is kept, but not who made it: only tokens that see all see it");
        }
        Ok(Kept { name, file, bytes })
    }

    /// What is under a name, if a picture is. That it cannot be told now (no descriptor is left, for one) is an error: nobody
    /// must take the picture for gone.
    pub(crate) fn find(&self, name: &PictureName) -> io::Result<Option<Stored>> {
        let path = self.dir.join(name.as_str());
        let look = || -> io::Result<Option<&'static str>> {
            if !fs::symlink_metadata(&path)?.is_file() {
                return Ok(None);
            }
            let mut head = Vec::with_capacity(16);
            File::open(&path)?.take(16).read_to_end(&mut head)?;
            Ok(Some(mime(&head, name)))
        };
        match look() {
            Ok(mime) => Ok(mime.map(|mime| Stored { path, mime })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a file can be made now.
    pub(crate) fn try_write(&self) -> io::Result<()> {
        self.unfinished()?.fill(b"x")
    }

    /// Removes our own unfinished files.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.dir.as_path())? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(Unfinished::is_name);
            if ours && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn write_to(file: Unfinished, picture: &Picture) -> Result<Whole, StoreFault> {
    let mut inspection = Inspection::default();
    inspection.feed(picture.bytes());
    let what = inspection.finish().map_err(|why| StoreFault::Io(io::Error::other(why)))?;
    file.fill(picture.bytes())?;
    Ok(Whole::flush(file, what)?)
}

/// Whether both files have the same bytes, so many.
fn is_same(one: &File, other: &File, bytes: u64) -> io::Result<bool> {
    if one.metadata()?.len() != bytes {
        return Ok(false);
    }
    let (mut here, mut there) = (vec![0; COMPARED], vec![0; COMPARED]);
    let mut at = 0;
    while at < bytes {
        let next = usize::try_from(bytes - at).unwrap_or(COMPARED).min(COMPARED);
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

#[cfg(test)]
pub(crate) mod tests;
