//! Changes to this host's files, each noted before it is done, so that all of them can be undone exactly: a file that is
//! replaced is kept under another name and comes back as the very same file.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A folder was made.
    Folder(PathBuf),
    /// A file or link was made.
    Created(PathBuf),
    /// A file has other text; the old one is kept.
    Replaced { path: PathBuf, kept: PathBuf },
    /// A file lies elsewhere.
    Moved { from: PathBuf, to: PathBuf },
}

/// Notes a change durably, before it is done.
pub(crate) type Note<'a> = &'a mut dyn FnMut(Change) -> io::Result<()>;

impl Change {
    /// Undoes it. What was not done, or is undone already, is left alone.
    pub(crate) fn undo(&self) -> io::Result<()> {
        match self {
            Self::Folder(path) => match fs::remove_dir(path) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                done => absent_is_fine(done),
            },
            Self::Created(path) => {
                absent_is_fine(fs::remove_file(draft_of(path)))?;
                absent_is_fine(fs::remove_file(path))?;
                sync_parent(path)
            }
            Self::Replaced { path, kept } => {
                absent_is_fine(fs::remove_file(draft_of(path)))?;
                if is_there(kept) {
                    fs::rename(kept, path)?;
                    // Two names of one file are both still there after a rename.
                    absent_is_fine(fs::remove_file(kept))?;
                }
                sync_parent(path)
            }
            Self::Moved { from, to } => put_back(from, to),
        }
    }

    /// Does it again, after it was undone for a look. Files that were written are not written again.
    pub(crate) fn redo(&self) -> io::Result<()> {
        match self {
            Self::Folder(path) if !path.is_dir() => fs::create_dir(path),
            Self::Moved { from, to } if is_there(from) && !is_there(to) => {
                fs::rename(from, to)?;
                sync_parent(from)?;
                sync_parent(to)
            }
            _ => Ok(()),
        }
    }
}

fn put_back(from: &Path, to: &Path) -> io::Result<()> {
    match (is_there(from), is_there(to)) {
        (_, false) => Ok(()),
        (false, true) => {
            fs::rename(to, from)?;
            sync_parent(from)?;
            sync_parent(to)
        }
        (true, true) => {
            let line = format!(
                "{} is there again; compare it with {}, and remove one",
                from.display(),
                to.display()
            );
            Err(io::Error::new(ErrorKind::AlreadyExists, line))
        }
    }
}

/// Writes a file, and makes the folders above it.
pub(crate) fn write(path: &Path, text: &str, note: Note<'_>) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    make_folder(path.parent().unwrap_or(Path::new("/")), note)?;
    let kept = free_name_beside(path);
    if old.is_some() {
        note(Change::Replaced { path: path.clone(), kept: kept.clone() })?;
    } else {
        note(Change::Created(path.clone()))?;
    }
    let draft = draft_of(path);
    absent_is_fine(fs::remove_file(&draft))?;
    // It may hold a token: nobody else reads it before it has the old one's owner and mode.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    match &old {
        Some(old) => {
            chown(&draft, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())?;
            fs::hard_link(path, &kept)?;
        }
        None => file.set_permissions(fs::Permissions::from_mode(0o644))?,
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_parent(path)
}

/// Makes a symbolic link.
pub(crate) fn link(target: &Path, path: &Path, note: Note<'_>) -> io::Result<()> {
    make_folder(path.parent().unwrap_or(Path::new("/")), note)?;
    note(Change::Created(path.to_owned()))?;
    absent_is_fine(fs::remove_file(path))?;
    symlink(target, path)?;
    sync_parent(path)
}

/// Moves a file aside, where nobody looks for it: beside its folder, so that a relative link still leads where it led.
pub(crate) fn move_aside(path: &Path, note: Note<'_>) -> io::Result<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{} is no file", path.display())));
    };
    let aside = folder.with_file_name(with_suffix(folder, ".moved-by-ada2-sidecar"));
    let to = aside.join(name);
    if is_there(&to) {
        let line = format!(
            "{} is there from before: compare it with {}, and remove it",
            to.display(),
            path.display()
        );
        return Err(io::Error::new(ErrorKind::AlreadyExists, line));
    }
    make_folder(&aside, note)?;
    note(Change::Moved { from: path.to_owned(), to: to.clone() })?;
    fs::rename(path, &to)?;
    sync_parent(path)?;
    sync_parent(&to)?;
    Ok(to)
}

fn make_folder(path: &Path, note: Note<'_>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_folder(path.parent().unwrap_or(Path::new("/")), note)?;
    note(Change::Folder(path.to_owned()))?;
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    sync_parent(path)
}

/// Where the text is written before it takes its name.
fn draft_of(path: &Path) -> PathBuf {
    beside(path, ".move-in-draft")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(with_suffix(path, suffix))
}

/// Backups of earlier moves stay.
fn free_name_beside(path: &Path) -> PathBuf {
    let first = beside(path, ".before-move-in");
    let further = (2..).map(|number: u32| beside(path, &format!(".before-move-in.{number}")));
    std::iter::once(first.clone()).chain(further).find(|name| !is_there(name)).unwrap_or(first)
}

fn with_suffix(path: &Path, suffix: &str) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    name
}

/// A link counts, wherever it leads.
fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// A new or gone name lasts once its folder is on disk.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match File::open(path.parent().unwrap_or(Path::new("/"))) {
        Ok(folder) => folder.sync_all(),
        Err(error) => absent_is_fine(Err(error)),
    }
}

#[cfg(test)]
mod tests;
