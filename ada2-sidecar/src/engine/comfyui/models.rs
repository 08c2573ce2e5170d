//! All models of a ComfyUI: its checkpoints, and the families that its split files make up.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::{
    api::ComfyUiApi, checkpoint_file::stem, checkpoints::CheckpointCache, family_files, graphs,
    model_dir::ModelDir, validate::Classes,
};
use crate::{
    engine::EngineError,
    images::models::{Completion, EngineLora, EngineModel, lora_family},
};

/// The lists of files are read again after this.
const FILES_TTL: Duration = Duration::from_secs(10);
/// Descriptions of node classes read at once.
const CONCURRENCY: usize = 4;

/// What ComfyUI has.
#[derive(Debug, Clone)]
pub(super) struct InstalledModels {
    pub(super) models: Arc<[EngineModel]>,
    pub(super) loras: Arc<[EngineLora]>,
    /// How many are still to be classified.
    pub(super) unclassified: usize,
}

#[derive(Debug)]
pub(super) struct ModelCache {
    checkpoints: CheckpointCache,
    completion: Arc<Completion>,
    families: Mutex<FamilyCache>,
}

#[derive(Debug, Default)]
struct FamilyCache {
    /// When the server was last asked.
    read_at: Option<Instant>,
    /// What it said since it started.
    listed: Arc<Listed>,
    /// What follows from that.
    found: Option<Families>,
}

/// What families and LoRAs are found in.
#[derive(Debug, Default, PartialEq)]
struct Listed {
    classes: Classes,
    lora_files: Vec<String>,
}

/// The models of families, and all LoRAs.
type Families = (Arc<[EngineModel]>, Arc<[EngineLora]>);

impl ModelCache {
    pub(super) fn new(model_dir: Option<ModelDir>) -> Self {
        let completion = Completion { catalog: graphs::catalog(), submodels: Vec::new() };
        Self {
            checkpoints: CheckpointCache::new(model_dir),
            completion: Arc::new(completion),
            families: Mutex::default(),
        }
    }

    /// Another server may start, with other nodes and files.
    pub(super) fn invalidate(&self) {
        self.checkpoints.invalidate();
        *self.lock() = FamilyCache::default();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FamilyCache> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All models. Those of families take the place of their diffusion models.
    pub(super) async fn list(&self, api: &ComfyUiApi) -> Result<InstalledModels, EngineError> {
        let (checkpoints, unclassified) = self.checkpoints.list(api, &self.completion).await?;
        let (families, loras) = self.families(api).await?;
        let used: HashSet<_> = families.iter().map(|model| model.key.as_str()).collect();
        let others = checkpoints.iter().filter(|model| !used.contains(model.key.as_str()));
        let models = others.chain(families.iter()).cloned().collect();
        Ok(InstalledModels { models, loras, unclassified })
    }

    async fn families(&self, api: &ComfyUiApi) -> Result<Families, EngineError> {
        let (before, found) = {
            let cache = self.lock();
            let is_fresh = cache.read_at.is_some_and(|read_at| read_at.elapsed() < FILES_TTL);
            if let Some(families) = cache.found.as_ref().filter(|_| is_fresh) {
                return Ok(families.clone());
            }
            (cache.listed.clone(), cache.found.clone())
        };
        let classes = read_classes(api, before.classes.clone()).await?;
        let listed = Arc::new(Listed { classes, lora_files: api.loras().await? });
        let families = if let Some(unchanged) = found.filter(|_| listed == before) {
            unchanged
        } else {
            let listed = listed.clone();
            let finding = tokio::task::spawn_blocking(move || listed.families());
            finding.await.map_err(|_| EngineError::Failed("reading its models failed".to_owned()))?
        };
        *self.lock() = FamilyCache { read_at: Some(Instant::now()), listed, found: Some(families.clone()) };
        Ok(families)
    }
}

impl Listed {
    /// Takes long with many files: not for an async thread.
    fn families(&self) -> Families {
        let sets = graphs::catalog().sets().filter(|set| !set.family.files.is_empty());
        let models = sets.flat_map(|set| family_files::models(set, &self.classes)).collect();
        (models, self.lora_files.iter().map(|file| lora(file)).collect())
    }
}

/// The descriptions of all classes in built-in graphs: those of loaders anew, because they list files, and those that are
/// not known yet.
async fn read_classes(api: &ComfyUiApi, known: Classes) -> Result<Classes, EngineError> {
    let sets = || graphs::catalog().sets().filter(|set| !set.family.files.is_empty());
    let wanted: BTreeSet<&str> = sets().flat_map(|set| family_files::classes_of(set)).collect();
    let due = wanted
        .into_iter()
        .filter(|class| family_files::lists_files(class) || known.get(*class).is_none_or(Option::is_none));
    let due: Vec<String> = due.map(str::to_owned).collect();
    let read = |class: String| async move {
        let description = match api.node_class(&class).await {
            // A broken node pack: the server works without this class.
            Err(EngineError::Failed(_) | EngineError::UnexpectedResponse(_)) => None,
            description => description?,
        };
        Ok((class, description))
    };
    let read: HashMap<_, _> = stream::iter(due).map(read).buffer_unordered(CONCURRENCY).try_collect().await?;
    Ok(known.into_iter().chain(read).collect())
}

fn lora(file: &str) -> EngineLora {
    EngineLora {
        key: file.to_owned(),
        name: stem(file).to_owned(),
        family: lora_family(stem(file)).map(|family| family.name.to_owned()),
        variant: None,
        handle: json!(file),
    }
}
