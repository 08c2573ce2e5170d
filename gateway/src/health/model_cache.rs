//! What each backend listed when it last answered, kept in a file over restarts: a backend that is down keeps its models,
//! so that requests for them are refused and never go to another one.

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
use service::{files::read_no_follow, secret::redact_url};
use tracing::{info, warn};
use wire::openai::models::Model;

use super::model_listing::MAX_LIST_BYTES;
use crate::{
    blocking::blocking,
    config::{Backend, Backends},
};

/// The file in `GATEWAY_DATA_DIR`.
pub(super) const FILE_NAME: &str = "models.json";
/// Bytes of it.
const MAX_FILE_BYTES: u64 = 16 * MAX_LIST_BYTES as u64;
/// How long the news that a backend is ready waits for its list to be on the disk.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The lists of all backends. One for the whole process; reloads share it.
#[derive(Debug)]
pub(crate) struct ModelCache {
    path: PathBuf,
    entries: Mutex<BTreeMap<String, CachedModels>>,
    /// The file says what `known` does.
    is_saved: AtomicBool,
    /// Who has it may write; whether the last time failed.
    writer: Arc<tokio::sync::Mutex<bool>>,
}

/// Of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CachedModels {
    /// Where it was when it listed these.
    base_url: String,
    models: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheFile {
    backends: BTreeMap<String, CachedModels>,
}

