//! The engines: what each must do (`ImageEngine`), and the table of them (`registry`).

mod builtin;
pub(crate) mod comfyui;
mod error;
mod event_socket;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod http;
pub(crate) mod invokeai;
mod job_context;
mod login;
pub mod monitor;
mod previews;
mod registry;
mod upload;

use std::{fmt, ops::Deref, sync::Arc};

use futures_util::future::BoxFuture;
use service::{lifecycle::Lifecycle, slots::Slots};
use tokio::sync::watch;

use self::{builtin::Builtin, error::sanitize_message, monitor::EngineState};
pub use self::{
    error::EngineError,
    job_context::{GeneratedImage, JobContext, JobOutcome, JobProgress, Preview},
    login::EngineLogin,
    registry::{EngineAccess, EngineFixes, EngineKind, EngineSetup, EngineSpec},
};
use crate::images::{
    Job,
    graph_set::GraphCatalog,
    models::{EngineLora, EngineModel},
    template::{Template, TemplateError},
};

/// What every engine does for us.
pub trait ImageEngine: fmt::Debug + Send + Sync {
    /// Polls the engine: identity, queue, models. Also cancels the jobs that an earlier process of ours left in it, so
    /// that it is never ready before that.
    fn status(&self) -> BoxFuture<'_, Result<EngineStatus, EngineError>>;

    /// Generates the job's images. Returns only when the engine is free of the job: after the last image, or after the
    /// engine has confirmed that a cancelled job neither waits nor runs. An outcome that is certain before that is sent
    /// through the context.
    fn run<'a>(&'a self, job: &'a Job, context: &'a JobContext) -> BoxFuture<'a, JobOutcome>;

    /// For each graph, the nodes and inputs that the engine does not know. Runs nothing.
    fn validate<'a>(
        &'a self,
        templates: &'a [&'a Template],
    ) -> BoxFuture<'a, Result<Vec<Vec<TemplateError>>, EngineError>>;

    /// Its version; an error if another program answers, or a version that is too old. Touches no job.
    fn identity(&self) -> BoxFuture<'_, Result<EngineIdentity, EngineError>>;

    /// All its models. Touches no job.
    fn list_models(&self) -> BoxFuture<'_, Result<Arc<[EngineModel]>, EngineError>>;

    /// Whether its events can be followed: connects to its WebSocket and waits for the first frame.
    fn check_events(&self) -> BoxFuture<'_, Result<(), String>>;

    /// Follows its events for as long as the service lasts; none for an engine without.
    fn follow_events(self: Arc<Self>) -> Option<BoxFuture<'static, ()>>;

    /// Logs in with this from now on, if the engine asks for it. An engine without users has no login.
    fn set_login(&self, _login: Option<EngineLogin>) {}

    /// Whether it runs graphs at all.
    fn runs_graphs(&self) -> bool {
        true
    }
}

/// A handle of the configured engine.
#[derive(Debug, Clone)]
pub struct Engine(Arc<dyn ImageEngine>);

impl Engine {
    /// The engine of this kind.
    pub fn new(kind: EngineKind, setup: &EngineSetup) -> Self {
        Self(match &kind.spec().access {
            EngineAccess::InProcess(make) => make(),
            EngineAccess::Http { default_url, connect, .. } => {
                let url = setup.url.cloned();
                let url = url.unwrap_or_else(|| default_url.parse().expect("checked by a test"));
                connect(url, setup)
            }
        })
    }

    /// The builtin engine.
    pub fn builtin() -> Self {
        Self(Arc::new(Builtin))
    }

    /// Starts following the engine: its events and its status. `slots` are those of our jobs.
    pub fn start(&self, slots: Arc<Slots>, lifecycle: &Lifecycle) -> watch::Receiver<EngineState> {
        if let Some(events) = self.0.clone().follow_events() {
            lifecycle.spawn_worker("engine events", events);
        }
        monitor::start(self.clone(), slots, lifecycle)
    }
}

impl Deref for Engine {
    type Target = dyn ImageEngine;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// One poll of the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineStatus {
    /// Its version.
    pub version: String,
    /// What an operator should know although the engine works.
    pub warning: Option<String>,
    /// Whether its queue is paused.
    pub paused: bool,
    /// Whether it is working on a job, of any client.
    pub busy: bool,
    /// Jobs waiting or running, of any client.
    pub queue_depth: u64,
    /// Waiting jobs of other clients.
    pub others_waiting: u64,
    /// All its models.
    pub models: Arc<[EngineModel]>,
    /// All its LoRAs.
    pub loras: Arc<[EngineLora]>,
    /// How many of them are still to be classified. Until none is left, the first suitable model is not known.
    pub unclassified_models: usize,
}

/// Embedded graphs, read once.
fn read_graphs(format: crate::images::template::GraphFormat, files: &[(&str, &str)]) -> GraphCatalog {
    GraphCatalog::read(format, files).unwrap_or_else(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        unreachable!("a test reads the built-in graphs: {}", errors.join("; "))
    })
}

/// Which engine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Its version.
    pub version: String,
    /// What an operator should know about this version.
    pub warning: Option<String>,
}
