//! The checkpoints, and what each is. The server does not tell kinds, but it reads a file's metadata on request: once for
//! each file and change of it, and a few at a time, so that a look at the server stays short however many files there are.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{
    api::ComfyUiApi,
    checkpoint_file::{self, FileStamp, WITH_METADATA},
};
use crate::{
    engine::EngineError,
    images::models::{EngineModel, ModelMetadata},
};

/// The list is read anew after this: files come and go.
const LIST_TTL: Duration = Duration::from_secs(10);
/// For reading metadata within one look; what is left is read in the next.
const READ_BUDGET: Duration = Duration::from_millis(500);
/// What has not been read by then counts as without metadata until it is: a file on a disk that hangs.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// Files read at once.
const READ_CONCURRENCY: usize = 4;

/// What is known of the checkpoints.
#[derive(Debug, Default)]
pub(super) struct CheckpointCache(Mutex<CheckpointCacheState>);

#[derive(Debug, Default)]
struct CheckpointCacheState {
    /// The list, and when it was complete.
    complete_list: Option<(Instant, Arc<[EngineModel]>)>,
    /// By file: what was read, and of what.
    metadata_by_file: HashMap<String, (Option<FileStamp>, Option<ModelMetadata>)>,
    /// Since when something is left to read.
    incomplete_since: Option<Instant>,
}

impl CheckpointCache {
    fn lock(&self) -> MutexGuard<'_, CheckpointCacheState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server may come up, with other files.
    pub(super) fn invalidate(&self) {
        *self.lock() = CheckpointCacheState::default();
    }

    /// The models, and of how many it is still to be read what they are. While a list that was complete is made anew, it
    /// stays: what is read piece by piece must not make another model the first one for a moment.
    pub(super) async fn list(&self, api: &ComfyUiApi) -> Result<(Arc<[EngineModel]>, usize), EngineError> {
        if let Some((at, list)) = &self.lock().complete_list
            && at.elapsed() < LIST_TTL
        {
            return Ok((list.clone(), 0));
        }
        let files = api.checkpoints().await?;
        let diffusion_models = api.diffusion_models().await?;
        let reading = self.read_metadata(api, &files);
        let in_time = tokio::time::timeout(READ_BUDGET, reading).await;
        let mut known = self.lock();
        let there: HashSet<_> = files.iter().collect();
        known.metadata_by_file.retain(|file, _| there.contains(file));
        // Out of time: all that has not been read at all, of whatever age what was read is.
        let unread = files
            .iter()
            .filter(|file| file.ends_with(WITH_METADATA) && !known.metadata_by_file.contains_key(*file))
            .count();
        let since = *known.incomplete_since.get_or_insert_with(Instant::now);
        let is_complete = in_time.is_ok_and(|read| read.is_ok());
        if is_complete {
            known.incomplete_since = None;
        } else if since.elapsed() < READ_DEADLINE
            && let Some((_, list)) = &known.complete_list
        {
            return Ok((list.clone(), 0));
        }
        let list = files.iter().map(|file| checkpoint_file::model(file, known.metadata(file)));
        let list: Arc<[_]> =
            list.chain(diffusion_models.iter().map(|file| checkpoint_file::diffusion_model(file))).collect();
        if is_complete || since.elapsed() >= READ_DEADLINE {
            known.complete_list = Some((Instant::now(), list.clone()));
            return Ok((list, 0));
        }
        Ok((list, unread.max(1)))
    }

    /// Reads what was not read yet, or has changed since.
    async fn read_metadata(&self, api: &ComfyUiApi, files: &[String]) -> Result<(), EngineError> {
        let stamps = match api.checkpoint_stamps().await {
            Ok(stamps) => stamps,
            Err(
                error @ (EngineError::Unresponsive(_)
                | EngineError::HostUnresolved(_)
                | EngineError::ConnectionRefused(_)),
            ) => {
                return Err(error);
            }
            // An old server, or something in front of it: then what was read of a file holds as long as the server.
            Err(_) => HashMap::new(),
        };
        let is_due = |file: &&String| {
            let (known, stamp) = (self.lock(), stamps.get(*file));
            file.ends_with(WITH_METADATA)
                && known
                    .metadata_by_file
                    .get(*file)
                    .is_none_or(|(of, _)| stamp.is_some() && of.as_ref() != stamp)
        };
        let due: Vec<String> = files.iter().filter(is_due).cloned().collect();
        let read = |file: String| async move {
            let metadata = api.metadata(&file).await;
            (file, metadata)
        };
        let mut reading = stream::iter(due).map(read).buffer_unordered(READ_CONCURRENCY);
        let mut result = Ok(());
        while let Some((file, metadata)) = reading.next().await {
            // One that cannot be had now does not keep the others waiting.
            match metadata {
                Ok(metadata) => {
                    let read = (stamps.get(&file).copied(), metadata.map(Into::into));
                    self.lock().metadata_by_file.insert(file, read);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

impl CheckpointCacheState {
    fn metadata(&self, file: &str) -> Option<&ModelMetadata> {
        self.metadata_by_file.get(file).and_then(|(_, metadata)| metadata.as_ref())
    }
}
