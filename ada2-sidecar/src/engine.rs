//! The picture engine behind us: what every engine must do, and the closed set of engines that do it.

pub mod builtin;
pub mod catalog;
pub mod graph;
pub mod invokeai;
pub mod monitor;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use reqwest::Url;
use shared::{picture::Format, service::lifecycle::Lifecycle};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{builtin::Builtin, invokeai::InvokeAi, monitor::EngineState},
    images::Job,
    models::EngineModel,
};

/// What every engine does for us.
pub trait ImageEngine {
    /// Looks at the engine: is it the one we know, is it running, what does it offer. Also cancels what an earlier
    /// process of ours left in it, so that readiness is never told before that.
    fn survey(&self) -> impl Future<Output = Result<Survey, EngineError>> + Send;

    /// Makes the job's pictures. Returns only when the engine has let go of the job: after the last picture, or, once
    /// cancelled, after the engine has confirmed that the job is neither waiting nor running. A failure that is
    /// certain before that is told on the desk.
    fn run(&self, job: &Job, desk: &Desk) -> impl Future<Output = Result<Vec<Picture>, EngineError>> + Send;
}

/// Where a running job and whoever waits for it meet.
#[derive(Debug)]
pub struct Desk {
    /// Fires when nobody waits any more.
    pub cancel: CancellationToken,
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
}

/// What comes of a job.
pub type Outcome = Result<Vec<Picture>, EngineError>;

impl Desk {
    /// A desk, and the end at which the outcome is waited for.
    pub fn open() -> (Self, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        (Self { cancel: CancellationToken::new(), outcome: Mutex::new(Some(sender)) }, receiver)
    }

    /// Tells the outcome. The first counts.
    pub fn tell(&self, outcome: Outcome) {
        let sender = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever has left does not want to know.
        let _ = sender.map(|sender| sender.send(outcome));
    }
}

/// The engines.
#[derive(Debug, Clone)]
pub enum Engine {
    /// InvokeAI behind its HTTP API and WebSocket.
    InvokeAi(Arc<InvokeAi>),
    /// Procedural pictures in this process.
    Builtin(Builtin),
}

impl Engine {
    /// An engine of this kind at this address; `tag` marks our jobs in it.
    pub fn new(kind: Kind, url: Option<&Url>, tag: &str) -> Self {
        match (kind, url) {
            (Kind::InvokeAi, Some(url)) => {
                Self::InvokeAi(Arc::new(InvokeAi::new(url.clone(), tag.to_owned())))
            }
            _ => Self::Builtin(Builtin),
        }
    }

    /// Starts following the engine: its events and its state.
    pub fn start(&self, lifecycle: &Lifecycle) -> watch::Receiver<EngineState> {
        if let Self::InvokeAi(engine) = self {
            let engine = engine.clone();
            lifecycle.worker("engine events", async move { engine.follow().await });
        }
        monitor::start(self.clone(), lifecycle)
    }
}

impl ImageEngine for Engine {
    async fn survey(&self) -> Result<Survey, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.survey().await,
            Self::Builtin(engine) => engine.survey().await,
        }
    }

    async fn run(&self, job: &Job, desk: &Desk) -> Result<Vec<Picture>, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.run(job, desk).await,
            Self::Builtin(engine) => engine.run(job, desk).await,
        }
    }
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// InvokeAI.
    InvokeAi,
    /// In this process.
    Builtin,
}

impl Kind {
    /// Reads the setting.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "invokeai" => Some(Self::InvokeAi),
            "builtin" => Some(Self::Builtin),
            _ => None,
        }
    }

    /// The setting's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvokeAi => "invokeai",
            Self::Builtin => "builtin",
        }
    }

    /// Where the engine listens if nothing else is said.
    pub fn default_url(self) -> Option<Url> {
        match self {
            Self::InvokeAi => "http://127.0.0.1:9090".parse().ok(),
            Self::Builtin => None,
        }
    }

    /// Its systemd unit if nothing else is said.
    pub const fn default_unit(self) -> &'static str {
        match self {
            Self::InvokeAi => "invokeai.service",
            Self::Builtin => "ada2-sidecar.service",
        }
    }
}

/// One look at the engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// Its version.
    pub version: String,
    /// Why this version wants attention, if it does.
    pub caution: Option<String>,
    /// Whether its queue is paused.
    pub paused: bool,
    /// Whether it is working on a job, whoever's.
    pub busy: bool,
    /// Jobs waiting or running, whoever's.
    pub queue_depth: u64,
    /// Jobs of others that wait.
    pub others_waiting: u64,
    /// The models that we have a graph for.
    pub models: Arc<[EngineModel]>,
}

/// A finished picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The file.
    pub bytes: Bytes,
    /// Its format, told from the bytes.
    pub format: Format,
    /// The seed it was made with.
    pub seed: u32,
}

/// Why the engine made no picture. Texts are the engine's own words, cleaned of paths and cut; or ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// Nothing answers there. The GPU is free of the job.
    Refused(String),
    /// Something is there and does not answer in time, or broke off.
    NoAnswer(String),
    /// What answers is not this engine, or not as we know it.
    Strange(String),
    /// The job failed.
    Failed(String),
    /// The card's memory did not suffice.
    OutOfMemory(String),
    /// The engine's queue is full.
    QueueFull,
    /// The job was cancelled, as we asked.
    Cancelled,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(words)
            | Self::NoAnswer(words)
            | Self::Strange(words)
            | Self::Failed(words)
            | Self::OutOfMemory(words) => f.write_str(words),
            Self::QueueFull => f.write_str("the engine's queue is full"),
            Self::Cancelled => f.write_str("the job was cancelled"),
        }
    }
}
