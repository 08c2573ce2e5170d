//! The last model list of each backend, kept in a file over restarts: a backend that is down keeps its models, so that requests
//! for them are rejected and never go to another backend.

use std::{
    collections::BTreeMap,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::{files::read_no_follow, secret::redact_url};
use tracing::{info, warn};
use wire::openai::models::Model;

use super::model_listing::MAX_LIST_BYTES;
use crate::{
    blocking::blocking,
    config::{Backend, Backends},
};

/// In `GATEWAY_DATA_DIR`.
pub(super) const FILE_NAME: &str = "models.json";
const MAX_FILE_BYTES: u64 = 4 * MAX_LIST_BYTES as u64;
/// How long a backend that becomes ready waits until its list is on the disk.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Shared by all configurations of the process.
#[derive(Debug)]
pub(crate) struct ModelCache {
    path: PathBuf,
    entries: Mutex<BTreeMap<String, CachedModels>>,
    /// The file matches `entries`.
    is_saved: AtomicBool,
    /// Serializes writes; holds whether the last one failed.
    writer: Arc<tokio::sync::Mutex<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CachedModels {
    /// The backend's URL when it listed these.
    base_url: String,
    models: Vec<String>,
    /// What these are and can do, by name; for those of which anything is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<String, Map<String, Value>>,
}

impl CachedModels {
    fn new(base_url: String, models: &[Model]) -> Self {
        let detailed = models.iter().filter(|model| !model.details.is_empty());
        Self {
            base_url,
            models: models.iter().map(|model| model.id.clone()).collect(),
            details: detailed.map(|model| (model.id.clone(), model.details.clone())).collect(),
        }
    }

    fn models(&self, class: &str) -> impl Iterator<Item = Model> {
        self.models.iter().map(move |id| {
            let details = self.details.get(id).cloned().unwrap_or_default();
            Model { details, ..Model::new(id, 0, class) }
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheFile {
    backends: BTreeMap<String, CachedModels>,
}

impl ModelCache {
    /// A file that cannot be read counts as empty.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE_NAME);
        let entries = read(&path).unwrap_or_else(|error| {
            warn!(
                path = %path.display(),
                %error,
                "cannot read the cached model lists; they are rebuilt as backends respond, and until then an unreachable \
                 backend has no models"
            );
            BTreeMap::new()
        });
        Self { path, entries: Mutex::new(entries), is_saved: AtomicBool::new(true), writer: Arc::default() }
    }

    /// Keeps only these backends, and forgets the models of one whose URL has changed.
    pub(super) fn retain_backends(&self, backends: &Backends) {
        let mut entries = self.entries();
        let previous = std::mem::take(&mut *entries);
        for backend in &backends.all {
            let base_url = redact_url(&backend.base_url);
            let same = previous.get(&backend.class).filter(|one| one.base_url == base_url);
            let entry = same.cloned().unwrap_or_else(|| CachedModels::new(base_url, &[]));
            entries.insert(backend.class.clone(), entry);
        }
        if *entries != previous {
            self.is_saved.store(false, Ordering::Release);
        }
    }

    pub(super) fn models_of(&self, backend: &Backend) -> Arc<[Model]> {
        let entries = self.entries();
        let here = entries.get(&backend.class).filter(|one| one.base_url == redact_url(&backend.base_url));
        here.into_iter().flat_map(|one| one.models(&backend.class)).collect()
    }

    /// Stores a backend's new list, and waits briefly until it is on the disk.
    pub(super) async fn store_models(&self, backend: &Backend, models: &[Model]) {
        self.set_models(backend, models);
        if self.is_saved.load(Ordering::Acquire) {
            return;
        }
        let written = async {
            let mut failed_before = self.writer.clone().lock_owned().await;
            self.is_saved.store(true, Ordering::Release);
            let (path, text) = (self.path.clone(), self.to_json());
            let written = blocking(move || {
                let written = write(&path, &text);
                log_write_result(&path, &written, &mut failed_before);
                written.is_ok()
            });
            if !written.await {
                self.is_saved.store(false, Ordering::Release);
            }
        };
        if tokio::time::timeout(WRITE_TIMEOUT, written).await.is_err() {
            self.is_saved.store(false, Ordering::Release);
        }
    }

    /// Ignores a backend that a reload has removed while it was being probed.
    fn set_models(&self, backend: &Backend, models: &[Model]) {
        let mut entries = self.entries();
        let base_url = redact_url(&backend.base_url);
        let Some(one) = entries.get_mut(&backend.class).filter(|one| one.base_url == base_url) else {
            return;
        };
        let listed = CachedModels::new(base_url, models);
        if *one != listed {
            *one = listed;
            self.is_saved.store(false, Ordering::Release);
        }
    }

    fn to_json(&self) -> String {
        let contents = CacheFile { backends: self.entries().clone() };
        serde_json::to_string(&contents).expect("strings always serialize")
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, CachedModels>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<String, CachedModels>> {
    let file = match read_no_follow(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it exceeds {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(serde_json::from_slice::<CacheFile>(&text)?.backends)
}

/// Writes a temporary file first, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!(
            "the model lists exceed {} MiB in total",
            MAX_FILE_BYTES >> 20
        )));
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let temporary = path.with_extension("json.new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Logs when writing starts to fail, and when it works again.
fn log_write_result(path: &Path, written: &io::Result<()>, failed_before: &mut bool) {
    let path = path.display();
    match written {
        Err(error) if !*failed_before => warn!(
            %path,
            %error,
            "cannot save the model lists: after a restart an unreachable backend has no models, and requests for them go \
             to the default backend; make GATEWAY_DATA_DIR writable"
        ),
        Ok(()) if *failed_before => info!(%path, "the model lists are saved again"),
        Ok(()) | Err(_) => {}
    }
    *failed_before = written.is_err();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::backends::tests::backend, store::disk::tests::temporary};

    fn at(class: &str, base_url: &str) -> Arc<Backend> {
        let mut backend = (*backend(class, &[])).clone();
        backend.base_url = base_url.parse().unwrap();
        Arc::new(backend)
    }

    fn opened(directory: &Path, backends: &[&Arc<Backend>]) -> ModelCache {
        let cache = ModelCache::open(directory);
        cache.retain_backends(&Backends {
            all: backends.iter().map(|backend| (*backend).clone()).collect(),
            ..Backends::default()
        });
        cache
    }

    fn ids(cache: &ModelCache, backend: &Backend) -> Vec<String> {
        let models = cache.models_of(backend);
        assert!(models.iter().all(|model| model.owned_by == backend.class));
        models.iter().map(|model| model.id.clone()).collect()
    }

    fn models(ids: &[&str]) -> Vec<Model> {
        ids.iter().map(|id| Model::new(*id, 5, "foreign")).collect()
    }

    #[tokio::test]
    async fn a_list_survives_a_restart_but_not_a_change_of_url() {
        let directory = temporary("cache").join("made");
        let (mlx, fast) = (at("mlx", "http://user:secret@a:1/v1?key=secret"), at("fast", "http://b:1"));
        let first = opened(&directory, &[&mlx, &fast]);
        assert_eq!(ids(&first, &mlx), [""; 0]);
        first.store_models(&mlx, &models(&["qwen", "öl/8b"])).await;
        first.store_models(&fast, &models(&["llama"])).await;
        let text = fs::read_to_string(directory.join(FILE_NAME)).unwrap();
        assert!(!text.contains("secret") && text.contains("http://a:1/v1"), "{text}");
        let second = opened(&directory, &[&mlx, &fast]);
        assert_eq!((ids(&second, &mlx), ids(&second, &fast)), (ids(&first, &mlx), vec!["llama".to_owned()]));
        assert_eq!(ids(&second, &mlx), ["qwen", "öl/8b"]);
        // One backend has moved, and one is removed.
        let moved = at("mlx", "http://a:2/v1");
        let third = opened(&directory, &[&moved]);
        assert_eq!((ids(&third, &moved), ids(&third, &mlx), ids(&third, &fast)), (vec![], vec![], vec![]));
        third.store_models(&mlx, &models(&["late"])).await;
        assert_eq!(ids(&third, &moved), [""; 0], "a list from the old URL does not count");
        third.store_models(&moved, &models(&[])).await;
        let text = fs::read_to_string(directory.join(FILE_NAME)).unwrap();
        assert!(!text.contains("llama") && !text.contains("qwen"), "{text}");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn details_survive_a_restart_and_a_file_without_them_is_read() {
        let directory = temporary("cache-details");
        let heavy = at("heavy", "http://a:1");
        let details = Map::from_iter([("family".to_owned(), "z-image".into())]);
        let mut list = models(&["z-image-turbo", "sd"]);
        list[0].details = details.clone();
        let cache = opened(&directory, &[&heavy]);
        cache.store_models(&heavy, &list).await;
        let restored = opened(&directory, &[&heavy]).models_of(&heavy);
        assert_eq!((&restored[0].details, &restored[1].details), (&details, &Map::new()));
        list[0].details = Map::new();
        cache.store_models(&heavy, &list).await;
        let text = fs::read_to_string(directory.join(FILE_NAME)).unwrap();
        assert!(!text.contains("details"), "as without them: {text}");
        assert_eq!(ids(&opened(&directory, &[&heavy]), &heavy), ["z-image-turbo", "sd"]);
    }

    #[tokio::test]
    async fn a_damaged_file_counts_as_empty_and_is_rewritten() {
        let directory = temporary("cache-damaged");
        let mlx = at("mlx", "http://a:1");
        for damaged in
            ["", "{\"backends\":{\"mlx\"", "[]", "\u{0}\u{0}", "{\"backends\":{\"mlx\":{\"models\":7}}}"]
        {
            fs::write(directory.join(FILE_NAME), damaged).unwrap();
            let cache = opened(&directory, &[&mlx]);
            assert_eq!(ids(&cache, &mlx), [""; 0], "{damaged:?}");
            cache.store_models(&mlx, &models(&["qwen"])).await;
            assert_eq!(ids(&opened(&directory, &[&mlx]), &mlx), ["qwen"], "{damaged:?}");
        }
        fs::write(directory.join(FILE_NAME), vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1])
            .unwrap();
        assert_eq!(ids(&opened(&directory, &[&mlx]), &mlx), [""; 0]);
    }

    #[tokio::test]
    async fn an_unwritable_directory_affects_only_the_file_and_is_retried() {
        let directory = temporary("cache-unwritable");
        let (blocked, mlx) = (directory.join("file"), at("mlx", "http://a:1"));
        fs::write(&blocked, "no directory").unwrap();
        let cache = opened(&blocked, &[&mlx]);
        cache.store_models(&mlx, &models(&["qwen"])).await;
        assert_eq!(ids(&cache, &mlx), ["qwen"]);
        fs::remove_file(&blocked).unwrap();
        cache.store_models(&mlx, &models(&["qwen"])).await;
        assert_eq!(
            ids(&opened(&blocked, &[&mlx]), &mlx),
            ["qwen"],
            "the same list, once the directory is writable"
        );
    }

    #[tokio::test]
    async fn an_unchanged_list_is_not_written() {
        let directory = temporary("cache-still");
        let mlx = at("mlx", "http://a:1");
        let cache = opened(&directory, &[&mlx]);
        cache.store_models(&mlx, &models(&["qwen"])).await;
        fs::remove_file(directory.join(FILE_NAME)).unwrap();
        cache.store_models(&mlx, &models(&["qwen"])).await;
        assert!(!directory.join(FILE_NAME).exists());
    }
}
