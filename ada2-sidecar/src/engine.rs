//! The picture engine behind us: what every engine must do, and the closed set of engines that do it.

pub mod builtin;
pub mod comfyui;
mod event_probe;
mod http;
pub mod inspect;
pub mod invokeai;
pub mod monitor;
mod previews;
mod upload;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use picture::Format;
use reqwest::Url;
use service::lifecycle::Lifecycle;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::EngineKind,
    engine::{builtin::Builtin, comfyui::ComfyUi, invokeai::InvokeAi, monitor::EngineState},
    images::{
        Job,
        models::EngineModel,
        template::{Template, TemplateError},
    },
};

/// What every engine does for us.
pub trait ImageEngine {
    /// Looks at the engine: is it the one we know, is it running, what does it offer. Also cancels what an earlier
    /// process of ours left in it, so that readiness is never told before that.
    fn status(&self) -> impl Future<Output = Result<EngineStatus, EngineError>> + Send;

    /// Makes the job's pictures. Returns only when the engine has let go of the job: after the last picture, or, once
    /// cancelled, after the engine has confirmed that the job is neither waiting nor running. A failure that is
    /// certain before that is told on the desk.
    fn run(
        &self,
        job: &Job,
        context: &JobContext,
    ) -> impl Future<Output = Result<Vec<GeneratedImage>, EngineError>> + Send;

    /// What the engine has against each of these graphs: nodes and inputs that it does not know, each named.
    fn validate(
        &self,
        templates: &[&Template],
    ) -> impl Future<Output = Result<Vec<Vec<TemplateError>>, EngineError>> + Send;
}

/// Where a running job and whoever waits for it meet.
#[derive(Debug)]
pub struct JobContext {
    /// Fires when nobody waits any more.
    pub cancel: CancellationToken,
    /// How far it is. Whoever looks sees the newest only.
    pub progress: watch::Sender<JobProgress>,
    outcome: Mutex<Option<oneshot::Sender<JobOutcome>>>,
}

/// What comes of a job.
pub type JobOutcome = Result<Vec<GeneratedImage>, EngineError>;

impl JobContext {
    /// A desk, and the end at which the outcome is waited for.
    pub fn new() -> (Self, oneshot::Receiver<JobOutcome>) {
        let (sender, receiver) = oneshot::channel();
        let progress = watch::Sender::new(JobProgress::default());
        (Self { cancel: CancellationToken::new(), progress, outcome: Mutex::new(Some(sender)) }, receiver)
    }

    /// Whether the outcome is told: then it does not matter who waits.
    pub fn is_completed(&self) -> bool {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Tells the outcome. The first counts.
    pub fn complete(&self, outcome: JobOutcome) {
        let sender = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever has left does not want to know.
        let _ = sender.map(|sender| sender.send(outcome));
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default)]
pub struct JobProgress {
    /// Of the steps of all its pictures, 0 to 1.
    pub fraction: f64,
    /// The picture that is being made, counted from 0.
    pub image_index: usize,
    /// Of that picture's own steps, 0 to 1.
    pub image_fraction: f64,
    /// The engine's own preview at that point.
    pub preview: Option<Preview>,
}

/// A preview as the engine made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The file.
    pub bytes: Bytes,
    /// Its format.
    pub format: Format,
}

/// The engines.
#[derive(Debug, Clone)]
pub enum Engine {
    /// InvokeAI behind its HTTP API and WebSocket.
    InvokeAi(Arc<InvokeAi>),
    /// ComfyUI behind its HTTP API and WebSocket.
    ComfyUi(Arc<ComfyUi>),
    /// Procedural pictures in this process.
    Builtin(Builtin),
}

impl Engine {
    /// An engine of this kind at this address; `tag` marks our jobs in it.
    pub fn new(kind: EngineKind, url: Option<&Url>, tag: &str) -> Self {
        match (kind, url) {
            (EngineKind::InvokeAi, Some(url)) => {
                Self::InvokeAi(Arc::new(InvokeAi::new(url.clone(), tag.to_owned())))
            }
            (EngineKind::ComfyUi, Some(url)) => {
                Self::ComfyUi(Arc::new(ComfyUi::new(url.clone(), tag.to_owned())))
            }
            _ => Self::Builtin(Builtin),
        }
    }

    /// Starts following the engine: its events and its state.
    pub fn start(&self, lifecycle: &Lifecycle) -> watch::Receiver<EngineState> {
        match self.clone() {
            Self::InvokeAi(engine) => {
                lifecycle.spawn_worker("engine events", async move { engine.run_event_loop().await });
            }
            Self::ComfyUi(engine) => {
                lifecycle.spawn_worker("engine events", async move { engine.run_event_loop().await });
            }
            Self::Builtin(_) => {}
        }
        monitor::start(self.clone(), lifecycle)
    }

