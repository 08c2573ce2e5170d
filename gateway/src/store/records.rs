//! What is known of a picture besides its bytes, in a file beside it: `{name}.json`. It is never served as a picture, goes
//! when the picture goes, and counts where bytes are counted. A picture without one was made by nobody who is known.

use std::{
    fs,
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::files::read_own;

use super::{PictureName, disk::Store, incoming::Unfinished};

/// What a record's name ends with, behind the picture's.
pub(super) const ENDING: &str = ".json";
/// Bytes of one at most: a record is words about a picture.
const LONGEST: u64 = 1 << 20;

/// What is noted of a picture that is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note {
    /// Who made it, as their tokens are noted; nobody where nobody is asked for one.
    pub(crate) owner: Option<String>,
    /// The request that it answered.
    pub(crate) request_id: Option<String>,
}

impl Note {
    /// Whether there is nothing to note.
    pub(super) const fn is_empty(&self) -> bool {
        self.owner.is_none() && self.request_id.is_none()
    }
}

/// A record. What a later version adds is kept as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Who made it. Several where their pictures were the same, made in the same second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) owners: Vec<String>,
    /// The requests that it answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) request_ids: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub(crate) further: Map<String, Value>,
}

impl Record {
    /// Notes that it was made once more.
    fn add(&mut self, note: &Note) {
        let add = |all: &mut Vec<String>, one: &Option<String>| {
            all.extend(one.iter().filter(|one| !all.contains(*one)).cloned().collect::<Vec<_>>());
        };
        add(&mut self.owners, &note.owner);
        add(&mut self.request_ids, &note.request_id);
    }

    /// The same in the hands of the others. Which of the requests were theirs is not told apart.
    fn without(&self, is_own: &dyn Fn(&str) -> bool) -> Self {
        let owners = self.owners.iter().filter(|owner| !is_own(owner)).cloned().collect();
        Self { owners, ..self.clone() }
    }
}

impl Store {
    /// The record of a picture; an empty one if there is none that can be read.
    pub(crate) fn record(&self, name: &PictureName) -> io::Result<Record> {
        let mut bytes = Vec::new();
        match read_own(&self.record_path(name)) {
            Ok(file) => file.take(LONGEST).read_to_end(&mut bytes)?,
            // Nothing there, or a trap.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => 0,
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// A record, written and flushed, that has no name yet.
    pub(super) fn written(&self, record: &Record) -> io::Result<(Unfinished, u64)> {
        let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
        let file = self.unfinished()?;
        // Pictures are for whoever may fetch them; who made them is not.
        file.file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.fill(&bytes)?;
        file.file().sync_all()?;
        Ok((file, bytes.len() as u64))
    }

    /// The record of a picture that was made, maybe not for the first time.
    pub(super) fn made(
        &self,
        name: &PictureName,
        note: &Note,
        is_there: bool,
    ) -> io::Result<(Unfinished, u64, Record)> {
        let mut record = if is_there { self.record(name)? } else { Record::default() };
        record.add(note);
        let (file, bytes) = self.written(&record)?;
        Ok((file, bytes, record))
    }

    /// Takes a picture out of the hands of those who are meant by `is_own`; whether it was in them. It is deleted once nobody
    /// has it.
    pub(crate) fn remove_from(&self, name: &PictureName, is_own: &dyn Fn(&str) -> bool) -> io::Result<bool> {
        let record = self.record(name)?;
        let others = record.without(is_own);
        if others.owners.len() == record.owners.len() {
            return Ok(false);
        }
        if others.owners.is_empty() {
            return self.remove(name);
        }
        let (file, bytes) = self.written(&others)?;
        let mut index = self.index();
        file.rename(&self.record_path(name))?;
        index.note(name, bytes, Some(others));
        Ok(true)
    }

    pub(super) fn record_path(&self, name: &PictureName) -> PathBuf {
        self.dir.join(format!("{}{ENDING}", name.as_str()))
    }

    /// Moves a record out of the way, to be deleted or put back. A crash in between leaves what the next start sweeps.
    pub(super) fn set_aside(&self, name: &PictureName) -> io::Result<Option<PathBuf>> {
        let path = self.record_path(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let aside = Unfinished::path_in(&self.dir);
        match fs::rename(&path, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
