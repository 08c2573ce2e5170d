//! The images' records: read, written, and removed with their owners.

use std::{
    fs,
    io::{self, ErrorKind, Read},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use service::files::read_no_follow;

use super::{
    super::{
        ImageName,
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
    fn write_metadata(&self, metadata: &ImageMetadata) -> io::Result<(TempFile, u64)> {
        let bytes = serde_json::to_vec(metadata).map_err(io::Error::other)?;
        let file = self.create_temp_file()?;
        // Only the gateway's account may read who made an image.
        file.file().set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(&bytes)?;
        file.file().sync_all()?;
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
        let (file, bytes) = self.write_metadata(&metadata)?;
        Ok((file, bytes, metadata))
    }

    /// Removes the owners that match; false if none did. Without remaining owners the image is deleted.
    pub(crate) fn remove_owner(&self, name: &ImageName, is_owner: &dyn Fn(&str) -> bool) -> io::Result<bool> {
        let _names = self.lock_names();
        let metadata = self.read_metadata(name)?;
        let remaining = metadata.without_owners(is_owner);
        if remaining.owners.len() == metadata.owners.len() {
            return Ok(false);
        }
        if remaining.owners.is_empty() {
            return self.remove_files(name);
        }
        let (file, bytes) = self.write_metadata(&remaining)?;
        file.persist(&self.metadata_path(name))?;
        self.index().set_metadata(name, bytes, Some(remaining));
        Ok(true)
    }

    pub(in crate::store) fn metadata_path(&self, name: &ImageName) -> PathBuf {
        self.dir.join(format!("{}{EXTENSION}", name.as_str()))
    }

    /// Moves a record to a temporary name, to be deleted or restored. After a crash the next start removes it.
    pub(in crate::store) fn set_aside(&self, name: &ImageName) -> io::Result<Option<PathBuf>> {
        let path = self.metadata_path(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
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
