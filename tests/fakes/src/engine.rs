//! The parts of a fake engine. The suite `tests/e2e/tests/engine_behaviour.rs` runs over every engine that
//! implements [`FakeEngine`]; a new engine's fake starts with that trait.

use std::{
    fmt::{Debug, Display},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use bytes::Bytes;
use picture::Format;
use serde_json::Value;

use crate::process::{Core, EngineRequest, Process};

/// The state of a fake engine, and what the tests must know about the engine's API.
///
/// A fake replays recordings of the real engine: it answers in recorded shapes, sends recorded events, and refuses the
/// graphs that the real one refuses. It follows a graph's links from its output: pictures are scaled, masked and pasted as
/// the graph says, and a sampler paints from prompt, seed, size and a digest of all else that reaches it.
/// It runs one job at a time, in the engine's order, and must provide:
///
/// - the engine's HTTP routes that the sidecar uses ([`FakeEngine::router`]), with [`crate::process::record`] as the
///   outermost layer, and its event socket,
/// - a worker that runs jobs ([`FakeEngine::work`]) and waits in [`Core::unless_hung`] before everything that it does,
/// - its jobs in terms that all engines share ([`FakeEngine::job`]),
/// - the faults below, each of which lasts until it is reset.
pub trait FakeEngine: Default + Debug + Send + Sync + 'static {
    /// The value of `--engine`.
    const NAME: &'static str;
    /// The version that it reports.
    const VERSION: &'static str;
    /// A newer version, which the sidecar serves with a warning.
    const UNTESTED_VERSION: &'static str;
    /// How many models it lists; the suite requests `sd-v1-5`.
    const MODELS: usize = 2;
    /// Whether it has an event socket. Without one the suite does not wait for the sidecar to follow it.
    const HAS_EVENTS: bool = true;
    /// The format of its previews.
    const PREVIEW: Format;
    /// Flags of the sidecar with which equal requests give equal bytes.
    const REPEATABLE: &'static [&'static str];
    /// The real server closes connections that were idle this long.
    const IDLE_TIMEOUT: Duration;

    /// How it behaves, in the engine's own terms.
    type Script;
    /// A job, in the engine's own terms.
    type Item: Clone;
    /// What the engine calls a job by.
    type ItemId: Display;

    /// The engine's routes.
    fn router(core: Arc<Core<Self>>) -> Router;
    /// Runs jobs, for ever.
    fn work(core: Arc<Core<Self>>) -> impl Future<Output = ()> + Send;
    /// Drops what the real server forgets in a restart.
    fn restart(&mut self);

    /// How it behaves.
    fn script(&mut self) -> &mut Self::Script;
    /// Whether it hangs ([`FakeEngine::set_hung`]).
    fn is_hung(&self) -> bool;
    /// Nothing runs or waits, not even the rest of a cancelled step.
    fn is_idle(&self) -> bool;
    /// How many event sockets are open.
    fn followers(&self) -> usize;
    /// Every job so far, oldest first.
    fn items(&self) -> &[Self::Item];
    /// A job in the terms that all engines share.
    fn job(&self, item: &Self::Item) -> EngineJob;
    /// What a request is for.
    fn kind(request: &EngineRequest) -> RequestKind;

    /// Enqueues a job that is not the sidecar's.
    fn add_foreign_job(&mut self) -> Self::ItemId;
    /// The path and the body with which a sidecar of this tag submits a job with this seed.
    fn submission(tag: &str, seed: u64) -> (&'static str, Value);
    /// Deletes every finished image.
    fn delete_images(&mut self);

    /// Connections are accepted and nothing is answered, sent or done, as by a stopped process.
    fn set_hung(&mut self, hung: bool);
    /// What its version endpoint answers.
    fn identify_as(&mut self, identity: Identity);
    /// Jobs stop after their first preview until this is false again or they are cancelled.
    fn hold(&mut self, held: bool);
    /// How long a job takes.
    fn set_job_time(&mut self, time: Duration);
    /// A cancelled job occupies the engine this much longer. Setting it to zero ends it at once.
    fn set_cancel_delay(&mut self, time: Duration);
    /// Every job fails in mid-run.
    fn fail(&mut self, failure: Option<EngineFailure>);
    /// The failure of a job for which the card's memory is too small, with the engine's message.
    fn out_of_memory() -> EngineFailure;
    /// What the bytes of an image are.
    fn serve_images(&mut self, bytes: ImageBytes);
    /// The next job is accepted and runs, but the connection is cut instead of answered. Once.
    fn lose_next_answer(&mut self);
    /// The events that report a job's end are not sent.
    fn withhold_completions(&mut self);
}

