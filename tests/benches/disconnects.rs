//! 500 clients that disconnect at random moments, before, during and after their job, with jobs of others between them:
//! afterwards no job of ours is left in the engine after a second, none of the others was touched, and every slot is free.
//!
//! `cargo bench -p benches --bench disconnects` (against the fake engines)
//! `cargo bench -p benches --bench disconnects -- --clients 50 --live http://127.0.0.1:9190` (against a real InvokeAI, or with
//! `--live-comfyui` a real ComfyUI)

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::sidecar::Sidecar;
use fakes::{
    comfyui::ComfyState,
    engine::{EngineJob, Fake, FakeEngine, JobState},
    invokeai::InvokeState,
};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Clients at once; each has a slot.
const AT_ONCE: usize = 12;
/// How long the engine may still have jobs of ours after the last disconnect.
const SECOND: Duration = Duration::from_secs(1);
/// A refused client waits this long.
const AGAIN: Duration = Duration::from_millis(50);
/// Clients per job of others.
const FOREIGN_JOB_EVERY: usize = 25;

#[tokio::main]
async fn main() {
    let arguments: Vec<_> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|one| one == name).map(|at| arguments[at + 1].clone());
    let clients = value("--clients").and_then(|text| text.parse().ok()).unwrap_or(500);
    let seed = value("--seed").and_then(|text| text.parse().ok()).unwrap_or(1);
    match (value("--live"), value("--live-comfyui")) {
        (Some(url), _) => run(&LiveInvoke(url), clients, seed).await,
        (_, Some(url)) => run(&LiveComfy(url), clients, seed).await,
        (None, None) => {
            run(&fake::<InvokeState>().await, clients, seed).await;
            run(&fake::<ComfyState>().await, clients, seed).await;
        }
    }
}

/// An engine whose queue can be inspected.
trait Engine {
    fn flags(&self) -> Vec<String>;
    /// How long a job takes, about.
    fn job(&self) -> Duration;
    fn foreign_job(&self);
    /// Our jobs that wait or run, by their tag.
    fn active_jobs(&self, tag: &str) -> impl Future<Output = usize>;
    /// Jobs of others: in total, and cancelled.
    fn foreign_jobs(&self) -> (usize, usize);
}

/// As recorded on a CPU: a small image, and a step that goes on after a cancel.
async fn fake<E: FakeEngine>() -> Fake<E> {
    let fake = Fake::<E>::start().await;
    fake.change(|engine| {
        engine.set_job_time(Duration::from_millis(300));
        engine.set_cancel_delay(Duration::from_millis(100));
    });
    fake
}

impl<E: FakeEngine> Engine for Fake<E> {
    fn flags(&self) -> Vec<String> {
        vec!["--engine".into(), E::NAME.into(), "--engine-url".into(), self.url()]
    }

    fn job(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn foreign_job(&self) {
        self.change(E::add_foreign_job);
    }

    async fn active_jobs(&self, tag: &str) -> usize {
        let active = |job: &&EngineJob| {
            !job.is_over() && job.owner.as_deref().is_some_and(|owner| owner.starts_with(tag))
        };
        self.jobs().iter().filter(active).count()
    }

    fn foreign_jobs(&self) -> (usize, usize) {
        let foreign: Vec<_> = self.jobs().into_iter().filter(|job| !job.is_ours()).collect();
        (foreign.len(), foreign.iter().filter(|job| job.state == JobState::Cancelled).count())
    }
}

/// A real InvokeAI; nobody else uses it.
struct LiveInvoke(String);

impl Engine for LiveInvoke {
    fn flags(&self) -> Vec<String> {
        vec!["--engine".into(), "invokeai".into(), "--engine-url".into(), self.0.clone()]
    }

