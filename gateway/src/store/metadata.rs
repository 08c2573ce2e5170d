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
use service::files::read_no_follow;

use super::{ImageName, disk::ImageStore, staging::TempFile};

/// What a record's name ends with, behind the picture's.
pub(super) const EXTENSION: &str = ".json";
/// Bytes of one at most: a record is words about a picture.
const MAX_BYTES: u64 = 1 << 20;

/// What is noted of a picture that is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Provenance {
    /// Who made it, as their tokens are noted; nobody where nobody is asked for one.
    pub(crate) owner: Option<String>,
    /// The request that it answered.
    pub(crate) request_id: Option<String>,
}

impl Provenance {
    /// Whether there is nothing to note.
    pub(super) const fn is_empty(&self) -> bool {
        self.owner.is_none() && self.request_id.is_none()
    }
}

/// A record. What a later version adds is kept as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageMetadata {
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

impl ImageMetadata {
    /// Notes that it was made once more.
    fn merge(&mut self, provenance: &Provenance) {
        let add = |all: &mut Vec<String>, one: &Option<String>| {
            all.extend(one.iter().filter(|one| !all.contains(*one)).cloned().collect::<Vec<_>>());
        };
        add(&mut self.owners, &provenance.owner);
        add(&mut self.request_ids, &provenance.request_id);
    }

    /// The same in the hands of the others. Which of the requests were theirs is not told apart.
    fn without_owners(&self, is_owner: &dyn Fn(&str) -> bool) -> Self {
        let owners = self.owners.iter().filter(|owner| !is_owner(owner)).cloned().collect();
        Self { owners, ..self.clone() }
    }
}

impl ImageStore {
    /// The record of a picture; an empty one if there is none that can be read.
    pub(crate) fn read_metadata(&self, name: &ImageName) -> io::Result<ImageMetadata> {
        let mut bytes = Vec::new();
        match read_no_follow(&self.metadata_path(name)) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes)?,
            // Nothing there, or a trap.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => 0,
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// A record, written and flushed, that has no name yet.
    pub(super) fn write_metadata(&self, record: &ImageMetadata) -> io::Result<(TempFile, u64)> {
        let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
        let file = self.create_temp_file()?;
        // Pictures are for whoever may fetch them; who made them is not.
        file.file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.file().sync_all()?;
        Ok((file, bytes.len() as u64))
    }

    /// The record of a picture that was made, maybe not for the first time.
    pub(super) fn prepare_metadata(
        &self,
        name: &ImageName,
        provenance: &Provenance,
        is_there: bool,
    ) -> io::Result<(TempFile, u64, ImageMetadata)> {
        let mut metadata = if is_there { self.read_metadata(name)? } else { ImageMetadata::default() };
        metadata.merge(provenance);
        let (file, bytes) = self.write_metadata(&metadata)?;
        Ok((file, bytes, metadata))
    }

    /// Takes a picture out of the hands of those who are meant by `is_own`; whether it was in them. It is deleted once nobody
    /// has it.
    pub(crate) fn remove_owner(&self, name: &ImageName, is_owner: &dyn Fn(&str) -> bool) -> io::Result<bool> {
        let metadata = self.read_metadata(name)?;
        let remaining = metadata.without_owners(is_owner);
        if remaining.owners.len() == metadata.owners.len() {
            return Ok(false);
        }
        if remaining.owners.is_empty() {
            return self.remove(name);
        }
        let (file, bytes) = self.write_metadata(&remaining)?;
        let mut index = self.index();
        file.persist(&self.metadata_path(name))?;
        index.set_metadata(name, bytes, Some(remaining));
        Ok(true)
    }

    pub(super) fn metadata_path(&self, name: &ImageName) -> PathBuf {
        self.dir.join(format!("{}{EXTENSION}", name.as_str()))
    }

    /// Moves a record out of the way, to be deleted or put back. A crash in between leaves what the next start sweeps.
    pub(super) fn set_aside(&self, name: &ImageName) -> io::Result<Option<PathBuf>> {
        let path = self.metadata_path(name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let aside = TempFile::path_in(&self.dir);
        match fs::rename(&path, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
