//! The changes that one thread makes, recorded.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

thread_local! {
    static JOURNAL: RefCell<Option<Journal>> = const { RefCell::new(None) };
}

#[derive(Debug, Default)]
struct Journal {
    changes: Vec<Change>,
    /// The change that fails, counted from 0.
    failing: Option<usize>,
}

/// One step.
#[derive(Debug, Clone)]
pub(in crate::store) enum Change {
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    Flush(PathBuf),
    FlushNames,
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Records from now on what this thread changes. The change with this number fails, and is not recorded.
pub(in crate::store) fn start(failing: Option<usize>) {
    JOURNAL.set(Some(Journal { changes: Vec::new(), failing }));
}

/// Whether the change that is to fail has not come yet.
pub(in crate::store) fn is_pending() -> bool {
    JOURNAL.with_borrow(|journal| journal.as_ref().is_some_and(|journal| journal.failing.is_some()))
}

/// How many changes were recorded.
pub(in crate::store) fn len() -> usize {
    JOURNAL.with_borrow(|journal| journal.as_ref().map_or(0, |journal| journal.changes.len()))
}

/// What was recorded; ends it.
pub(in crate::store) fn stop() -> Vec<Change> {
    JOURNAL.take().unwrap_or_default().changes
}

/// Called before a change.
pub(in crate::store) fn note(change: impl FnOnce() -> Change) -> io::Result<()> {
    JOURNAL.with_borrow_mut(|journal| {
        let Some(journal) = journal else { return Ok(()) };
        if journal.failing == Some(journal.changes.len()) {
            journal.failing = None;
            return Err(io::Error::other("the disk failed"));
        }
        journal.changes.push(change());
        Ok(())
    })
}

/// The same before a flush. If it is recorded, the disk need not do it, which would take most of the time.
pub(in crate::store) fn replaces_flush(change: impl FnOnce() -> Change) -> io::Result<bool> {
    note(change)?;
    Ok(JOURNAL.with_borrow(Option::is_some))
}

/// Makes these changes again, below another directory, as a disk has them after a crash: what was not flushed of a file's
/// contents is there as far as `kept` says, in per cent. Whether there is any such file.
pub(in crate::store) fn replay(changes: &[Change], from: &Path, to: &Path, kept: usize) -> bool {
    let at = |path: &Path| to.join(path.strip_prefix(from).expect("below the store"));
    let mut unflushed = BTreeSet::new();
    for change in changes {
        match change {
            Change::Create(path) => {
                fs::create_dir_all(at(path).parent().expect("below the store")).unwrap();
                File::create(at(path)).unwrap();
            }
            Change::Write(path, bytes) => {
                File::options().append(true).open(at(path)).unwrap().write_all(bytes).unwrap();
                unflushed.insert(path.clone());
            }
            Change::Flush(path) => drop(unflushed.remove(path)),
            Change::FlushNames => {}
            Change::Rename(old, new) => {
                fs::rename(at(old), at(new)).unwrap();
                if unflushed.remove(old) {
                    unflushed.insert(new.clone());
                } else {
                    unflushed.remove(new);
                }
            }
            Change::Remove(path) => {
                // The store removes some files that may not be there.
                let _ = fs::remove_file(at(path));
                unflushed.remove(path);
            }
        }
    }
    for path in &unflushed {
        let file = File::options().write(true).open(at(path)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length * kept as u64 / 100).unwrap();
    }
    !unflushed.is_empty()
}
