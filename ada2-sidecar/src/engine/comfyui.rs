//! ComfyUI (0.33). A picture is one prompt, so several are several prompts: a batch of latents has one seed only. Jobs are
//! followed over the server's WebSocket, and what became of them is read from its history; polling is the safety net for
//! events that never come.

mod api;
mod cancel;
mod events;
mod follow;
mod graphs;
mod history;
mod mask;
mod order;
mod prompts;
mod queue;
mod refusal;
mod run;
mod samplers;
mod version;
mod vet;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Url;
use serde_json::json;
use tokio::sync::broadcast;

use self::{
    api::Api,
    events::Event,
    follow::{Socket, client_prefix},
    version::{InterruptsById, Version},
};
use super::{
    Desk, EngineError, ImageEngine, Picture, Survey,
    graph::{Fault, Template},
    previews::Previews,
};
use crate::{
    images::Job,
    models::{Base, EngineModel},
};

/// The list of models is read anew after this: files come and go.
const MODELS_LAST: Duration = Duration::from_secs(10);

/// The engine.
#[derive(Debug)]
pub struct ComfyUi {
    api: Api,
    /// Marks our jobs: the names of our clients begin with it.
    tag: String,
    events: broadcast::Sender<Event>,
    /// By prompt.
    previews: Previews<String>,
    socket: Mutex<Socket>,
    templates: graphs::Graphs,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Prompts that a request is waiting for. Their ids are ours, so they stand here before the engine hears of them:
    /// what is of us in its queue and not in here is waited for by nobody.
    live: HashSet<String>,
    /// Those of us that nobody waits for, as last seen: each is told once.
    orphans: HashSet<String>,
    /// Of the engine that answers; none once it is gone, because another may come up.
    version: Option<Version>,
    models: Option<(Instant, Arc<[EngineModel]>)>,
}

impl ComfyUi {
    /// The engine at this address; `tag` marks our jobs in it.
    pub fn new(url: Url, tag: String) -> Self {
        Self {
            api: Api::new(url),
            events: broadcast::channel(1024).0,
            previews: Previews::default(),
            socket: Mutex::new(Socket::new(&tag)),
            tag,
            templates: graphs::all(),
            state: Mutex::default(),
        }
    }

    /// The graphs that are shipped, by name.
    pub fn shipped(&self) -> impl Iterator<Item = (String, &Template)> {
        self.templates.iter().map(|(task, template)| (task.name().to_owned(), template))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job's own graph, or the built-in one.
    fn template<'a>(&'a self, job: &'a Job) -> &'a Template {
        job.template.as_deref().unwrap_or_else(|| &self.templates[&job.task])
    }

    /// Whether, and only whether, the engine that answers now can end one running prompt.
    fn interrupts_by_id(&self) -> Option<InterruptsById> {
        self.state().version.as_ref().and_then(Version::interrupts_by_id)
    }

    /// What wants attention although the engine works.
    fn caution(&self, version: &Version) -> Option<String> {
        let words = "the engine's WebSocket cannot be followed, so finished pictures are noticed late: look what stands \
                     between us and /ws";
        version.caution().or_else(|| self.is_deaf().then(|| words.to_owned()))
    }

    async fn models(&self) -> Result<Arc<[EngineModel]>, EngineError> {
        if let Some((read, models)) = &self.state().models
            && read.elapsed() < MODELS_LAST
        {
            return Ok(models.clone());
        }
        let models: Arc<[_]> = self.api.checkpoints().await?.iter().map(|file| model(file)).collect();
        self.state().models = Some((Instant::now(), models.clone()));
        Ok(models)
    }

    async fn look(&self) -> Result<Survey, EngineError> {
        let version = self.api.version().await?;
        if version.is_too_old() {
            let text = &version.text;
            return Err(EngineError::Strange(format!(
                "ComfyUI {text} is too old: 0.3.45 is the oldest that can be used"
            )));
        }
        let live_before = {
            let mut state = self.state();
            if state.version.as_ref() != Some(&version) {
                state.models = None;
                state.version = Some(version.clone());
            }
            state.live.clone()
        };
        let queue = self.api.queue().await?;
        cancel::orphans(self, &queue, &live_before).await?;
        let prefix = client_prefix(&self.tag);
        let of_others = queue.pending.iter().filter(|ticket| !ticket.is_of(&prefix));
        Ok(Survey {
            caution: self.caution(&version),
            version: version.text,
            paused: false,
            busy: !queue.running.is_empty(),
            queue_depth: (queue.running.len() + queue.pending.len()) as u64,
            others_waiting: of_others.count() as u64,
            models: self.models().await?,
        })
    }
}

impl ImageEngine for ComfyUi {
    async fn survey(&self) -> Result<Survey, EngineError> {
        let result = self.look().await;
        if !matches!(result, Ok(_) | Err(EngineError::NoAnswer(_) | EngineError::Unresolved(_))) {
            // It may come back as another version with other models.
            let mut state = self.state();
            state.version = None;
            state.models = None;
        }
        result
    }

    async fn run(&self, job: &Job, desk: &Desk) -> Result<Vec<Picture>, EngineError> {
        run::run(self, job, desk).await
    }

    async fn vet(&self, templates: &[&Template]) -> Result<Vec<Vec<Fault>>, EngineError> {
        // Whatever else listens there knows no class of nodes either: say so once, and not of every node.
        self.api.version().await?;
        vet::vet(&self.api, templates).await
    }
}

/// A checkpoint by its file: clients call it by that name, with or without the ending.
fn model(file: &str) -> EngineModel {
    let endings = [".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth"];
    let name = endings.iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(file);
    EngineModel { handle: json!(file), ..EngineModel::plain(file, name, base(name)) }
}

/// The engine does not tell the kind of a checkpoint before it is loaded, so its name must. It decides the usual size,
/// guidance and which of the wired-in names mean it; the graphs are the same.
fn base(name: &str) -> Base {
    let name = name.to_lowercase();
    let sdxl = ["xl", "pony", "illustrious"].iter().any(|word| name.contains(word));
    if sdxl { Base::Sdxl } else { Base::Sd1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_kind_is_guessed_from_its_name() {
        for (file, name, base) in [
            ("juggernautXL_v9.safetensors", "juggernautXL_v9", Base::Sdxl),
            ("sd_xl_base_1.0.safetensors", "sd_xl_base_1.0", Base::Sdxl),
            ("ponyDiffusionV6.ckpt", "ponyDiffusionV6", Base::Sdxl),
            ("anime/Illustrious-v1.safetensors", "anime/Illustrious-v1", Base::Sdxl),
            ("v1-5-pruned-emaonly.safetensors", "v1-5-pruned-emaonly", Base::Sd1),
            ("dreamshaper_8", "dreamshaper_8", Base::Sd1),
        ] {
            let read = model(file);
            assert_eq!((read.key.as_str(), read.name.as_str(), read.base), (file, name, base));
            assert_eq!(read.handle, json!(file));
        }
    }

    #[test]
    fn a_version_is_forgotten_with_its_engine() {
        let engine = ComfyUi::new("http://127.0.0.1:9".parse().unwrap(), "tag".into());
        assert!(engine.interrupts_by_id().is_none(), "never before it was read");
        engine.state().version = Some(Version::read("0.33.0"));
        assert!(engine.interrupts_by_id().is_some());
        engine.state().version = Some(Version::read("0.3.50"));
        assert!(engine.interrupts_by_id().is_none());
    }
}
