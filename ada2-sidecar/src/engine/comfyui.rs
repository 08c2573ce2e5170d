//! ComfyUI (0.33). A picture is one prompt, so several are several prompts: a batch of latents has one seed only. Jobs are
//! followed over the server's WebSocket, and what became of them is read from its history; polling is the safety net for
//! events that never come.

mod api;
mod cancel;
mod checkpoints;
mod event_loop;
mod events;
mod graphs;
mod history;
mod mask;
mod payload;
mod prompts;
mod queue;
mod rejection;
mod run;
mod samplers;
mod validate;
mod version;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::Url;
use tokio::sync::broadcast;

use self::{
    api::ComfyUiApi,
    checkpoints::CheckpointCache,
    event_loop::{EventConnection, client_prefix},
    events::ComfyUiEvent,
    version::{InterruptsById, Version},
};
use super::{
    EngineError, EngineStatus, GeneratedImage, ImageEngine, JobContext, inspect::EngineIdentity,
    previews::PreviewStore,
};
use crate::images::{
    Job,
    models::EngineModel,
    template::{Template, TemplateError},
};

/// The engine.
#[derive(Debug)]
pub struct ComfyUi {
    api: ComfyUiApi,
    /// Marks our jobs: the names of our clients begin with it.
    tag: String,
    events: broadcast::Sender<ComfyUiEvent>,
    /// By prompt.
    previews: PreviewStore<String>,
    connection: Mutex<EventConnection>,
    templates: graphs::ComfyUiTemplates,
    state: Mutex<ComfyUiState>,
    checkpoints: CheckpointCache,
}

#[derive(Debug, Default)]
struct ComfyUiState {
    /// Prompts that a request is waiting for. Their ids are ours, so they stand here before the engine hears of them:
    /// what is of us in its queue and not in here is waited for by nobody.
    active_prompts: HashSet<String>,
    /// Those of us that nobody waits for, as last seen: each is told once.
    orphans: HashSet<String>,
    /// Of the engine that answers; none once it is gone, because another may come up.
    version: Option<Version>,
}

impl ComfyUi {
    /// The engine at this address; `tag` marks our jobs in it.
    pub fn new(url: Url, tag: String) -> Self {
        Self {
            api: ComfyUiApi::new(url),
            events: broadcast::channel(1024).0,
            previews: PreviewStore::default(),
            connection: Mutex::new(EventConnection::new(&tag)),
            tag,
            templates: graphs::all(),
            state: Mutex::default(),
            checkpoints: CheckpointCache::default(),
        }
    }

    /// The graphs that are shipped, by name.
    pub fn builtin_templates(&self) -> impl Iterator<Item = (String, &Template)> {
        self.templates.iter().map(|(task, template)| (task.name().to_owned(), template))
    }

    /// What it says it is.
    pub async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        let version = self.supported_version().await?;
        Ok(EngineIdentity { warning: version.warning(), version: version.text })
    }

    /// The address of the events of a client that orders nothing.
    pub fn events_url(&self) -> String {
        self.api.events_url(&uuid::Uuid::new_v4().to_string())
    }

    /// The models that it has.
    pub async fn list_models(&self) -> Result<Arc<[EngineModel]>, EngineError> {
        self.api.version().await?;
        loop {
            match self.checkpoints.list(&self.api).await? {
                (models, 0) => return Ok(models),
                // What one look has no time for is read in the next, and given up on at last.
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ComfyUiState> {
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
    fn warning(&self, version: &Version) -> Option<String> {
        let message = "the engine's WebSocket cannot be followed, so finished pictures are noticed late: look what stands \
                     between us and /ws";
        version.warning().or_else(|| self.is_disconnected().then(|| message.to_owned()))
    }

    async fn supported_version(&self) -> Result<Version, EngineError> {
        let version = self.api.version().await?;
        if version.is_too_old() {
            let text = &version.text;
            return Err(EngineError::UnexpectedResponse(format!(
                "ComfyUI {text} is too old: 0.3.45 is the oldest that can be used"
            )));
        }
        Ok(version)
    }

    async fn look(&self) -> Result<EngineStatus, EngineError> {
        let version = self.supported_version().await?;
        let live_before = {
            let mut state = self.state();
            if state.version.as_ref() != Some(&version) {
                self.checkpoints.invalidate();
                state.version = Some(version.clone());
            }
            state.active_prompts.clone()
        };
        let queue = self.api.queue().await?;
        cancel::cancel_orphans(self, &queue, &live_before).await?;
        let prefix = client_prefix(&self.tag);
        let of_others = queue.pending.iter().filter(|ticket| !ticket.is_from_client(&prefix));
        let (models, unread) = self.checkpoints.list(&self.api).await?;
        Ok(EngineStatus {
            warning: self.warning(&version),
            version: version.text,
            paused: false,
            busy: !queue.running.is_empty(),
            queue_depth: (queue.running.len() + queue.pending.len()) as u64,
            others_waiting: of_others.count() as u64,
            models,
            unclassified_models: unread,
        })
    }
}

impl ImageEngine for ComfyUi {
    async fn status(&self) -> Result<EngineStatus, EngineError> {
        let result = self.look().await;
        if !matches!(result, Ok(_) | Err(EngineError::Unresponsive(_) | EngineError::HostUnresolved(_))) {
            // It may come back as another version with other models.
            self.state().version = None;
            self.checkpoints.invalidate();
        }
        result
    }

    async fn run(&self, job: &Job, context: &JobContext) -> Result<Vec<GeneratedImage>, EngineError> {
        run::run(self, job, context).await
    }

    async fn validate(&self, templates: &[&Template]) -> Result<Vec<Vec<TemplateError>>, EngineError> {
        // Whatever else listens there knows no class of nodes either: say so once, and not of every node.
        self.api.version().await?;
        validate::validate(&self.api, templates).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
