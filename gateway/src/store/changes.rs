//! Whatever changes the store's files, a function for each step that a crash can separate from the next. Tests record the steps
//! (`changes/journal.rs`), to see what each crash leaves, and let single ones fail.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use service::files::create_group_readable;

#[cfg(test)]
pub(super) mod journal;

/// Creates a file, to be written and read.
pub(super) fn create(path: &Path) -> io::Result<File> {
    #[cfg(test)]
    journal::note(|| journal::Change::Create(path.to_owned()))?;
    create_group_readable(File::options().read(true).write(true), path)
}

/// Appends to a file that is open at this path.
pub(super) fn write_all(mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    journal::note(|| journal::Change::Write(path.to_owned(), bytes.to_owned()))?;
    #[cfg(not(test))]
    let _ = path;
    file.write_all(bytes)
}

/// Flushes the contents of a file that is open at this path.
pub(super) fn flush(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if journal::replaces_flush(|| journal::Change::Flush(path.to_owned()))? {
        return Ok(());
    }
    #[cfg(not(test))]
    let _ = path;
    file.sync_all()
}

/// Flushes the names in a directory.
pub(super) fn flush_names(dir: &File) -> io::Result<()> {
    #[cfg(test)]
    if journal::replaces_flush(|| journal::Change::FlushNames)? {
        return Ok(());
    }
    dir.sync_all()
}

/// Renames a file, over one that may be there.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    journal::note(|| journal::Change::Rename(from.to_owned(), to.to_owned()))?;
    fs::rename(from, to)
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    journal::note(|| journal::Change::Remove(path.to_owned()))?;
    fs::remove_file(path)
}
