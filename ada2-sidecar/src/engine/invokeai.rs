//! InvokeAI (6.14.2). A job is one batch: its pictures differ only in the seed. It is followed over the server's
//! WebSocket; polling is the safety net for events that never come.

mod api;
mod batch_tracker;
mod events;
mod graphs;
mod item;
mod models;
mod payload;
mod run;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use tokio::sync::{RwLock, broadcast};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};
use tracing::{debug, warn};

use self::{
    api::InvokeAiApi,
    events::{Frame, InvokeAiEvent},
};
use super::{
    EngineError, EngineStatus, GeneratedImage, ImageEngine, JobContext, inspect::EngineIdentity,
    previews::PreviewStore,
};
use crate::images::{
    Job,
    models::{BaseModel, EngineModel},
    template::{NodeInput, Template, TemplateError, workflow},
};

/// The version that everything here was recorded from and tested with.
const TESTED: &str = "6.14";
/// The list of models is read anew after this: they come and go in the engine's own web page.
const MODELS_TTL: Duration = Duration::from_secs(10);
/// Looks, one a survey, that must find nothing before leftovers are ruled out. More than one: an engine that hung may
/// answer a look before it reads the order whose answer we gave up on.
const ORPHAN_SCANS: u8 = 2;
/// Between attempts to connect to the events.
const RECONNECT: Duration = Duration::from_millis(500);
/// Without events for this long although the engine answers: a warning.
const DISCONNECT_WARNING_DELAY: Duration = Duration::from_secs(5);
/// The server pings every 25 s and gives up after 20 more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// A frame holds a preview picture; none is near this.
const MAX_FRAME: usize = 16 << 20;

/// The engine.
#[derive(Debug)]
pub struct InvokeAi {
    api: InvokeAiApi,
    /// Marks our jobs (`destination`).
    tag: String,
    events: broadcast::Sender<InvokeAiEvent>,
    /// By batch and item.
    previews: PreviewStore<(String, u64)>,
    templates: graphs::InvokeAiTemplates,
    state: Mutex<InvokeAiState>,
    /// Read while a job is being handed over, written while leftovers are cancelled by our tag: a job whose batch is
    /// not known yet must not be taken for one.
    enqueue_lock: RwLock<()>,
}

#[derive(Debug, Default)]
struct InvokeAiState {
    /// Batches that a request is waiting for.
    active_batches: HashSet<String>,
    /// How often to look yet for jobs with our tag that nobody waits for: after our own start, after the engine went
    /// away in mid-job (it runs waiting items again by itself), after an enqueue whose answer was lost.
    pending_orphan_scans: u8,
    /// Whether nobody answered at the engine's address last time: then its GPU is free of us.
    is_unreachable: bool,
    models: Option<(Instant, String, Arc<[EngineModel]>)>,
    /// Since when the events do not come; none while they do.
    disconnected_since: Option<Instant>,
}

impl InvokeAi {
    /// The engine at this address; `tag` marks our jobs in it.
    pub fn new(url: Url, tag: String) -> Self {
        Self {
            api: InvokeAiApi::new(url),
            tag,
            events: broadcast::channel(1024).0,
            previews: PreviewStore::default(),
            templates: graphs::all(),
            state: Mutex::new(InvokeAiState {
                pending_orphan_scans: ORPHAN_SCANS,
                disconnected_since: Some(Instant::now()),
                ..InvokeAiState::default()
            }),
            enqueue_lock: RwLock::default(),
        }
    }

    /// The graphs that are shipped, by name.
    pub fn builtin_templates(&self) -> impl Iterator<Item = (String, &Template)> {
        self.templates.iter().map(|((base, task), template)| {
            (format!("{} for {}", task.name(), base.family().label), template)
        })
    }