/// A job in the terms that all engines share.
#[derive(Debug, Clone)]
pub struct EngineJob {
    /// What the engine calls it by.
    pub id: String,
    /// What a request that cancels it names.
    pub cancelled_by: String,
    /// Who submitted it.
    pub owner: Option<String>,
    /// Where it is.
    pub state: JobState,
    /// Of its image.
    pub seed: u64,
    /// How much of its source's image is replaced; 1 without a source.
    pub denoise: f64,
    /// When its end was first written to a socket.
    pub finished: Option<Instant>,
}

impl EngineJob {
    /// Whether a sidecar submitted it.
    pub fn is_ours(&self) -> bool {
        self.owner.as_deref().is_some_and(|owner| owner.starts_with("ada2-sidecar-"))
    }

    /// Whether it neither waits nor runs.
    pub fn is_over(&self) -> bool {
        !matches!(self.state, JobState::Pending | JobState::Running)
    }
}

/// What a version endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The engine's own answer.
    Engine,
    /// A web page, as something else on the port would answer.
    WebPage,
    /// JSON that names no version.
    OtherJson,
    /// This version.
    Version(&'static str),
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each says it")]
pub enum JobState {
    Pending,
    Running,
    Completed,
    Failed,
    /// Before or while it ran.
    Cancelled,
    /// Forgotten in a restart.
    Lost,
}

/// What a request to an engine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Submits a job.
    Submit,
    /// Cancels a job.
    Cancel,
    /// Asks how jobs are.
    JobStatus,
    /// Uploads an image.
    Upload,
    /// Frees the card's memory.
    FreeMemory,
    /// Everything else.
    Other,
}

/// The engine's message for a failed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineFailure {
    /// The Python class.
    pub error_type: String,
    /// Its text.
    pub message: String,
}

impl EngineFailure {
    /// Any failure.
    pub fn new(error_type: &str, message: &str) -> Self {
        Self { error_type: error_type.to_owned(), message: message.to_owned() }
    }
}

/// What an engine serves as a finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageBytes {
    /// The image.
    Complete,
    /// Its first half, as if that were all.
    CutOff,
    /// Its head, which says 0x0.
    Hollow,
    /// A web page.
    Html,
}

impl ImageBytes {
    /// What is served of an image. None for a web page.
    pub(crate) fn of(self, image: &Bytes) -> Option<Bytes> {
        match self {
            Self::Complete => Some(image.clone()),
            Self::CutOff => Some(image.slice(..image.len() / 2)),
            Self::Hollow => Some(crate::large_images::hollow(image).into()),
            Self::Html => None,
        }
    }
}

/// A running fake. Everything ends with it.
#[derive(Debug)]
pub struct Fake<E> {
    process: Process<E>,
}

impl<E: FakeEngine> Fake<E> {
    /// Starts on a free loopback port, idle.
    pub async fn start() -> Self {
        Self::start_at(0).await
    }

    /// Starts on this loopback port.
    pub async fn start_at(port: u16) -> Self {
        Self { process: Process::start(E::default(), port).await }
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        self.process.url()
    }

    pub(crate) fn look<T>(&self, read: impl FnOnce(&E) -> T) -> T {
        self.process.core.look(read)
    }

