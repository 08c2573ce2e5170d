//! The checkpoints, and what each is. The server does not tell kinds, but it reads a file's metadata on request: once for
//! each file and change of it, and a few at a time, so that a look at the server stays short however many files there are.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::api::ComfyUiApi;
use crate::{
    engine::EngineError,
    images::models::{self, EngineModel, ModelKind, ModelVariant, classify_checkpoint},
};

/// The list is read anew after this: files come and go.
const LIST_TTL: Duration = Duration::from_secs(10);
/// For reading metadata within one look; what is left is read in the next.
const READ_BUDGET: Duration = Duration::from_millis(500);
/// What has not been read by then counts as without metadata until it is: a file on a disk that hangs.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// Files read at once.
const READ_CONCURRENCY: usize = 4;
/// The only files whose metadata the server reads.
const WITH_METADATA: &str = ".safetensors";

/// What the server says of a file's metadata, as far as it tells the kind. Values are whatever a tool wrote there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct RawMetadata {
    #[serde(default, rename = "modelspec.architecture", deserialize_with = "text")]
    architecture: Option<String>,
    #[serde(default, rename = "ss_base_model_version", deserialize_with = "text")]
    base_version: Option<String>,
    #[serde(default, rename = "ss_network_module", deserialize_with = "text")]
    network: Option<String>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

impl From<RawMetadata> for models::ModelMetadata {
    fn from(RawMetadata { architecture, base_version, network }: RawMetadata) -> Self {
        Self { architecture, base_version, network }
    }
}

/// When a file was changed, and how large it is: metadata that was read of the same is not read again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FileStamp {
    pub(super) modified: f64,
    pub(super) size: u64,
}

/// What is known of the checkpoints.
#[derive(Debug, Default)]
pub(super) struct CheckpointCache(Mutex<CheckpointCacheState>);

#[derive(Debug, Default)]
struct CheckpointCacheState {
    /// The list, and when it was complete.
    complete_list: Option<(Instant, Arc<[EngineModel]>)>,
    /// By file: what was read, and of what.
    metadata_by_file: HashMap<String, (Option<FileStamp>, Option<models::ModelMetadata>)>,
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
        let list = files.iter().map(|file| model(file, known.metadata(file)));
        let list: Arc<[_]> = list.chain(diffusion_models.iter().map(|file| diffusion_model(file))).collect();
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
    fn metadata(&self, file: &str) -> Option<&models::ModelMetadata> {
        self.metadata_by_file.get(file).and_then(|(_, metadata)| metadata.as_ref())
    }
}

/// A checkpoint by its file: clients call it by that name, with or without the ending.
fn model(file: &str, metadata: Option<&models::ModelMetadata>) -> EngineModel {
    let endings = [WITH_METADATA, ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth"];
    let name = endings.iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(file);
    EngineModel {
        key: file.to_owned(),
        name: name.to_owned(),
        kind: classify_checkpoint(metadata, name),
        handle: json!(file),
        size: None,
        steps: None,
        cfg_scale: None,
        scheduler: None,
    }
}

/// A diffusion model alone, by its file.
fn diffusion_model(file: &str) -> EngineModel {
    let whole = model(file, None);
    EngineModel { kind: ModelKind { variant: ModelVariant::Split, ..whole.kind }, ..whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_called_by_its_file_with_and_without_the_ending() {
        for (file, name, kind) in [
            ("juggernautXL_v9.safetensors", "juggernautXL_v9", "SDXL"),
            ("ponyDiffusionV6XL.ckpt", "ponyDiffusionV6XL", "SDXL"),
            ("anime/Illustrious-v1.safetensors", "anime/Illustrious-v1", "SDXL"),
            ("v1-5-pruned-emaonly.safetensors", "v1-5-pruned-emaonly", "SD 1.5"),
            ("dreamshaper_8", "dreamshaper_8", "of unknown kind"),
        ] {
            let read = model(file, None);
            assert_eq!((read.key.as_str(), read.name.as_str()), (file, name));
            assert_eq!((read.kind.to_string().as_str(), &read.handle), (kind, &json!(file)));
        }
    }

    #[test]
    fn metadata_is_read_whatever_else_is_in_it() {
        let read = |text: &str| serde_json::from_str::<RawMetadata>(text).ok();
        let told = RawMetadata { architecture: Some("flux-1-dev".into()), ..RawMetadata::default() };
        let thumbnail = "A".repeat(100_000);
        let whole = format!(
            r#"{{"modelspec.thumbnail":"{thumbnail}","modelspec.architecture":"flux-1-dev","x":[{{}}]}}"#
        );
        assert_eq!(read(&whole), Some(told));
        assert_eq!(
            read(r#"{"modelspec.architecture":7,"ss_base_model_version":null}"#),
            Some(RawMetadata::default())
        );
        assert_eq!(read("{}"), Some(RawMetadata::default()));
        assert_eq!(read("<!DOCTYPE html>"), None);
    }
}