    /// What it says it is.
    pub async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        let version = self.api.version().await?;
        Ok(EngineIdentity { warning: untested_version_warning(&version), version })
    }

    /// The address of its events.
    pub fn events_url(&self) -> String {
        self.api.events_url()
    }

    /// The models that it has.
    pub async fn list_models(&self) -> Result<Arc<[EngineModel]>, EngineError> {
        self.models(&self.api.version().await?).await
    }

    /// Follows the engine's events for as long as the service lasts.
    pub async fn run_event_loop(&self) {
        loop {
            let reason = self.run_connection().await;
            self.state().disconnected_since.get_or_insert_with(Instant::now);
            debug!(reason, "the engine's events are not connected; trying again");
            // Whoever waits for an event must look for himself now, and once more when we are back.
            let _ = self.events.send(InvokeAiEvent::Resync);
            tokio::time::sleep(RECONNECT).await;
        }
    }

    async fn run_connection(&self) -> &'static str {
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
        let url = self.api.events_url();
        let connect = tokio_tungstenite::connect_async_with_config(url, Some(config), true);
        let Ok(Ok((mut socket, _))) = tokio::time::timeout(Duration::from_secs(5), connect).await else {
            return "no connection";
        };
        loop {
            let text = match tokio::time::timeout(IDLE_TIMEOUT, socket.next()).await {
                Err(_) => return "silence",
                Ok(Some(Ok(Message::Text(text)))) => text,
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) => return "closed",
                Ok(Some(Ok(_))) => continue,
            };
            let (answer, event) = match Frame::read(&text) {
                Frame::Open => (Some(events::CONNECT), None),
                // Whatever happened before the subscription is not told again.
                Frame::Connected => (Some(events::SUBSCRIBE), Some(InvokeAiEvent::Resync)),
                Frame::Ping => (Some(events::PONG), None),
                Frame::Rejected => return "refused",
                Frame::Event(event) => (None, Some(event)),
                Frame::Progress { event, preview } => {
                    if let (InvokeAiEvent::Progress { batch, item, .. }, Some(preview)) = (&event, preview) {
                        self.previews.publish(&(batch.clone(), *item), || events::preview(&preview));
                    }
                    (None, Some(event))
                }
                Frame::Other => (None, None),
            };
            if let Some(answer) = answer
                && socket.send(Message::text(answer)).await.is_err()
            {
                return "closed";
            }
            if let Some(event) = event {
                self.state().disconnected_since = None;
                let _ = self.events.send(event);
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, InvokeAiState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the next surveys look for jobs of ours that nobody waits for.
    fn request_orphan_scan(&self) {
        self.state().pending_orphan_scans = ORPHAN_SCANS;
    }

    /// The job's own graph, or the built-in one for its kind of model.
    fn template<'a>(&'a self, job: &'a Job) -> &'a Template {
        let base = job.model.as_ref().and_then(EngineModel::graphs).unwrap_or(BaseModel::Sdxl);
        job.template.as_deref().unwrap_or_else(|| &self.templates[&(base, job.task)])
    }

    /// Cancels by our tag what nobody waits for, once no request waits.
    async fn cancel_orphans(&self) -> Result<(), EngineError> {
        let Ok(_enqueue_guard) = self.enqueue_lock.try_write() else { return Ok(()) };
        let due = {
            let state = self.state();
            state.pending_orphan_scans > 0 && state.active_batches.is_empty()
        };
        if !due {
            return Ok(());
        }
        let left = self.api.counts_of_destination(&self.tag).await?.active();
        if left > 0 {
            self.api.cancel_destination(&self.tag).await?;
            warn!(jobs = left, "cancelled jobs of ours in the engine that nobody waits for");
        }
        let mut state = self.state();
        state.pending_orphan_scans =
            if left > 0 { ORPHAN_SCANS } else { state.pending_orphan_scans.saturating_sub(1) };
        drop(state);
        Ok(())
    }

    /// What wants attention although the engine works.
    fn warning(&self, version: &str) -> Option<String> {
        if let Some(warning) = untested_version_warning(version) {
            return Some(warning);
        }
        let is_disconnected =
            self.state().disconnected_since.is_some_and(|since| since.elapsed() > DISCONNECT_WARNING_DELAY);
        let message = "the engine's WebSocket cannot be followed, so finished pictures are noticed late: look what stands \
                     between us and /ws/socket.io";
        is_disconnected.then(|| message.to_owned())
    }

    /// The main models, whether or not we have a graph for them; read anew after a while, and at once after a change of version.
    async fn models(&self, version: &str) -> Result<Arc<[EngineModel]>, EngineError> {
        if let Some((read, of, models)) = &self.state().models
            && of == version
            && read.elapsed() < MODELS_TTL
        {
            return Ok(models.clone());
        }
        let models: Arc<[_]> = self.api.main_models().await?.iter().filter_map(models::model).collect();
        self.state().models = Some((Instant::now(), version.to_owned(), models.clone()));
        Ok(models)
    }
}

fn untested_version_warning(version: &str) -> Option<String> {
    let tested = version == TESTED || version.starts_with(&format!("{TESTED}."));
    (!tested).then(|| format!("InvokeAI {version} is untested here; tested is {TESTED}"))
}

impl ImageEngine for InvokeAi {
    async fn status(&self) -> Result<EngineStatus, EngineError> {
        let look = async {
            let version = self.api.version().await?;
            self.cancel_orphans().await?;
            let status = self.api.queue_status().await?;
            let ours = if status.queue.pending > 0 {
                self.api.counts_of_destination(&self.tag).await?.pending
            } else {
                0
            };
            let models = self.models(&version).await?;
            Ok(EngineStatus {
                warning: self.warning(&version),
                version,
                paused: !status.processor.is_started,
                busy: status.processor.is_processing,
                queue_depth: status.queue.active(),
                others_waiting: status.queue.pending.saturating_sub(ours),
                models,
                unclassified_models: 0,
            })
        };
        let result = look.await;
        let mut state = self.state();
        state.is_unreachable = matches!(result, Err(EngineError::ConnectionRefused(_)));
        if matches!(result, Err(EngineError::ConnectionRefused(_) | EngineError::UnexpectedResponse(_))) {
            // It may come back as another process with other models.
            state.models = None;
        }
        drop(state);
        result
    }

    async fn run(&self, job: &Job, context: &JobContext) -> Result<Vec<GeneratedImage>, EngineError> {
        run::run(self, job, context).await
    }

    async fn validate(&self, templates: &[&Template]) -> Result<Vec<Vec<TemplateError>>, EngineError> {
        let known = self.api.node_types().await?;
        let faults = |template: &&Template| {
            let mut faults = Vec::new();
            for (id, kind, _) in template.nodes() {
                let Some(inputs) = known.get(kind) else {
                    faults.push(TemplateError(format!(
                        "the node {id:?} is of type {kind:?}, which this InvokeAI does not know"
                    )));
                    continue;
                };
                let bound = template.bound_inputs().filter(|place| place.node == id);
                let is_unknown = |place: &&NodeInput| {
                    !inputs.contains(&place.field) && !workflow::accepts_undeclared_input(kind, &place.field)
                };
                for place in bound.filter(is_unknown) {
                    faults.push(TemplateError(format!(
                        "the node {id:?} ({kind}) takes no input {:?}",
                        place.field
                    )));
                }
            }
            faults
        };
        Ok(templates.iter().map(faults).collect())
    }
}
