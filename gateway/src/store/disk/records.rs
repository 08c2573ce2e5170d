//! The images' records: read, written, and removed with their owners.

use std::{
    fs,
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use service::files::read_no_follow;

use super::{
    super::{
        ImageName, changes,
        metadata::{EXTENSION, ImageMetadata, Provenance},
        staging::TempFile,
    },
    ImageStore,
};

/// Bounds what is read of one record.
const MAX_BYTES: u64 = 1 << 20;

impl ImageStore {
    /// The record of an image; empty if there is no readable one.
    pub(crate) fn read_metadata(&self, name: &ImageName) -> io::Result<ImageMetadata> {
        let mut bytes = Vec::new();
        match read_no_follow(&self.metadata_path(name)) {
            Ok(file) => file.take(MAX_BYTES).read_to_end(&mut bytes)?,
            // Absent, or a link that is not followed.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => 0,
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Writes and flushes a record under a temporary name.
    fn write_metadata(&self, name: &ImageName, metadata: &ImageMetadata) -> io::Result<(TempFile, u64)> {
        let bytes = serde_json::to_vec(metadata).map_err(io::Error::other)?;
        let file = TempFile::create_record(&self.dir, name)?;
        // Only the gateway's account may read who made an image.
        file.file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.flush()?;
        Ok((file, bytes.len() as u64))
    }

    /// Prepares the record of a new image, merged with the existing one if `exists`.
    pub(super) fn prepare_metadata(
        &self,
        name: &ImageName,
        provenance: &Provenance,
        exists: bool,
    ) -> io::Result<(TempFile, u64, ImageMetadata)> {
        let mut metadata = if exists { self.read_metadata(name)? } else { ImageMetadata::default() };
        metadata.merge(provenance);
        let (file, bytes) = self.write_metadata(name, &metadata)?;
        Ok((file, bytes, metadata))
    }

    /// Removes the owners that match; false if none did. Without remaining owners the image is deleted.
    pub(crate) fn remove_owner(&self, name: &ImageName, is_owner: &dyn Fn(&str) -> bool) -> io::Result<bool> {
        let names = self.lock_names();
        let metadata = self.read_metadata(name)?;
        let remaining = metadata.without_owners(is_owner);
        if remaining.owners.len() == metadata.owners.len() {
            return Ok(false);
        }
        if remaining.owners.is_empty() {
            let removed = self.remove_files(name)?;
            drop(names);
            self.flush_names()?;
            return Ok(removed);
        }
        let (file, bytes) = self.write_metadata(name, &remaining)?;
        file.persist(&self.metadata_path(name))?;
        self.index().set_metadata(name, bytes, Some(remaining));
        drop(names);
        self.flush_names()?;
        Ok(true)
    }

    /// Whether an image is there without its record, and an unfinished file is a whole one: a crash came between the two while they
    /// got or lost their names.
    pub(super) fn lacks_record(&self, name: &ImageName, unfinished: &Path) -> io::Result<bool> {
        let look = |path: &Path| match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let image = look(&self.dir.join(name.as_str()))?;
        if !image.is_some_and(|image| image.is_file()) || look(&self.metadata_path(name))?.is_some() {
            return Ok(false);
        }
        let Ok(file) = read_no_follow(unfinished) else { return Ok(false) };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes)?;
        // One that was not flushed may be cut off, which is no JSON then.
        Ok(serde_json::from_slice::<ImageMetadata>(&bytes).is_ok())
    }

    pub(in crate::store) fn metadata_path(&self, name: &ImageName) -> PathBuf {
        self.dir.join(format!("{}{EXTENSION}", name.as_str()))
    }

    /// Moves a record to a temporary name, to be deleted or restored. After a crash the next start does either.
    pub(in crate::store) fn set_aside(&self, name: &ImageName) -> io::Result<Option<PathBuf>> {
        let path = self.metadata_path(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let aside = TempFile::record_path(&self.dir, name);
        match changes::rename(&path, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
