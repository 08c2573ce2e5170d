//! InvokeAI (6.14.2). A job is one batch: its images differ only in the seed. Jobs are followed over the server's WebSocket;
//! polling covers missed events.

mod api;
mod batch_tracker;
mod events;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod graph_format;
mod graphs;
mod item;
mod models;
mod payload;
mod propose_rules;
mod run;
mod workflow;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::BoxFuture};
use reqwest::Url;
use tokio::sync::RwLock;
use tokio_tungstenite::tungstenite::Message;
use tracing::warn;

pub(crate) use self::graph_format::GRAPH_FORMAT;
use self::{
    api::{InvokeAiApi, NodeTypes},
    events::{Frame, InvokeAiEvent},
    models::InstalledModels,
};
use super::{
    EngineAccess, EngineError, EngineFixes, EngineIdentity, EngineLogin, EngineSpec, EngineStatus,
    ImageEngine, JobContext, JobOutcome,
    event_socket::{self, EventSocket, EventSource, Received},
    previews::PreviewStore,
};
use crate::images::{
    Job,
    models::EngineModel,
    template::{NodeInput, Template, TemplateError},
};

pub(super) const SPEC: EngineSpec = EngineSpec {
    name: "invokeai",
    default_unit: "invokeai.service",
    max_seed: u32::MAX as u64,
    schedulers: models::SCHEDULERS,
    graphs: Some(graphs::catalog),
    graph_format: Some(GRAPH_FORMAT),
    access: EngineAccess::Http {
        default_url: "http://127.0.0.1:9090",
        connect: |url, setup| Arc::new(InvokeAi::new(url, setup.tag.to_owned())),
        fixes: EngineFixes {
            loopback: "write host: 127.0.0.1 into its invokeai.yaml",
            model_location: "in its model manager",
            resume_path: Some("/api/v1/queue/default/processor/resume"),
            login: Some("write multiuser: false into its invokeai.yaml"),
        },
    },
};

/// The version that everything here was recorded from and tested with.
const TESTED: &str = "6.14";
/// The list of models is read again after this: users add and remove models in the engine's web page.
const MODELS_TTL: Duration = Duration::from_secs(10);
/// Scans, one per poll, that must find nothing before orphans are ruled out. More than one: an engine that hung may answer
/// a scan before it reads the batch whose response we gave up on.
const ORPHAN_SCANS: u8 = 2;
#[derive(Debug)]
pub(super) struct InvokeAi {
    api: InvokeAiApi,
    /// Marks our jobs (`destination`).
    tag: String,
    events: EventSocket<InvokeAiEvent>,
    /// By batch and item.
    previews: PreviewStore<(String, u64)>,
    state: Mutex<InvokeAiState>,
    /// Read-locked while a batch is enqueued, write-locked while orphans are cancelled by our tag: a job whose batch is not
    /// known yet must not be taken for one.
    enqueue_lock: RwLock<()>,
}

#[derive(Debug, Default)]
struct InvokeAiState {
    /// Batches with a waiting request.
    active_batches: HashSet<String>,
    /// Remaining scans for orphans: jobs with our tag and no request. Needed after our start, after the engine disappeared
    /// during a job (it resumes waiting items by itself), and after an enqueue whose response was lost.
    pending_orphan_scans: u8,
    /// Whether the last connection was refused: then its GPU is free of our jobs.
    is_unreachable: bool,
    models: Option<(Instant, String, InstalledModels)>,
}