    /// Changes its state or how it behaves: what waits for the change sees it at once.
    pub fn change<T>(&self, change: impl FnOnce(&mut E) -> T) -> T {
        self.process.core.change(change)
    }

    /// Changes how it behaves, in the engine's own terms.
    pub fn script(&self, change: impl FnOnce(&mut E::Script)) {
        self.change(|engine| change(engine.script()));
    }

    /// Every HTTP request so far, WebSocket handshakes included, oldest first.
    pub fn requests(&self) -> Vec<EngineRequest> {
        self.process.core.requests()
    }

    /// The requests of this kind so far.
    pub fn requests_of(&self, kind: RequestKind) -> Vec<EngineRequest> {
        self.requests().into_iter().filter(|request| E::kind(request) == kind).collect()
    }

    /// The requests so far that cancel something.
    pub fn cancels(&self) -> Vec<EngineRequest> {
        self.requests_of(RequestKind::Cancel)
    }

    /// Every job so far, oldest first, in the engine's own terms.
    pub fn items(&self) -> Vec<E::Item> {
        self.look(|engine| engine.items().to_vec())
    }

    /// Every job so far, oldest first.
    pub fn jobs(&self) -> Vec<EngineJob> {
        self.look(jobs)
    }

    /// The job that the engine calls so.
    pub fn job(&self, id: &str) -> EngineJob {
        self.jobs().into_iter().find(|job| job.id == id).expect("a job of this engine")
    }

    /// Waits until the jobs are so, in the engine's own terms (bounded).
    pub async fn until(&self, condition: impl Fn(&[E::Item]) -> bool) {
        self.until_engine("items", |engine| condition(engine.items())).await;
    }

    /// Waits until the jobs are so (bounded).
    pub async fn until_jobs(&self, condition: impl Fn(&[EngineJob]) -> bool) {
        self.until_engine("jobs", |engine| condition(&jobs(engine))).await;
    }

    /// Waits until nothing runs or waits (bounded).
    pub async fn until_idle(&self) {
        self.until_engine("the engine is idle", E::is_idle).await;
    }

    /// Waits until `count` sockets follow the events (bounded).
    pub async fn until_followed(&self, count: usize) {
        self.until_engine("the events are followed", |engine| engine.followers() == count).await;
    }

    async fn until_engine(&self, what: &str, condition: impl Fn(&E) -> bool) {
        crate::bounded(what, self.process.core.until(|engine| condition(engine).then_some(()))).await;
    }

    /// Enqueues a job of somebody else. Its state and [`Self::cancels`] show whether the sidecar touched it.
    pub fn foreign_job(&self) -> E::ItemId {
        self.change(E::add_foreign_job)
    }

    /// Submits a job as a sidecar of this tag does.
    pub async fn submit_as(&self, tag: &str) {
        let (path, body) = E::submission(tag, self.look(next_seed));
        let answer = crate::post(&format!("{}{path}", self.url()), &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Cuts every WebSocket now, without a close frame.
    pub fn drop_sockets(&self) {
        self.process.core.drop_sockets();
    }

    /// Deletes every finished image.
    pub fn delete_images(&self) {
        self.change(E::delete_images);
    }

    /// Ends at once, as a killed process does: connections break without a close frame, new ones are refused. The
    /// port stays reserved.
    pub async fn stop(&self) {
        self.process.stop().await;
    }

    /// Starts again on the same port after [`Self::stop`].
    pub fn restart(&self) {
        self.change(E::restart);
        self.process.restart();
    }
}

/// A seed of its own for each job, so that none is over at once because the engine has its image.
pub(crate) fn next_seed<E: FakeEngine>(engine: &E) -> u64 {
    1_000_000 + engine.items().len() as u64
}

fn jobs<E: FakeEngine>(engine: &E) -> Vec<EngineJob> {
    engine.items().iter().map(|item| engine.job(item)).collect()
}
