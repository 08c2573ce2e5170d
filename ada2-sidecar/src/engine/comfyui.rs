//! ComfyUI (0.33). Each image is a prompt of its own, because a batch of latents has only one seed. Jobs are followed over
//! the server's WebSocket, and their results are read from its history; polling covers missed events.

mod api;
mod cancel;
mod checkpoint_file;
mod checkpoints;
mod events;
mod family_files;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod gguf;
mod graph_format;
mod graphs;
mod history;
mod model_dir;
mod models;
mod node_inputs;
mod payload;
mod prompts;
mod propose_rules;
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

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use reqwest::Url;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

pub(crate) use self::graph_format::GRAPH_FORMAT;
use self::{
    api::ComfyUiApi,
    events::ComfyUiEvent,
    model_dir::ModelDir,
    models::{InstalledModels, ModelCache},
    version::{InterruptsById, Version},
};
use super::{
    EngineAccess, EngineError, EngineFixes, EngineIdentity, EngineSetup, EngineSpec, EngineStatus,
    ImageEngine, JobContext, JobOutcome,
    event_socket::{self, EventSocket, EventSource, Received},
    previews::PreviewStore,
};
use crate::images::{
    Job,
    models::EngineModel,
    template::{Template, TemplateError},
};

pub(super) const SPEC: EngineSpec = EngineSpec {
    name: "comfyui",
    default_unit: "comfyui.service",
    max_seed: u64::MAX,
    schedulers: &samplers::NAMES,
    graphs: Some(graphs::catalog),
    graph_format: Some(GRAPH_FORMAT),
    access: EngineAccess::Http {
        default_url: "http://127.0.0.1:8188",
        connect: |url, setup| Arc::new(ComfyUi::new(url, setup)),
        fixes: EngineFixes {
            loopback: "start it with --listen 127.0.0.1",
            model_location: "in its models/checkpoints, or the files of a family in models/diffusion_models, \
                             models/text_encoders and models/vae",
            resume_path: None,
            login: None,
        },
    },
};

#[derive(Debug)]
pub(super) struct ComfyUi {
    api: ComfyUiApi,
    /// Marks our jobs: our client ids begin with it.
    tag: String,
    events: EventSocket<ComfyUiEvent>,
    /// By prompt.
    previews: PreviewStore<String>,
    state: Mutex<ComfyUiState>,
    models: ModelCache,
}

#[derive(Debug, Default)]
struct ComfyUiState {
    /// Of the current connection, or of the next one: the server sends events to the client that submitted the prompt. Each
    /// connection gets a new id, because a new connection with an id that the server still holds stays silent forever once
    /// the old one ends.
    client_id: String,
    /// Prompts with a waiting request, registered before they are submitted, because we choose their ids: any other prompt
    /// of ours in the engine's queue is an orphan.
    active_prompts: HashSet<String>,
    /// The orphans of the last poll: each is logged once.
    orphans: HashSet<String>,
    /// Forgotten when the engine is gone, because another version may start.
    version: Option<Version>,
    /// Whether this version has no route that cancels one job; not known before the first cancel.
    lacks_job_cancel: bool,
}

impl ComfyUi {
    fn new(url: Url, setup: &EngineSetup) -> Self {
        let engine = Self {
            api: ComfyUiApi::new(url),
            events: EventSocket::default(),
            previews: PreviewStore::default(),
            tag: setup.tag.to_owned(),
            state: Mutex::default(),
            models: ModelCache::new(setup.model_dir.map(|dir| ModelDir::new(dir.to_owned()))),
        };
        engine.renew_client_id();
        engine
    }

    /// The beginning of all our client ids.
    fn client_prefix(&self) -> String {
        format!("{}.", self.tag)
    }

    fn renew_client_id(&self) -> String {
        let id = format!("{}{}", self.client_prefix(), Uuid::new_v4());
        self.state().client_id.clone_from(&id);
        id
    }

    fn client_id(&self) -> String {
        self.state().client_id.clone()
    }

