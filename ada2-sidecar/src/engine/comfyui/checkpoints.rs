//! Lists and classifies checkpoints. The server does not classify them, but it reads a file's metadata on request; where that
//! says nothing, the file's header may be read on this host (`model_dir.rs`). Each file is read once per change, and a few at
//! a time, so that a poll stays short however many files there are.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};

use super::{
    api::ComfyUiApi,
    checkpoint_file::{self, FileStamp, WITH_METADATA, stem},
    model_dir::{Folder, ModelDir},
};
use crate::{
    engine::EngineError,
    images::models::{Completion, EngineModel, Evidence, ModelMetadata, classify_checkpoint},
};

/// The list is read again after this, because files come and go.
const LIST_TTL: Duration = Duration::from_secs(10);
/// For reading metadata within one poll; the next one continues.
const READ_BUDGET: Duration = Duration::from_millis(500);
/// Files that cannot be read by then (on a disk that hangs) count as files without metadata.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// Files read at once.
const READ_CONCURRENCY: usize = 4;

#[derive(Debug)]
pub(super) struct CheckpointCache {
    state: Mutex<CheckpointCacheState>,
    model_dir: Option<ModelDir>,
}

#[derive(Debug, Default)]
struct CheckpointCacheState {
    /// The last complete list, and when it was read.
    complete_list: Option<(Instant, Arc<[EngineModel]>)>,
    /// By file: its stamp when it was read, and its metadata.
    metadata_by_file: HashMap<String, (Option<FileStamp>, Option<ModelMetadata>)>,
    /// Since when files are left to read.
    incomplete_since: Option<Instant>,
}

impl CheckpointCache {
    /// `model_dir`: the engine's models directory, if this host has it.
    pub(super) fn new(model_dir: Option<ModelDir>) -> Self {
        Self { state: Mutex::default(), model_dir }
    }

    fn lock(&self) -> MutexGuard<'_, CheckpointCacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server may start, with other files.
    pub(super) fn invalidate(&self) {
        *self.lock() = CheckpointCacheState::default();
    }

    /// The models, and how many of them are still to be classified. While a list is read again, the old one stays: otherwise
    /// another model would be the first one for a moment.
    pub(super) async fn list(
        &self,
        api: &ComfyUiApi,
        completion: &Arc<Completion>,
    ) -> Result<(Arc<[EngineModel]>, usize), EngineError> {
        if let Some((read_at, list)) = &self.lock().complete_list
            && read_at.elapsed() < LIST_TTL
        {
            return Ok((list.clone(), 0));
        }
        let files = api.checkpoints().await?;
        let diffusion_models = api.diffusion_models().await?;
        let reading = async {
            let result = self.read_metadata(api, &files).await;
            self.read_headers(&files, &diffusion_models).await;
            result
        };
        let result_in_time = tokio::time::timeout(READ_BUDGET, reading).await;
        let mut state = self.lock();
        let present: HashSet<_> = files.iter().collect();
        state.metadata_by_file.retain(|file, _| present.contains(file));
        // Metadata that is out of date counts as read.
        let unread = files
            .iter()
            .filter(|file| file.ends_with(WITH_METADATA) && !state.metadata_by_file.contains_key(*file))
            .count();
        let since = *state.incomplete_since.get_or_insert_with(Instant::now);
        let is_complete = result_in_time.is_ok_and(|read| read.is_ok());
        if is_complete {
            state.incomplete_since = None;
        } else if since.elapsed() < READ_DEADLINE
            && let Some((_, list)) = &state.complete_list
        {
            return Ok((list.clone(), 0));
        }
        let header = |folder, file: &str| self.model_dir.as_ref()?.kind(folder, file);
        let checkpoints = files.iter().map(|file| {
            checkpoint_file::model(file, state.metadata(file), header(Folder::Checkpoints, file), completion)
        });
        let diffusion_models = diffusion_models
            .iter()
            .map(|file| checkpoint_file::diffusion_model(file, header(Folder::DiffusionModels, file)));
        let list: Arc<[_]> = checkpoints.chain(diffusion_models).collect();
        if is_complete || since.elapsed() >= READ_DEADLINE {
            state.complete_list = Some((Instant::now(), list.clone()));
            return Ok((list, 0));
        }
        Ok((list, unread.max(1)))
    }

    /// Reads the headers of files whose metadata does not say what they are.
    async fn read_headers(&self, checkpoints: &[String], diffusion_models: &[String]) {
        let Some(model_dir) = &self.model_dir else { return };
        let is_open = |file: &&String| {
            classify_checkpoint(self.lock().metadata(file), stem(file)).evidence == Evidence::Name
        };
        let checkpoints = checkpoints.iter().filter(is_open).map(|file| (Folder::Checkpoints, file.clone()));
        let diffusion_models = diffusion_models.iter().map(|file| (Folder::DiffusionModels, file.clone()));
        model_dir.read(checkpoints.chain(diffusion_models).collect()).await;
    }

    /// Reads files that are new or have changed.
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
            // An old server, or a proxy in front of it: metadata is read once per start of the server.
            Err(_) => HashMap::new(),
        };
        let is_due = |file: &&String| {
            let (state, stamp) = (self.lock(), stamps.get(*file));
            file.ends_with(WITH_METADATA)
                && state
                    .metadata_by_file
                    .get(*file)
                    .is_none_or(|(stamp_when_read, _)| stamp.is_some() && stamp_when_read.as_ref() != stamp)
        };
        let due: Vec<String> = files.iter().filter(is_due).cloned().collect();
        let read = |file: String| async move {
            let metadata = api.metadata(&file).await;
            (file, metadata)
        };
        let mut reading = stream::iter(due).map(read).buffer_unordered(READ_CONCURRENCY);
        let mut result = Ok(());
        while let Some((file, metadata)) = reading.next().await {
            // An error does not stop the others.
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
