//! Changes to files, each recorded before it is made, so that all can be undone exactly: a replaced file is kept under
//! another name and comes back as the same file.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A directory was created.
    #[serde(rename = "folder")]
    Directory(PathBuf),
    /// A file or link was created.
    Created(PathBuf),
    /// A file was replaced; the backup is the old one.
    Replaced {
        path: PathBuf,
        #[serde(rename = "kept")]
        backup: PathBuf,
    },
    /// A file was moved.
    Moved { from: PathBuf, to: PathBuf },
}

/// Records a change durably, before it is made.
pub(crate) type RecordChange<'a> = &'a mut dyn FnMut(Change) -> io::Result<()>;

impl Change {
    /// Undoes it, as far as it was made and is not undone yet.
    pub(crate) fn undo(&self) -> io::Result<()> {
        match self {
            Self::Directory(path) => match fs::remove_dir(path) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
                result => ignore_not_found(result),
            },
            Self::Created(path) => {
                ignore_not_found(fs::remove_file(temp_path(path)))?;
                ignore_not_found(fs::remove_file(path))?;
                sync_parent(path)
            }
            Self::Replaced { path, backup } => {
                ignore_not_found(fs::remove_file(temp_path(path)))?;
                if exists(backup) {
                    fs::rename(backup, path)?;
                    // A rename between two links to one file keeps both.
                    ignore_not_found(fs::remove_file(backup))?;
                }
                sync_parent(path)
            }
            Self::Moved { from, to } => move_back(from, to),
        }
    }

    /// Makes it again after a temporary undo. Only moves and directories: written files are not written again.
    pub(crate) fn redo(&self) -> io::Result<()> {
        match self {
            Self::Directory(path) if !path.is_dir() => fs::create_dir(path),
            Self::Moved { from, to } if exists(from) && !exists(to) => {
                fs::rename(from, to)?;
                sync_parent(from)?;
                sync_parent(to)
            }
            _ => Ok(()),
        }
    }
}

fn move_back(from: &Path, to: &Path) -> io::Result<()> {
    match (exists(from), exists(to)) {
        (_, false) => Ok(()),
        (false, true) => {
            fs::rename(to, from)?;
            sync_parent(from)?;
            sync_parent(to)
        }
        (true, true) => {
            let message =
                format!("{} exists again; compare it with {}, and remove one", from.display(), to.display());
            Err(io::Error::new(ErrorKind::AlreadyExists, message))
        }
    }
}

/// Writes a file, and creates its parent directories.
pub(crate) fn write(path: &Path, text: &str, record_change: RecordChange<'_>) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let old = match fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    create_dirs(path.parent().unwrap_or(Path::new("/")), record_change)?;
    let backup = free_backup_path(path);
    if old.is_some() {
        record_change(Change::Replaced { path: path.clone(), backup: backup.clone() })?;
    } else {
        record_change(Change::Created(path.clone()))?;
    }
    let draft = temp_path(path);
    ignore_not_found(fs::remove_file(&draft))?;
    // It may contain a token: until it has the old file's owner and mode, only root may read it.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    match &old {
        Some(old) => {
            chown(&draft, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())?;
            fs::hard_link(path, &backup)?;
        }
        None => file.set_permissions(fs::Permissions::from_mode(0o644))?,
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_parent(path)
}

pub(crate) fn create_symlink(target: &Path, path: &Path, record_change: RecordChange<'_>) -> io::Result<()> {
    create_dirs(path.parent().unwrap_or(Path::new("/")), record_change)?;
    record_change(Change::Created(path.to_owned()))?;
    ignore_not_found(fs::remove_file(path))?;
    symlink(target, path)?;
    sync_parent(path)
}

/// Moves a file into a directory beside its own, so that a relative link keeps its target.
pub(crate) fn move_aside(path: &Path, record_change: RecordChange<'_>) -> io::Result<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{} is not a file", path.display())));
    };
    let aside = dir.with_file_name(with_suffix(dir, ".moved-by-ada2-sidecar"));
    let to = aside.join(name);
    if exists(&to) {
        let message = format!(
            "{} exists from an earlier move: compare it with {}, and remove it",
            to.display(),
            path.display()
        );
        return Err(io::Error::new(ErrorKind::AlreadyExists, message));
    }
    create_dirs(&aside, record_change)?;
    record_change(Change::Moved { from: path.to_owned(), to: to.clone() })?;
    fs::rename(path, &to)?;
    sync_parent(path)?;
    sync_parent(&to)?;
    Ok(to)
}

fn create_dirs(path: &Path, record_change: RecordChange<'_>) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    create_dirs(path.parent().unwrap_or(Path::new("/")), record_change)?;
    record_change(Change::Directory(path.to_owned()))?;
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    sync_parent(path)
}

/// Where a file is written before it gets its name.
fn temp_path(path: &Path) -> PathBuf {
    sibling_path(path, ".move-in-draft")
}

fn sibling_path(path: &Path, suffix: &str) -> PathBuf {
    path.with_file_name(with_suffix(path, suffix))
}

/// Backups of earlier moves stay.
fn free_backup_path(path: &Path) -> PathBuf {
    let first = sibling_path(path, ".before-move-in");
    let further = (2..).map(|number: u32| sibling_path(path, &format!(".before-move-in.{number}")));
    std::iter::once(first.clone()).chain(further).find(|name| !exists(name)).unwrap_or(first)
}

fn with_suffix(path: &Path, suffix: &str) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    name
}

/// A link counts, even a broken one.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

fn ignore_not_found(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A created or removed name is durable once its directory is.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match File::open(path.parent().unwrap_or(Path::new("/"))) {
        Ok(dir) => dir.sync_all(),
        Err(error) => ignore_not_found(Err(error)),
    }
}

#[cfg(test)]
mod tests;
