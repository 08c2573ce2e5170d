//! Whether the store accepts images: checked before a backend spends time on one, and by `/readyz`. Free space and one file
//! per image are reserved beforehand, so that no finished image is lost for lack of them. Only changes are logged.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use service::{descriptors::is_out_of_descriptors, files::disk_space};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::{error, info};

use super::{StoreError, fullness::required_free, staging::TempFile};
use crate::blocking::blocking;

/// How long a result is reused for `/readyz`.
const CACHE_TTL: Duration = Duration::from_secs(1);
/// A disk that takes longer counts as not writable.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads that may wait for the disk, so that a hanging one does not take them all.
const MAX_BLOCKED_THREADS: usize = 64;

/// Files for images that are still to be made. Unused ones are removed.
#[derive(Debug, Default)]
pub(crate) struct ReservedFiles {
    files: Vec<TempFile>,
    /// Descriptors held for files to be created later.
    spare_descriptors: Vec<Arc<File>>,
}

impl ReservedFiles {
    /// For so many images with so many bytes in total.
    fn create(dir: &Path, images: u64, bytes: u64) -> Result<Self, StoreError> {
        check_free_space(dir, bytes)?;
        let files: io::Result<_> = (0..images).map(|_| TempFile::create(dir)).collect();
        Ok(Self { files: files?, spare_descriptors: Vec::new() })
    }

    /// The next file; none if more images come than were requested.
    pub(super) fn take(&mut self) -> Option<TempFile> {
        self.files.pop()
    }

    /// The next file, created now if there is none left. Releases a spare descriptor for it if need be.
    pub(super) fn next_or_create(&mut self, dir: &Path) -> io::Result<TempFile> {
        match self.take().map_or_else(|| TempFile::create(dir), Ok) {
            Err(error) if is_out_of_descriptors(&error) && self.spare_descriptors.pop().is_some() => {
                TempFile::create(dir)
            }
            created => created,
        }
    }

    /// Keeps the descriptors and removes the files, which would lie about for minutes while a stream lasts.
    fn into_descriptors(mut self) -> Self {
        self.spare_descriptors = self.files.drain(..).map(TempFile::unlink).collect();
        self
    }
}

/// Checks and reserves with a timeout, as the disk may hang.
#[derive(Debug)]
pub(super) struct Writability {
    dir: Arc<PathBuf>,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
    in_flight: Arc<()>,
}

impl Writability {
    pub(super) fn new(dir: Arc<PathBuf>) -> Self {
        Self { dir, last: Mutex::default(), in_flight: Arc::default() }
    }

    /// Whether an image can be stored, or why not. Concurrent checks share one attempt.
    pub(super) async fn check(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((_, result)) = last.as_ref().filter(|(at, _)| at.elapsed() < CACHE_TTL) {
            return result.clone();
        }
        let attempt = self.with_disk_timeout(|dir| {
            check_free_space(dir, 0)?;
            Ok(try_write(dir)?)
        });
        let result = attempt.await.map_err(|error| error.to_string());
        // It was writable at start.
        let was_writable = last.as_ref().is_none_or(|(_, result)| result.is_ok());
        match &result {
            Err(fault) if was_writable => error!(fault, "the image store is not writable"),
            Ok(()) if !was_writable => info!("the image store is writable again"),
            Ok(()) | Err(_) => {}
        }
        *last = Some((Instant::now(), result.clone()));
        result
    }

    pub(super) async fn reserve(&self, images: u64, bytes: u64) -> Result<ReservedFiles, StoreError> {
        self.with_disk_timeout(move |dir| ReservedFiles::create(dir, images, bytes)).await
    }

    /// Only a descriptor, for the image at the end of a stream.
    pub(super) async fn reserve_for_stream(&self, bytes: u64) -> Result<ReservedFiles, StoreError> {
        let reserve =
            move |dir: &Path| ReservedFiles::create(dir, 1, bytes).map(ReservedFiles::into_descriptors);
        self.with_disk_timeout(reserve).await
    }

    async fn with_disk_timeout<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let timed_out = || {
            let message = format!("the disk did not answer within {} s", DISK_TIMEOUT.as_secs());
            Err(StoreError::Io(io::Error::new(io::ErrorKind::TimedOut, message)))
        };
        let (dir, in_flight) = (self.dir.clone(), self.in_flight.clone());
        if Arc::strong_count(&in_flight) > MAX_BLOCKED_THREADS {
            return timed_out();
        }
        let done = blocking(move || {
            let done = work(&dir);
            drop(in_flight);
            done
        });
        timeout(DISK_TIMEOUT, done).await.unwrap_or_else(|_| timed_out())
    }
}

pub(super) fn check_free_space(dir: &Path, bytes: u64) -> Result<(), StoreError> {
    let disk = disk_space(dir)?;
    let needed = required_free(disk.total, bytes);
    if disk.free < needed { Err(StoreError::InsufficientSpace { free: disk.free, needed }) } else { Ok(()) }
}

/// Whether a file can be created and written now.
pub(super) fn try_write(dir: &Path) -> io::Result<()> {
    TempFile::create(dir)?.write_all(b"x")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::disk::{ImageStore, tests::temporary};

    #[tokio::test]
    async fn files_are_reserved_beforehand_and_unused_ones_removed() {
        let dir = temporary("reserved");
        let store = ImageStore::open(&dir).unwrap();
        let files = || fs::read_dir(&dir).unwrap().count() - 1;
        let mut reserved = store.reserve(3, 1).await.unwrap();
        assert_eq!(files(), 3);
        drop(reserved.take().unwrap());
        drop(reserved);
        assert_eq!(files(), 0);
        let mut for_stream = store.reserve_for_stream(1).await.unwrap();
        assert_eq!(
            (files(), for_stream.spare_descriptors.len()),
            (0, 1),
            "the file is unlinked, its descriptor held"
        );
        drop(for_stream.next_or_create(&dir).unwrap());
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