    fn job(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn foreign_job(&self) {}

    async fn active_jobs(&self, tag: &str) -> usize {
        let url = format!("{}/api/v1/queue/default/counts_by_destination?destination={tag}", self.0);
        let answer = fakes::http().get(url).send().await.expect("InvokeAI answers");
        let counts: Value =
            serde_json::from_slice(&answer.bytes().await.expect("a complete body")).expect("JSON");
        let count = |name: &str| counts[name].as_u64().expect("a count");
        usize::try_from(count("pending") + count("in_progress")).expect("few")
    }

    fn foreign_jobs(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// A real ComfyUI; nobody else uses it.
struct LiveComfy(String);

impl Engine for LiveComfy {
    fn flags(&self) -> Vec<String> {
        vec!["--engine".into(), "comfyui".into(), "--engine-url".into(), self.0.clone()]
    }

    fn job(&self) -> Duration {
        Duration::from_millis(1500)
    }

    fn foreign_job(&self) {}

    async fn active_jobs(&self, tag: &str) -> usize {
        let answer = fakes::http().get(format!("{}/queue", self.0)).send().await.expect("ComfyUI answers");
        let queue: Value =
            serde_json::from_slice(&answer.bytes().await.expect("a complete body")).expect("JSON");
        let ours =
            |item: &&Value| item[3]["client_id"].as_str().is_some_and(|client| client.starts_with(tag));
        let count = |name: &str| queue[name].as_array().expect("a list").iter().filter(ours).count();
        count("queue_running") + count("queue_pending")
    }

    fn foreign_jobs(&self) -> (usize, usize) {
        (0, 0)
    }
}

async fn run(engine: &impl Engine, clients: usize, seed: u64) {
    let state = fakes::fresh_dir("disconnects");
    let flags: Vec<String> = engine
        .flags()
        .into_iter()
        .chain(["--max-inflight".into(), "12".into(), "--max-engine-queue".into(), "1000".into()])
        .collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let sidecar = Arc::new(Sidecar::start_in(state.clone(), &flags).await);
    sidecar.until_ready().await;
    let tag = tag(&state);
    let (next, random) = (AtomicUsize::new(0), AtomicU64::new(seed));
    let done = Outcomes::default();
    let start = Instant::now();
    let worker = async || {
        while next.fetch_add(1, Ordering::Relaxed) < clients {
            let nth = next.load(Ordering::Relaxed);
            if nth.is_multiple_of(FOREIGN_JOB_EVERY) {
                engine.foreign_job();
            }
            let timeout = engine.job().mul_f64(6.0 * fraction(&random));
            request_one(&sidecar, nth, timeout, &done).await;
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    let (left, took) = (Instant::now(), start.elapsed());
    while engine.active_jobs(&tag).await > 0 && left.elapsed() < 10 * SECOND {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let free = left.elapsed();
    sidecar.until_inflight(0).await;
    let (foreign, cancelled) = engine.foreign_jobs();
    let (served, refused, disconnected) = done.counts();
    let _ = writeln!(
        std::io::stdout(),
        "{clients} clients in {took:.1?}, seed {seed}: {disconnected} left, {served} were served, {refused} times 429; the engine was \
         free of ours {free:.1?} after the last; of {foreign} jobs of others {cancelled} were cancelled"
    );
    assert!(free < SECOND, "a job of ours was left");
    assert_eq!(cancelled, 0, "another's job was cancelled");
}

#[derive(Default)]
struct Outcomes {
    served: AtomicUsize,
    refused: AtomicUsize,
    disconnected: AtomicUsize,
}

impl Outcomes {
    fn counts(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.served), read(&self.refused), read(&self.disconnected))
    }
}

/// One client: every third streams.
async fn request_one(sidecar: &Sidecar, nth: usize, timeout: Duration, done: &Outcomes) {
    let request = json!({"prompt": format!("client {nth}"), "size": "64x64", "steps": 8, "stream": nth.is_multiple_of(3),
        "partial_images": 2});
    let request = fakes::http()
        .post(format!("{}/v1/images/generations", sidecar.url))
        .header("content-type", "application/json")
        .body(request.to_string());
    loop {
        let request = request.try_clone().expect("its body is in memory");
        let response = async {
            let answer = request.send().await.expect("the sidecar answers");
            (answer.status().as_u16(), answer.text().await.unwrap_or_default())
        };
        // Dropping the request closes its connection, as a killed program does.
        let outcome = match tokio::time::timeout(timeout, response).await {
            Err(_) => &done.disconnected,
            Ok((200, _)) => &done.served,
            // All slots are taken, by jobs that the engine has yet to stop: the client tries again.
            Ok((429, _)) => {
                done.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Ok((status, body)) => unreachable!("{status}: {body}"),
        };
        outcome.fetch_add(1, Ordering::Relaxed);
        return;
    }
}

/// What marks our jobs, from the state directory.
fn tag(state: &Path) -> String {
    let text = std::fs::read_to_string(state.join("instance")).expect("the sidecar has an identity");
    format!("ada2-sidecar-{}", text.lines().next().expect("a line"))
}

/// Xorshift: the same moments for the same seed.
fn fraction(state: &AtomicU64) -> f64 {
    let next = |mut number: u64| {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    let number = state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| Some(next(number)));
    let number = next(number.expect("always updated"));
    f64::from(u32::try_from(number >> 32).expect("half of it")) / f64::from(u32::MAX)
}