impl ModelCache {
    /// Reads the file in this folder. One that cannot be read is as good as none.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE_NAME);
        let known = read(&path).unwrap_or_else(|error| {
            warn!(
                path = %path.display(),
                %error,
                "the lists of models from before cannot be read; the file is made anew as backends answer, and until \
                 then a backend that is down has no models"
            );
            BTreeMap::new()
        });
        Self { path, entries: Mutex::new(known), is_saved: AtomicBool::new(true), writer: Arc::default() }
    }

    /// From now on only of these backends; of one that was elsewhere, nothing is known.
    pub(super) fn retain_backends(&self, backends: &Backends) {
        let mut entries = self.entries();
        let before = std::mem::take(&mut *entries);
        for backend in &backends.all {
            let base_url = redact_url(&backend.base_url);
            let same = before.get(&backend.class).filter(|one| one.base_url == base_url);
            let entry = same.cloned().unwrap_or(CachedModels { base_url, models: Vec::new() });
            entries.insert(backend.class.clone(), entry);
        }
        if *entries != before {
            self.is_saved.store(false, Ordering::Release);
        }
    }

    /// What this backend listed last.
    pub(super) fn models_of(&self, backend: &Backend) -> Arc<[Model]> {
        let entries = self.entries();
        let here = entries.get(&backend.class).filter(|one| one.base_url == redact_url(&backend.base_url));
        let ids = here.map(|one| one.models.as_slice()).unwrap_or_default();
        ids.iter().map(|id| Model::new(id, 0, &backend.class)).collect()
    }

    /// Keeps what this backend lists now, and waits a little until it is on the disk.
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

    /// A backend that a reload took away, and whose last probe was still under way, is not noted.
    fn set_models(&self, backend: &Backend, models: &[Model]) {
        let mut entries = self.entries();
        let base_url = redact_url(&backend.base_url);
        let Some(one) = entries.get_mut(&backend.class).filter(|one| one.base_url == base_url) else {
            return;
        };
        if !one.models.iter().eq(models.iter().map(|model| &model.id)) {
            one.models = models.iter().map(|model| model.id.clone()).collect();
            self.is_saved.store(false, Ordering::Release);
        }
    }

    fn to_json(&self) -> String {
        let contents = CacheFile { backends: self.entries().clone() };
        serde_json::to_string_pretty(&contents).expect("names and addresses are text")
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
        return Err(io::Error::other(format!("it is longer than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(serde_json::from_slice::<CacheFile>(&text)?.backends)
}

/// Whole under another name first, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("they are longer than {} MiB together", MAX_FILE_BYTES >> 20)));
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension("json.new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// When writing begins to fail, and when it works again.
fn log_write_result(path: &Path, written: &io::Result<()>, failed_before: &mut bool) {
    let path = path.display();
    match written {
        Err(error) if !*failed_before => warn!(
            %path,
            %error,
            "the lists of models cannot be kept: after a restart a backend that is down has no models, and requests for \
             them go to the default backend; make GATEWAY_DATA_DIR writable"
        ),
        Ok(()) if *failed_before => info!(%path, "the lists of models are kept again"),
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

    fn opened(folder: &Path, backends: &[&Arc<Backend>]) -> ModelCache {
        let remembered = ModelCache::open(folder);
        remembered.retain_backends(&Backends {
            all: backends.iter().map(|backend| (*backend).clone()).collect(),
            ..Backends::default()
        });
        remembered
    }

    fn ids(remembered: &ModelCache, backend: &Backend) -> Vec<String> {
        let models = remembered.models_of(backend);
        assert!(models.iter().all(|model| model.owned_by == backend.class));
        models.iter().map(|model| model.id.clone()).collect()
    }

    fn models(ids: &[&str]) -> Vec<Model> {
        ids.iter().map(|id| Model::new(*id, 5, "foreign")).collect()
    }

    #[tokio::test]
    async fn a_list_outlives_the_process_and_not_the_place() {
        let folder = temporary("remembered").join("made");
        let (mlx, fast) = (at("mlx", "http://user:secret@a:1/v1?key=secret"), at("fast", "http://b:1"));
        let first = opened(&folder, &[&mlx, &fast]);
        assert_eq!(ids(&first, &mlx), [""; 0]);
        first.store_models(&mlx, &models(&["qwen", "öl/8b"])).await;
        first.store_models(&fast, &models(&["llama"])).await;
        let text = fs::read_to_string(folder.join(FILE_NAME)).unwrap();
        assert!(!text.contains("secret") && text.contains("http://a:1/v1"), "{text}");
        let second = opened(&folder, &[&mlx, &fast]);
        assert_eq!((ids(&second, &mlx), ids(&second, &fast)), (ids(&first, &mlx), vec!["llama".to_owned()]));
        assert_eq!(ids(&second, &mlx), ["qwen", "öl/8b"]);
        // One moved and one gone.
        let moved = at("mlx", "http://a:2/v1");
        let third = opened(&folder, &[&moved]);
        assert_eq!((ids(&third, &moved), ids(&third, &mlx), ids(&third, &fast)), (vec![], vec![], vec![]));
        third.store_models(&mlx, &models(&["late"])).await;
        assert_eq!(ids(&third, &moved), [""; 0], "what is found out of the old place does not count");
        third.store_models(&moved, &models(&[])).await;
        let text = fs::read_to_string(folder.join(FILE_NAME)).unwrap();
        assert!(!text.contains("llama") && !text.contains("qwen"), "{text}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else lies about");
    }

    #[tokio::test]
    async fn a_damaged_file_is_as_good_as_none_and_made_anew() {
        let folder = temporary("remembered-damaged");
        let mlx = at("mlx", "http://a:1");
        for damaged in
            ["", "{\"backends\":{\"mlx\"", "[]", "\u{0}\u{0}", "{\"backends\":{\"mlx\":{\"models\":7}}}"]
        {
            fs::write(folder.join(FILE_NAME), damaged).unwrap();
            let remembered = opened(&folder, &[&mlx]);
            assert_eq!(ids(&remembered, &mlx), [""; 0], "{damaged:?}");
            remembered.store_models(&mlx, &models(&["qwen"])).await;
            assert_eq!(ids(&opened(&folder, &[&mlx]), &mlx), ["qwen"], "{damaged:?}");
        }
        fs::write(folder.join(FILE_NAME), vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1]).unwrap();
        assert_eq!(ids(&opened(&folder, &[&mlx]), &mlx), [""; 0]);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_costs_the_file_alone_and_is_tried_again() {
        let folder = temporary("remembered-unwritable");
        let (blocked, mlx) = (folder.join("file"), at("mlx", "http://a:1"));
        fs::write(&blocked, "no folder").unwrap();
        let remembered = opened(&blocked, &[&mlx]);
        remembered.store_models(&mlx, &models(&["qwen"])).await;
        assert_eq!(ids(&remembered, &mlx), ["qwen"]);
        fs::remove_file(&blocked).unwrap();
        remembered.store_models(&mlx, &models(&["qwen"])).await;
        assert_eq!(ids(&opened(&blocked, &[&mlx]), &mlx), ["qwen"], "the same list, once there is room");
    }

    #[tokio::test]
    async fn what_has_not_changed_is_not_written() {
        let folder = temporary("remembered-still");
        let mlx = at("mlx", "http://a:1");
        let remembered = opened(&folder, &[&mlx]);
        remembered.store_models(&mlx, &models(&["qwen"])).await;
        fs::remove_file(folder.join(FILE_NAME)).unwrap();
        remembered.store_models(&mlx, &models(&["qwen"])).await;
        assert!(!folder.join(FILE_NAME).exists());
    }
}