impl InvokeAi {
    pub(super) fn new(url: Url, tag: String) -> Self {
        Self {
            api: InvokeAiApi::new(url),
            tag,
            events: EventSocket::default(),
            previews: PreviewStore::default(),
            state: Mutex::new(InvokeAiState {
                pending_orphan_scans: ORPHAN_SCANS,
                ..InvokeAiState::default()
            }),
            enqueue_lock: RwLock::default(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, InvokeAiState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next polls scan for orphans.
    fn request_orphan_scan(&self) {
        self.state().pending_orphan_scans = ORPHAN_SCANS;
    }

    /// Cancels orphans by our tag, as soon as no request waits.
    async fn cancel_orphans(&self) -> Result<(), EngineError> {
        let Ok(_enqueue_guard) = self.enqueue_lock.try_write() else { return Ok(()) };
        let due = {
            let state = self.state();
            state.pending_orphan_scans > 0 && state.active_batches.is_empty()
        };
        if !due {
            return Ok(());
        }
        let orphans = self.api.counts_of_destination(&self.tag).await?.active();
        if orphans > 0 {
            self.api.cancel_destination(&self.tag).await?;
            warn!(jobs = orphans, "cancelled orphaned jobs in the engine");
        }
        let mut state = self.state();
        state.pending_orphan_scans =
            if orphans > 0 { ORPHAN_SCANS } else { state.pending_orphan_scans.saturating_sub(1) };
        drop(state);
        Ok(())
    }

    async fn poll(&self) -> Result<EngineStatus, EngineError> {
        let version = self.api.version().await?;
        self.cancel_orphans().await?;
        let status = self.api.queue_status().await?;
        let ours = if status.queue.pending > 0 {
            self.api.counts_of_destination(&self.tag).await?.pending
        } else {
            0
        };
        let InstalledModels { main, loras } = self.models(&version).await?;
        Ok(EngineStatus {
            warning: self.warning(&version),
            version,
            paused: !status.processor.is_started,
            busy: status.processor.is_processing,
            queue_depth: status.queue.active(),
            others_waiting: status.queue.pending.saturating_sub(ours),
            models: main,
            loras,
            unclassified_models: 0,
        })
    }

    /// What an operator should know although the engine works.
    fn warning(&self, version: &str) -> Option<String> {
        if let Some(warning) = untested_version_warning(version) {
            return Some(warning);
        }
        let message = "the engine's WebSocket (/ws/socket.io) is not connected, so finished images are detected late: check for a \
                     proxy or firewall in between";
        self.events.needs_attention().then(|| message.to_owned())
    }

    /// The models, cached until [`MODELS_TTL`] or another version.
    async fn models(&self, version: &str) -> Result<InstalledModels, EngineError> {
        if let Some((read_at, of, models)) = &self.state().models
            && of == version
            && read_at.elapsed() < MODELS_TTL
        {
            return Ok(models.clone());
        }
        let models = self.api.models().await?;
        self.state().models = Some((Instant::now(), version.to_owned(), models.clone()));
        Ok(models)
    }
}

fn untested_version_warning(version: &str) -> Option<String> {
    let tested = version == TESTED || version.starts_with(&format!("{TESTED}."));
    (!tested).then(|| format!("InvokeAI {version} is untested here; tested is {TESTED}"))
}

impl ImageEngine for InvokeAi {
    fn status(&self) -> BoxFuture<'_, Result<EngineStatus, EngineError>> {
        async {
            let result = self.poll().await;
            let mut state = self.state();
            state.is_unreachable = matches!(result, Err(EngineError::ConnectionRefused(_)));
            if matches!(result, Err(EngineError::ConnectionRefused(_) | EngineError::UnexpectedResponse(_))) {
                // It may come back as another process with other models and users.
                state.models = None;
                self.api.forget_refusal();
            }
            drop(state);
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
            let node_types = self.api.node_types().await?;
            Ok(templates.iter().map(|template| unknown_inputs(template, &node_types)).collect())
        }
        .boxed()
    }

    fn identity(&self) -> BoxFuture<'_, Result<EngineIdentity, EngineError>> {
        async {
            let version = self.api.version().await?;
            Ok(EngineIdentity { warning: untested_version_warning(&version), version })
        }
        .boxed()
    }

    fn list_models(&self) -> BoxFuture<'_, Result<Arc<[EngineModel]>, EngineError>> {
        async { Ok(self.models(&self.api.version().await?).await?.main) }.boxed()
    }

