//! Whether the store takes pictures: asked before a backend spends time on one, and by `/readyz`. What storing needs (room,
//! and a file for each picture) is had beforehand, so that nothing that was made is lost for want of it. It is logged when
//! the store's state changes, and not each time.

use std::{fs::File, io, sync::Arc, time::Duration};

use service::{descriptors::ran_out, files::disk_of};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::{error, info};

use super::{StoreFault, disk::Store, incoming::Unfinished};
use crate::blocking::blocking;

/// For so long an answer to `/readyz` is good.
const FRESH: Duration = Duration::from_secs(1);
/// A disk that takes longer is none that can be written.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that are kept free, for pictures that are being made at the same time. Of a small disk a quarter.
const KEPT_FREE: u64 = 64 << 20;
/// Threads that may wait for the disk. One that hangs for ever must not take them all.
const MOST_WAITING: usize = 64;

/// The last try, and how many are under way.
#[derive(Debug, Default)]
pub(super) struct LastTry {
    last: Mutex<Option<(Instant, Result<(), String>)>>,
    waiting: Arc<()>,
}

/// Files for pictures that are still to be made. What is not used of them is removed.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    files: Vec<Unfinished>,
    /// Descriptors that are held for files to be made later.
    spare: Vec<Arc<File>>,
}

impl Prepared {
    /// The next file; none where more pictures come than were asked for.
    pub(super) fn take(&mut self) -> Option<Unfinished> {
        self.files.pop()
    }

    /// The next file, made now if it was only provided for.
    pub(super) fn next(&mut self, store: &Store) -> io::Result<Unfinished> {
        match self.take().map_or_else(|| store.unfinished(), Ok) {
            Err(error) if ran_out(&error) && self.spare.pop().is_some() => store.unfinished(),
            made => made,
        }
    }

    /// The same without files that lie about while a stream goes on for minutes: that they can be made was seen.
    fn provided_for(mut self) -> Self {
        self.spare = self.files.drain(..).map(Unfinished::remove).collect();
        self
    }
}

impl Store {
    /// Whether a picture can be kept, or why not. Whoever asks at the same time waits for the same try.
    pub(crate) async fn is_writable(&self) -> Result<(), String> {
        let mut last = self.last_try.last.lock().await;
        if let Some((_, result)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return result.clone();
        }
        let tried = self.on_disk(|store| {
            store.has_room(0)?;
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
    pub(crate) async fn prepare(&self, pictures: u64, bytes: u64) -> Result<Prepared, StoreFault> {
        self.on_disk(move |store| store.prepared(pictures, bytes)).await
    }

    /// The same for the picture at the end of a stream.
    pub(crate) async fn provide(&self, bytes: u64) -> Result<Prepared, StoreFault> {
        self.on_disk(move |store| store.prepared(1, bytes).map(Prepared::provided_for)).await
    }

    fn prepared(&self, pictures: u64, bytes: u64) -> Result<Prepared, StoreFault> {
        self.has_room(bytes)?;
        let files: io::Result<_> = (0..pictures).map(|_| self.unfinished()).collect();
        Ok(Prepared { files: files?, spare: Vec::new() })
    }

    fn has_room(&self, bytes: u64) -> Result<(), StoreFault> {
        let disk = disk_of(&self.dir)?;
        let needed = needed(disk.total, bytes);
        if disk.free < needed { Err(StoreFault::Scarce { free: disk.free, needed }) } else { Ok(()) }
    }

    /// Beside the async threads, and not for ever.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreFault> + Send + 'static,
    ) -> Result<T, StoreFault> {
        let silent = || {
            let words = format!("the disk did not answer within {} s", PATIENCE.as_secs());
            Err(StoreFault::Io(io::Error::new(io::ErrorKind::TimedOut, words)))
        };
        let (store, waiting) = (self.clone(), self.last_try.waiting.clone());
        if Arc::strong_count(&waiting) > MOST_WAITING {
            return silent();
        }
        let done = blocking(move || {
            let done = work(&store);
            drop(waiting);
            done
        });
        timeout(PATIENCE, done).await.unwrap_or_else(|_| silent())
    }
}

/// What must be free on a disk of this size before so many bytes are ordered. A disk of size 0 tells nothing of itself.
pub(crate) const fn needed(total: u64, bytes: u64) -> u64 {
    let quarter = total / 4;
    match (total, quarter < KEPT_FREE) {
        (0, _) => 0,
        (_, true) => quarter.saturating_add(bytes),
        (_, false) => KEPT_FREE.saturating_add(bytes),
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
            assert_eq!(needed(total, bytes), expected, "{total} {bytes}");
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_is_had_beforehand_and_what_is_left_over_is_removed() {
        let dir = temporary("prepared");
        let store = Store::open(&dir).unwrap();
        let files = || fs::read_dir(&dir).unwrap().count() - 1;
        let mut prepared = store.prepare(3, 1).await.unwrap();
        assert_eq!(files(), 3);
        drop(prepared.take().unwrap());
        drop(prepared);
        assert_eq!(files(), 0);
        let mut provided = store.provide(1).await.unwrap();
        assert_eq!((files(), provided.spare.len()), (0, 1), "it lies nowhere, and its descriptor is held");
        drop(provided.next(&store).unwrap());
        let refused = store.prepare(1, u64::MAX / 2).await;
        assert!(matches!(refused, Err(StoreFault::Scarce { .. })), "{refused:?}");
        assert_eq!((store.is_writable().await, files()), (Ok(()), 0));
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_a_bounded_number_of_threads() {
        let store = Store::open(&temporary("hangs")).unwrap();
        let hanging = vec![store.last_try.waiting.clone(); MOST_WAITING];
        let refused = store.prepare(1, 1).await.unwrap_err();
        assert!(refused.to_string().contains("did not answer"), "{refused}");
        drop(hanging);
        assert!(store.prepare(1, 1).await.is_ok());
    }
}