    /// Whether the events of prompts arrive that this client submitted.
    fn receives_events_of(&self, client_id: &str) -> bool {
        self.events.is_connected() && self.state().client_id == client_id
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ComfyUiState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proof that the current engine can interrupt a single prompt.
    fn interrupts_by_id(&self) -> Option<InterruptsById> {
        self.state().version.as_ref().and_then(Version::interrupts_by_id)
    }

    /// Whether the current engine has, or may have, a route that cancels one job.
    fn may_cancel_jobs(&self) -> bool {
        !self.state().lacks_job_cancel
    }

    /// What an operator should know although the engine works.
    fn warning(&self, version: &Version) -> Option<String> {
        let message = "the engine's WebSocket (/ws) is not connected, so finished images are detected late: check for a proxy or \
                     firewall in between";
        version.warning().or_else(|| self.events.needs_attention().then(|| message.to_owned()))
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

    async fn poll(&self) -> Result<EngineStatus, EngineError> {
        let version = self.supported_version().await?;
        let active_before = {
            let mut state = self.state();
            if state.version.as_ref() != Some(&version) {
                self.models.invalidate();
                state.version = Some(version.clone());
                state.lacks_job_cancel = false;
            }
            state.active_prompts.clone()
        };
        let queue = self.api.queue().await?;
        cancel::cancel_orphans(self, &queue, &active_before).await?;
        let prefix = self.client_prefix();
        let others = queue.pending.iter().filter(|prompt| !prompt.is_from_client(&prefix));
        let InstalledModels { models, loras, unclassified } = self.models.list(&self.api).await?;
        Ok(EngineStatus {
            warning: self.warning(&version),
            version: version.text,
            paused: false,
            busy: !queue.running.is_empty(),
            queue_depth: (queue.running.len() + queue.pending.len()) as u64,
            others_waiting: others.count() as u64,
            models,
            loras,
            unclassified_models: unclassified,
        })
    }
}

impl ImageEngine for ComfyUi {
    fn status(&self) -> BoxFuture<'_, Result<EngineStatus, EngineError>> {
        async {
            let result = self.poll().await;
            if !matches!(result, Ok(_) | Err(EngineError::Unresponsive(_) | EngineError::HostUnresolved(_))) {
                // It may come back as another version with other models.
                self.state().version = None;
                self.models.invalidate();
            }
            result
        }
        .boxed()
    }

    fn run<'a>(&'a self, job: &'a Job, context: &'a JobContext) -> BoxFuture<'a, JobOutcome> {
        run::run(self, job, context).boxed()
    }

    fn validate<'a>(
        &'a self,
        templates: &'a [&'a Template],
    ) -> BoxFuture<'a, Result<Vec<Vec<TemplateError>>, EngineError>> {
        async {
            // Another program knows no class of nodes either: one error, not one for each node.
            self.api.version().await?;
            validate::validate(&self.api, templates).await
        }
        .boxed()
    }

    fn identity(&self) -> BoxFuture<'_, Result<EngineIdentity, EngineError>> {
        async {
            let version = self.supported_version().await?;
            Ok(EngineIdentity { warning: version.warning(), version: version.text })
        }
        .boxed()
    }

    fn list_models(&self) -> BoxFuture<'_, Result<Arc<[EngineModel]>, EngineError>> {
        async {
            self.api.version().await?;
            loop {
                match self.models.list(&self.api).await? {
                    InstalledModels { models, unclassified: 0, .. } => return Ok(models),
                    // The next round reads what this one had no time for, until it gives up.
                    _ => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
        .boxed()
    }

    fn check_events(&self) -> BoxFuture<'_, Result<(), String>> {
        event_socket::probe(self.api.events_url(&Uuid::new_v4().to_string()), "{\"type\"").boxed()
    }

    fn follow_events(self: Arc<Self>) -> Option<BoxFuture<'static, ()>> {
        Some(async move { self.events.run(&*self).await }.boxed())
    }
}

impl EventSource for ComfyUi {
    type Event = ComfyUiEvent;
    const RESYNC: ComfyUiEvent = ComfyUiEvent::Resync;
    const PING: bool = true;

    fn next_url(&self) -> String {
        self.api.events_url(&self.renew_client_id())
    }

    fn greeting(&self) -> Option<String> {
        Some(events::feature_flags_message())
    }

    fn read(&self, frame: &Message) -> Result<Received<ComfyUiEvent>, &'static str> {
        let event = match frame {
            Message::Text(text) => events::read_text(text),
            Message::Binary(frame) => {
                if let Some((prompt, preview)) = events::read_binary(frame) {
                    // A copy: a slice of the frame would keep all of it in memory.
                    self.previews.publish(&prompt, || Some(Bytes::copy_from_slice(preview)));
                }
                None
            }
            _ => None,
        };
        // Prompts of others are ignored: they may have any name.
        let event = event.filter(|event| match event {
            ComfyUiEvent::Progress { prompt, .. } | ComfyUiEvent::Ended { prompt } => {
                self.state().active_prompts.contains(prompt)
            }
            ComfyUiEvent::Resync => true,
        });
        Ok(Received { reply: None, is_subscribed: true, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupting_depends_on_the_current_version() {
        let engine = ComfyUi::new("http://127.0.0.1:9".parse().unwrap(), &EngineSetup::default());
        assert!(engine.interrupts_by_id().is_none(), "never before it was read");
        engine.state().version = Some(Version::read("0.33.0"));
        assert!(engine.interrupts_by_id().is_some());
        engine.state().version = Some(Version::read("0.3.50"));
        assert!(engine.interrupts_by_id().is_none());
    }
}