    /// The graphs that are shipped for it, by name and in a lasting order.
    pub fn builtin_templates(&self) -> Vec<(String, &Template)> {
        let mut all: Vec<_> = match self {
            Self::InvokeAi(engine) => engine.builtin_templates().collect(),
            Self::ComfyUi(engine) => engine.builtin_templates().collect(),
            Self::Builtin(_) => Vec::new(),
        };
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }
}

impl ImageEngine for Engine {
    async fn status(&self) -> Result<EngineStatus, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.status().await,
            Self::ComfyUi(engine) => engine.status().await,
            Self::Builtin(engine) => engine.status().await,
        }
    }

    async fn run(&self, job: &Job, context: &JobContext) -> Result<Vec<GeneratedImage>, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.run(job, context).await,
            Self::ComfyUi(engine) => engine.run(job, context).await,
            Self::Builtin(engine) => engine.run(job, context).await,
        }
    }

    async fn validate(&self, templates: &[&Template]) -> Result<Vec<Vec<TemplateError>>, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.validate(templates).await,
            Self::ComfyUi(engine) => engine.validate(templates).await,
            Self::Builtin(engine) => engine.validate(templates).await,
        }
    }
}

/// One look at the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineStatus {
    /// Its version.
    pub version: String,
    /// Why this version wants attention, if it does.
    pub warning: Option<String>,
    /// Whether its queue is paused.
    pub paused: bool,
    /// Whether it is working on a job, whoever's.
    pub busy: bool,
    /// Jobs waiting or running, whoever's.
    pub queue_depth: u64,
    /// Jobs of others that wait.
    pub others_waiting: u64,
    /// Its models, of whatever kind.
    pub models: Arc<[EngineModel]>,
    /// Of how many of them it is still to be read what they are: until none is left, the first is not known either.
    pub unclassified_models: usize,
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct GeneratedImage {
    /// The file.
    pub bytes: Bytes,
    /// Its format, told from the bytes.
    pub format: Format,
    /// The seed it was made with.
    pub seed: u64,
}

/// Why the engine made no picture. Texts are the engine's own words, cleaned of paths and cut; or ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// Nothing answers there. The GPU is free of the job.
    ConnectionRefused(String),
    /// Something is there and does not answer in time, or broke off.
    Unresponsive(String),
    /// Its host's name cannot be resolved. Says nothing of the engine itself.
    HostUnresolved(String),
    /// It asks for a login, and we have none.
    LoginRequired(String),
    /// What answers is not this engine, or not as we know it.
    UnexpectedResponse(String),
    /// The job failed.
    Failed(String),
    /// The job was ended before its time, by a person at the engine or by the engine's restart. Says nothing of the engine
    /// itself.
    Interrupted(String),
    /// The card's memory did not suffice.
    OutOfMemory(String),
    /// The engine's queue is full.
    QueueFull,
    /// The job was cancelled, as we asked.
    Cancelled,
}

impl EngineError {
    /// Whether it leaves open what became of a job: the engine may be at work on it.
    fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unresponsive(_)
                | Self::HostUnresolved(_)
                | Self::LoginRequired(_)
                | Self::UnexpectedResponse(_)
        )
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionRefused(message)
            | Self::Unresponsive(message)
            | Self::HostUnresolved(message)
            | Self::LoginRequired(message)
            | Self::UnexpectedResponse(message)
            | Self::Failed(message)
            | Self::Interrupted(message)
            | Self::OutOfMemory(message) => f.write_str(message),
            Self::QueueFull => f.write_str("the engine's queue is full"),
            Self::Cancelled => f.write_str("the job was cancelled"),
        }
    }
}

/// The engine's words for an answer: the first line, without paths, cut. Tracebacks and echoed graphs stay behind.
fn sanitize_message(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given");
    let is_path = |word: &str| {
        let word = word.trim_matches(|character: char| "'\"()[]<>,:;".contains(character));
        word.matches(['/', '\\']).count() >= 2
    };
    let words: Vec<_> =
        line.split_whitespace().map(|word| if is_path(word) { "[path]" } else { word }).collect();
    let clean: String =
        words.join(" ").chars().filter(|character| !character.is_control()).take(300).collect();
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lose_paths_and_tracebacks() {
        assert_eq!(
            sanitize_message(
                "No such file: '/srv/invokeai/models/x.safetensors' (os error 2)\nTraceback (most recent"
            ),
            "No such file: [path] (os error 2)"
        );
        assert_eq!(
            sanitize_message("CUDA out of memory. Tried to allocate 2 GiB"),
            "CUDA out of memory. Tried to allocate 2 GiB"
        );
        assert_eq!(sanitize_message(" \n"), "no reason given");
        assert_eq!(sanitize_message(&"x".repeat(1000)).len(), 300);
    }
}
