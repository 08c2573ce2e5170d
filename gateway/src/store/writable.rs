//! Whether the store takes pictures: asked before a backend spends time on one, and by `/readyz`. What storing needs (room,
//! and a file for each picture) is had beforehand, so that nothing that was made is lost for want of it. It is logged when
//! the store's state changes, and not each time.

use std::{fs::File, io, sync::Arc, time::Duration};

use service::{descriptors::is_out_of_descriptors, files::disk_space};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::{error, info};

use super::{StoreError, disk::ImageStore, staging::TempFile};
use crate::blocking::blocking;

/// For so long an answer to `/readyz` is good.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// A disk that takes longer is none that can be written.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that are kept free, for pictures that are being made at the same time. Of a small disk a quarter.
const MIN_FREE_BYTES: u64 = 64 << 20;
/// Threads that may wait for the disk. One that hangs for ever must not take them all.
const MAX_BLOCKED_THREADS: usize = 64;

/// The last try, and how many are under way.
#[derive(Debug, Default)]
pub(super) struct WritabilityCache {
    last: Mutex<Option<(Instant, Result<(), String>)>>,
    in_flight: Arc<()>,
}

/// Files for pictures that are still to be made. What is not used of them is removed.
#[derive(Debug, Default)]
pub(crate) struct ReservedFiles {
    files: Vec<TempFile>,
    /// Descriptors that are held for files to be made later.
    spare_descriptors: Vec<Arc<File>>,
}

impl ReservedFiles {
    /// The next file; none where more pictures come than were asked for.
    pub(super) fn take(&mut self) -> Option<TempFile> {
        self.files.pop()
    }

    /// The next file, made now if it was only provided for.
    pub(super) fn next_or_create(&mut self, store: &ImageStore) -> io::Result<TempFile> {
        match self.take().map_or_else(|| store.create_temp_file(), Ok) {
            Err(error) if is_out_of_descriptors(&error) && self.spare_descriptors.pop().is_some() => {
                store.create_temp_file()
            }
            made => made,
        }
    }

    /// The same without files that lie about while a stream goes on for minutes: that they can be made was seen.
    fn into_descriptors(mut self) -> Self {
        self.spare_descriptors = self.files.drain(..).map(TempFile::unlink).collect();
        self
    }
}

impl ImageStore {
    /// Whether a picture can be kept, or why not. Whoever asks at the same time waits for the same try.
    pub(crate) async fn check_writable(&self) -> Result<(), String> {
        let mut last = self.writability.last.lock().await;
        if let Some((_, result)) = last.as_ref().filter(|(at, _)| at.elapsed() < CACHE_TTL) {
            return result.clone();
        }
        let tried = self.with_disk_timeout(|store| {
            store.check_free_space(0)?;
            Ok(store.try_write()?)
        });
        let result = tried.await.map_err(|fault| fault.to_string());
        // It was seen to be writable at the start.
        let was = last.as_ref().is_none_or(|(_, result)| result.is_ok());
        match &result {
            Err(fault) if was => error!(fault, "the picture store takes no pictures"),
            Ok(()) if !was => info!("the picture store takes pictures again"),
            Ok(()) | Err(_) => {}
        }
        *last = Some((Instant::now(), result.clone()));
        result
    }

    /// Has what it takes to keep so many pictures of so many bytes together.
    pub(crate) async fn reserve(&self, images: u64, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.with_disk_timeout(move |store| store.create_reserved_files(images, bytes)).await
    }

    /// The same for the picture at the end of a stream.
    pub(crate) async fn reserve_for_stream(&self, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.with_disk_timeout(move |store| {
            store.create_reserved_files(1, bytes).map(ReservedFiles::into_descriptors)
        })
        .await
    }

    fn create_reserved_files(&self, images: u64, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.check_free_space(bytes)?;
        let files: io::Result<_> = (0..images).map(|_| self.create_temp_file()).collect();
        Ok(ReservedFiles { files: files?, spare_descriptors: Vec::new() })
    }

    fn check_free_space(&self, bytes: u64) -> Result<(), StoreError> {
        let disk = disk_space(&self.dir)?;
        let needed = required_free(disk.total, bytes);
        if disk.free < needed {
            Err(StoreError::InsufficientSpace { free: disk.free, needed })
        } else {
            Ok(())
        }
    }

    /// Beside the async threads, and not for ever.
    async fn with_disk_timeout<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let timed_out = || {
            let message = format!("the disk did not answer within {} s", DISK_TIMEOUT.as_secs());
            Err(StoreError::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
        };
        let (store, in_flight) = (self.clone(), self.writability.in_flight.clone());
        if Arc::strong_count(&in_flight) > MAX_BLOCKED_THREADS {
            return timed_out();
        }
        let done = blocking(move || {
            let done = work(&store);
            drop(in_flight);
            done
        });
        timeout(DISK_TIMEOUT, done).await.unwrap_or_else(|_| timed_out())
    }
}

/// What must be free on a disk of this size before so many bytes are ordered. A disk of size 0 tells nothing of itself.
pub(crate) const fn required_free(total: u64, bytes: u64) -> u64 {
    let quarter = total / 4;
    match (total, quarter < MIN_FREE_BYTES) {
        (0, _) => 0,
        (_, true) => quarter.saturating_add(bytes),
        (_, false) => MIN_FREE_BYTES.saturating_add(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn some_room_is_kept_free_and_of_a_small_disk_a_quarter() {
        const MIB: u64 = 1 << 20;
        for (total, bytes, expected) in [
            (1 << 40, 0, 64 * MIB),
            (1 << 40, 16 * MIB, 80 * MIB),
            (100 * MIB, 4 * MIB, 29 * MIB),
            (MIB, 0, MIB / 4),
            (0, 16 * MIB, 0),
            (1 << 40, u64::MAX, u64::MAX),
        ] {
            assert_eq!(required_free(total, bytes), expected, "{total} {bytes}");
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_had_beforehand_and_what_is_left_over_is_removed() {
        let dir = temporary("prepared");
        let store = ImageStore::open(&dir).unwrap();
        let files = || fs::read_dir(&dir).unwrap().count() - 1;
        let mut prepared = store.reserve(3, 1).await.unwrap();
        assert_eq!(files(), 3);
        drop(prepared.take().unwrap());
        drop(prepared);
        assert_eq!(files(), 0);
        let mut provided = store.reserve_for_stream(1).await.unwrap();
        assert_eq!(
            (files(), provided.spare_descriptors.len()),
            (0, 1),
            "it lies nowhere, and its descriptor is held"
        );
        drop(provided.next_or_create(&store).unwrap());
        let refused = store.reserve(1, u64::MAX / 2).await;
        assert!(matches!(refused, Err(StoreError::InsufficientSpace { .. })), "{refused:?}");
        assert_eq!((store.check_writable().await, files()), (Ok(()), 0));
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_a_bounded_number_of_threads() {
        let store = ImageStore::open(&temporary("hangs")).unwrap();
        let hanging = vec![store.writability.in_flight.clone(); MAX_BLOCKED_THREADS];
        let refused = store.reserve(1, 1).await.unwrap_err();
        assert!(refused.to_string().contains("did not answer"), "{refused}");
        drop(hanging);
        assert!(store.reserve(1, 1).await.is_ok());
    }
}
