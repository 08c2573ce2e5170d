//! 500 callers who leave at random moments, before, during and after their job, with strangers' jobs between them:
//! afterwards no job of ours is left in the engine after a second, no stranger's was touched, and every slot is free.
//!
//! `cargo bench -p benches --bench leavers` (against the fake engines)
//! `cargo bench -p benches --bench leavers -- --clients 50 --live http://127.0.0.1:9190` (against a real InvokeAI, or with
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
    comfyui::{self, FakeComfy},
    invokeai::{FakeInvoke, ItemStatus},
};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Callers at once; each has a slot.
const AT_ONCE: usize = 12;
/// For the engine to be free of everything of ours after the last caller left.
const SECOND: Duration = Duration::from_secs(1);
/// A refused caller waits this long.
const AGAIN: Duration = Duration::from_millis(50);
/// A stranger's job for so many callers.
const STRANGER_EVERY: usize = 25;

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
            run(&fake_invokeai().await, clients, seed).await;
            run(&fake_comfyui().await, clients, seed).await;
        }
    }
}

/// An engine whose queue can be looked into.
trait Engine {
    fn flags(&self) -> Vec<String>;
    /// How long a job takes, about.
    fn job(&self) -> Duration;
    fn stranger(&self);
    /// Jobs of ours that wait or run; the tag is theirs.
    fn ours(&self, tag: &str) -> impl Future<Output = usize>;
    /// Strangers' jobs: all of them, and those that were cancelled.
    fn strangers(&self) -> (usize, usize);
}

async fn fake_invokeai() -> FakeInvoke {
    let fake = FakeInvoke::start().await;
    // As recorded on a CPU: a small picture, and a step that goes on after a cancel.
    fake.script(|script| {
        script.item = Duration::from_millis(300);
        script.cancel_tail = Duration::from_millis(100);
    });
    fake
}

impl Engine for FakeInvoke {
    fn flags(&self) -> Vec<String> {
        vec!["--engine".into(), "invokeai".into(), "--engine-url".into(), self.url()]
    }