    fn set_login(&self, login: Option<EngineLogin>) {
        self.api.set_login(login);
    }

    fn check_events(&self) -> BoxFuture<'_, Result<(), String>> {
        event_socket::probe(self.api.events_url(), "0{").boxed()
    }

    fn follow_events(self: Arc<Self>) -> Option<BoxFuture<'static, ()>> {
        Some(async move { self.events.run(&*self).await }.boxed())
    }
}

impl EventSource for InvokeAi {
    type Event = InvokeAiEvent;
    const RESYNC: InvokeAiEvent = InvokeAiEvent::Resync;
    const PING: bool = false;

    fn next_url(&self) -> String {
        self.api.events_url()
    }

    fn read(&self, frame: &Message) -> Result<Received<InvokeAiEvent>, &'static str> {
        let received = |reply, is_subscribed, event| Ok(Received { reply, is_subscribed, event });
        let Message::Text(text) = frame else { return received(None, false, None) };
        match Frame::read(text) {
            Frame::Open => received(Some(events::connect(self.api.token()).into()), false, None),
            Frame::Connected => received(Some(events::SUBSCRIBE.into()), true, None),
            Frame::Ping => received(Some(events::PONG.into()), false, None),
            Frame::Rejected => Err("refused"),
            Frame::Event(event) => received(None, true, Some(event)),
            Frame::Progress { event, preview } => {
                if let (InvokeAiEvent::Progress { batch, item, .. }, Some(preview)) = (&event, preview) {
                    self.previews.publish(&(batch.clone(), *item), || events::preview(&preview));
                }
                received(None, true, Some(event))
            }
            Frame::Other => received(None, false, None),
        }
    }
}

/// The nodes and bound inputs that the engine does not know.
fn unknown_inputs(template: &Template, node_types: &NodeTypes) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    for (id, kind, _) in template.nodes() {
        let Some(inputs) = node_types.get(kind) else {
            errors.push(TemplateError(format!(
                "the node {id:?} is of type {kind:?}, which this InvokeAI does not know"
            )));
            continue;
        };
        let bound = template.bound_inputs().filter(|input| input.node == id);
        let is_unknown = |input: &&NodeInput| {
            !inputs.contains(&input.field) && !workflow::accepts_undeclared_input(kind, &input.field)
        };
        for input in bound.filter(is_unknown) {
            errors.push(TemplateError(format!("the node {id:?} ({kind}) takes no input {:?}", input.field)));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The metadata node keeps every field that it is given, and the page reads ones that it does not declare.
    #[test]
    fn metadata_takes_undeclared_inputs_and_no_other_node_does() {
        let node_types: NodeTypes = [("flux_denoise", &["seed"][..]), ("core_metadata", &["seed"])]
            .map(|(kind, inputs)| (kind.to_owned(), inputs.iter().map(|input| (*input).to_owned()).collect()))
            .into();
        let graph = |kind: &str| json!({"id": "g", "nodes": {"n": {"id": "n", "type": kind, "seed": 1, "guidance": 4, "prompt": ""}}, "edges": []});
        let errors = |kind: &str| {
            let yaml = "output: n\nbindings: {prompt: [n.prompt], seed: [n.seed], cfg_scale: [n.guidance]}";
            let template = Template::read(GRAPH_FORMAT, &graph(kind).to_string(), yaml).unwrap();
            unknown_inputs(&template, &node_types).into_iter().map(|error| error.0).collect::<Vec<_>>()
        };
        assert_eq!(errors("core_metadata"), [""; 0]);
        assert_eq!(
            errors("flux_denoise"),
            ["prompt", "guidance"]
                .map(|input| format!("the node \"n\" (flux_denoise) takes no input {input:?}"))
        );
    }
}
