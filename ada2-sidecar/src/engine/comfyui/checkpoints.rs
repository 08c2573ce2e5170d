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

use super::api::Api;
use crate::{
    engine::EngineError,
    images::models::{self, EngineModel, Kind, Variant, checkpoint},
};

/// The list is read anew after this: files come and go.
const LIST_LASTS: Duration = Duration::from_secs(10);
/// For reading metadata within one look; what is left is read in the next.
const READING: Duration = Duration::from_millis(500);
/// What has not been read by then counts as without metadata until it is: a file on a disk that hangs.
const GIVEN_UP: Duration = Duration::from_secs(15);
/// Files read at once.
const AT_ONCE: usize = 4;
/// The only files whose metadata the server reads.
const WITH_METADATA: &str = ".safetensors";

/// What the server says of a file's metadata, as far as it tells the kind. Values are whatever a tool wrote there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Metadata {
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

impl From<Metadata> for models::Metadata {
    fn from(Metadata { architecture, base_version, network }: Metadata) -> Self {
        Self { architecture, base_version, network }
    }
}

/// When a file was changed, and how large it is: metadata that was read of the same is not read again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stamp {
    pub(super) modified: f64,
    pub(super) size: u64,
}

/// What is known of the checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The list, and when it was complete.
    list: Option<(Instant, Arc<[EngineModel]>)>,
    /// By file: what was read, and of what.
    read: HashMap<String, (Option<Stamp>, Option<models::Metadata>)>,
    /// Since when something is left to read.
    reading: Option<Instant>,
}

impl Checkpoints {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another server may come up, with other files.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    /// The models, and of how many it is still to be read what they are. While a list that was complete is made anew, it
    /// stays: what is read piece by piece must not make another model the first one for a moment.
    pub(super) async fn read(&self, api: &Api) -> Result<(Arc<[EngineModel]>, usize), EngineError> {
        if let Some((at, list)) = &self.known().list
            && at.elapsed() < LIST_LASTS
        {
            return Ok((list.clone(), 0));
        }
        let files = api.checkpoints().await?;
        let split = api.diffusion_models().await?;
        let reading = self.read_metadata(api, &files);
        let in_time = tokio::time::timeout(READING, reading).await;
        let mut known = self.known();
        let there: HashSet<_> = files.iter().collect();
        known.read.retain(|file, _| there.contains(file));
        // Out of time: all that has not been read at all, of whatever age what was read is.
        let unread = files
            .iter()
            .filter(|file| file.ends_with(WITH_METADATA) && !known.read.contains_key(*file))
            .count();
        let since = *known.reading.get_or_insert_with(Instant::now);
        let is_complete = in_time.is_ok_and(|read| read.is_ok());
        if is_complete {
            known.reading = None;
        } else if since.elapsed() < GIVEN_UP
            && let Some((_, list)) = &known.list
        {
            return Ok((list.clone(), 0));
        }
        let list = files.iter().map(|file| model(file, known.metadata(file)));
        let list: Arc<[_]> = list.chain(split.iter().map(|file| diffusion_model(file))).collect();
        if is_complete || since.elapsed() >= GIVEN_UP {
            known.list = Some((Instant::now(), list.clone()));
            return Ok((list, 0));
        }
        Ok((list, unread.max(1)))
    }

    /// Reads what was not read yet, or has changed since.
    async fn read_metadata(&self, api: &Api, files: &[String]) -> Result<(), EngineError> {
        let stamps = match api.checkpoint_stamps().await {
            Ok(stamps) => stamps,
            Err(
                error @ (EngineError::NoAnswer(_) | EngineError::Unresolved(_) | EngineError::Refused(_)),
            ) => {
                return Err(error);
            }
            // An old server, or something in front of it: then what was read of a file holds as long as the server.
            Err(_) => HashMap::new(),
        };
        let is_due = |file: &&String| {
            let (known, stamp) = (self.known(), stamps.get(*file));
            file.ends_with(WITH_METADATA)
                && known.read.get(*file).is_none_or(|(of, _)| stamp.is_some() && of.as_ref() != stamp)
        };
        let due: Vec<String> = files.iter().filter(is_due).cloned().collect();
        let read = |file: String| async move {
            let metadata = api.metadata(&file).await;
            (file, metadata)
        };
        let mut reading = stream::iter(due).map(read).buffer_unordered(AT_ONCE);
        let mut result = Ok(());
        while let Some((file, metadata)) = reading.next().await {
            // One that cannot be had now does not keep the others waiting.
            match metadata {
                Ok(metadata) => {
                    let read = (stamps.get(&file).copied(), metadata.map(Into::into));
                    self.known().read.insert(file, read);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

impl Known {
    fn metadata(&self, file: &str) -> Option<&models::Metadata> {
        self.read.get(file).and_then(|(_, metadata)| metadata.as_ref())
    }
}

/// A checkpoint by its file: clients call it by that name, with or without the ending.
fn model(file: &str, metadata: Option<&models::Metadata>) -> EngineModel {
    let endings = [WITH_METADATA, ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth"];
    let name = endings.iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(file);
    EngineModel {
        key: file.to_owned(),
        name: name.to_owned(),
        kind: checkpoint(metadata, name),
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
    EngineModel { kind: Kind { variant: Variant::Split, ..whole.kind }, ..whole }
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
        let read = |text: &str| serde_json::from_str::<Metadata>(text).ok();
        let told = Metadata { architecture: Some("flux-1-dev".into()), ..Metadata::default() };
        let thumbnail = "A".repeat(100_000);
        let whole = format!(
            r#"{{"modelspec.thumbnail":"{thumbnail}","modelspec.architecture":"flux-1-dev","x":[{{}}]}}"#
        );
        assert_eq!(read(&whole), Some(told));
        assert_eq!(
            read(r#"{"modelspec.architecture":7,"ss_base_model_version":null}"#),
            Some(Metadata::default())
        );
        assert_eq!(read("{}"), Some(Metadata::default()));
        assert_eq!(read("<!DOCTYPE html>"), None);
    }
}