    fn job(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn stranger(&self) {
        self.foreign_job();
    }

    async fn ours(&self, tag: &str) -> usize {
        let active = |status| matches!(status, ItemStatus::Pending | ItemStatus::InProgress);
        let ours = |item: &fakes::invokeai::QueueItem| {
            item.destination.as_deref() == Some(tag) && active(item.status)
        };
        self.items().iter().filter(|item| ours(item)).count()
    }

    fn strangers(&self) -> (usize, usize) {
        let theirs: Vec<_> = self
            .items()
            .into_iter()
            .filter(|item| !item.destination.as_deref().is_some_and(|tag| tag.starts_with("ada2-sidecar-")))
            .collect();
        (theirs.len(), theirs.iter().filter(|item| item.status == ItemStatus::Canceled).count())
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

    fn stranger(&self) {}

    async fn ours(&self, tag: &str) -> usize {
        let url = format!("{}/api/v1/queue/default/counts_by_destination?destination={tag}", self.0);
        let answer = fakes::http().get(url).send().await.expect("InvokeAI answers");
        let counts: Value = serde_json::from_slice(&answer.bytes().await.expect("whole")).expect("JSON");
        let count = |name: &str| counts[name].as_u64().expect("a count");
        usize::try_from(count("pending") + count("in_progress")).expect("few")
    }

    fn strangers(&self) -> (usize, usize) {
        (0, 0)
    }
}

async fn fake_comfyui() -> FakeComfy {
    let fake = FakeComfy::start().await;
    fake.script(|script| {
        script.item = Duration::from_millis(300);
        script.cancel_tail = Duration::from_millis(100);
    });
    fake
}

impl Engine for FakeComfy {
    fn flags(&self) -> Vec<String> {
        vec!["--engine".into(), "comfyui".into(), "--engine-url".into(), self.url()]
    }

    fn job(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn stranger(&self) {
        self.foreign_job();
    }

    async fn ours(&self, tag: &str) -> usize {
        let active =
            |status| matches!(status, comfyui::PromptStatus::Pending | comfyui::PromptStatus::Running);
        let ours = |item: &comfyui::ComfyPrompt| {
            active(item.status) && item.client_id.as_deref().is_some_and(|client| client.starts_with(tag))
        };
        self.items().iter().filter(|item| ours(item)).count()
    }

    fn strangers(&self) -> (usize, usize) {
        let is_ours = |item: &comfyui::ComfyPrompt| {
            item.client_id.as_deref().is_some_and(|id| id.starts_with("ada2-sidecar-"))
        };
        let theirs: Vec<_> = self.items().into_iter().filter(|item| !is_ours(item)).collect();
        let cancelled = |item: &&comfyui::ComfyPrompt| {
            matches!(item.status, comfyui::PromptStatus::Interrupted | comfyui::PromptStatus::Deleted)
        };
        (theirs.len(), theirs.iter().filter(cancelled).count())
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

    fn stranger(&self) {}

    async fn ours(&self, tag: &str) -> usize {
        let answer = fakes::http().get(format!("{}/queue", self.0)).send().await.expect("ComfyUI answers");
        let queue: Value = serde_json::from_slice(&answer.bytes().await.expect("whole")).expect("JSON");
        let ours =
            |item: &&Value| item[3]["client_id"].as_str().is_some_and(|client| client.starts_with(tag));
        let count = |name: &str| queue[name].as_array().expect("a list").iter().filter(ours).count();
        count("queue_running") + count("queue_pending")
    }

    fn strangers(&self) -> (usize, usize) {
        (0, 0)
    }
}

async fn run(engine: &impl Engine, clients: usize, seed: u64) {
    let state = fakes::fresh_folder("leavers");
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
            if nth.is_multiple_of(STRANGER_EVERY) {
                engine.stranger();
            }
            let timeout = engine.job().mul_f64(6.0 * fraction(&random));
            request_one(&sidecar, nth, timeout, &done).await;
        }
    };
    join_all((0..AT_ONCE).map(|_| worker())).await;
    let (left, took) = (Instant::now(), start.elapsed());
    while engine.ours(&tag).await > 0 && left.elapsed() < 10 * SECOND {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let free = left.elapsed();
    sidecar.until_inflight(0).await;
    let (strangers, cancelled) = engine.strangers();
    let (served, refused, gone) = done.counts();
    let _ = writeln!(
        std::io::stdout(),
        "{clients} callers in {took:.1?}, seed {seed}: {gone} left, {served} were served, {refused} times 429; the engine was \
         free of ours {free:.1?} after the last; of {strangers} strangers' jobs {cancelled} were cancelled"
    );
    assert!(free < SECOND, "a job of ours was left");
    assert_eq!(cancelled, 0, "a stranger's job was cancelled");
}

#[derive(Default)]
struct Outcomes {
    served: AtomicUsize,
    refused: AtomicUsize,
    gone: AtomicUsize,
}

impl Outcomes {
    fn counts(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (read(&self.served), read(&self.refused), read(&self.gone))
    }
}

/// One caller: every third streams.
async fn request_one(sidecar: &Sidecar, nth: usize, timeout: Duration, done: &Outcomes) {
    let request = json!({"prompt": format!("caller {nth}"), "size": "64x64", "steps": 8, "stream": nth.is_multiple_of(3),
        "partial_images": 2});
    let request = fakes::http()
        .post(format!("{}/v1/images/generations", sidecar.url))
        .header("content-type", "application/json")
        .body(request.to_string());
    loop {
        let request = request.try_clone().expect("its body is in memory");
        let whole = async {
            let answer = request.send().await.expect("the sidecar answers");
            (answer.status().as_u16(), answer.text().await.unwrap_or_default())
        };
        // Dropping the request closes its connection, as a killed program does.
        let outcome = match tokio::time::timeout(timeout, whole).await {
            Err(_) => &done.gone,
            Ok((200, _)) => &done.served,
            // All slots are taken, by jobs that the engine has yet to let go of: the caller comes again.
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

/// What marks our jobs, from the state folder.
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
