//! Minutes of random faults, ten a second: the card lost and back, errors, fields, XIDs, memory, heat, slow and hanging
//! calls, a driver that does not start. Meanwhile `/readyz` of the real service is polled every 50 ms, and each answer is
//! held against a model of the rules that knows the machine's true state (`model`). Afterwards everything is
//! well again within 40 s, nothing has panicked, and nothing is left behind.
//!
//! `cargo bench -p benches --bench storm -- [seconds] [seed] [flags of the sidecar]`: with `--row-remap-failure degraded` or
//! `--sample-interval 5s` the model has much to say.

mod fault_generator;
mod footprint;
mod history;
mod model;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Write,
    panic,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use e2e::sidecar::Sidecar;
use fakes::{gpu::FakeCard, stats::percentile};
use reqwest::Client;
use service::outbound::{ConnectionPolicy, client_builder};
use wire::health::{ReadyReport, ReadyStatus};

use self::{
    fault_generator::{Change, FaultGenerator},
    footprint::Footprint,
    history::{History, Observation},
    model::Model,
};

const SECONDS: u64 = 300;
const BETWEEN_FAULTS: Duration = Duration::from_millis(100);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// No request waits for the driver. A machine that does other things as well may take this long.
const ANSWER: Duration = Duration::from_secs(2);
/// After the storm. The longest pause between two attempts to reach the card is 30 s.
const RECOVERY: Duration = Duration::from_secs(40);
/// Idle connections and the runtime's spare threads end within 10 s.
const SETTLE: Duration = Duration::from_secs(15);
const PRINTED_VIOLATIONS: usize = 20;

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() {
    let (seconds, seed, given) = arguments();
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{seconds} s of faults, seed {seed}");
    count_panics();
    let card = FakeCard::new();
    let state = fakes::fresh_dir("storm");
    let library = card.library().display().to_string();
    let flags = ["--engine", "builtin", "--gpu", "required", "--nvml-lib", &library];
    let lenient = ["--min-free-memory", "0", "--max-swap-used", "100"];
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start_in(state.clone(), &[&flags[..], &lenient, &given].concat()).await;
    sidecar.until_ready().await;
    tokio::time::sleep(SETTLE).await;
    let before = Footprint::of(&sidecar);

    let history = RefCell::new(History::new(&card));
    let end = Instant::now() + Duration::from_secs(seconds);
    let changes = blow(&card, &state, &history, seed, end);
    let (changes, mut result) = tokio::join!(changes, watch(&sidecar, &history, end));
    print(changes, &mut result);

    let calm = Instant::now();
    let report = sidecar_is_ready(&sidecar, calm).await;
    let recovery = calm.elapsed();
    assert!(
        report.status == ReadyStatus::Ready,
        "not ready {RECOVERY:?} after the storm: {}",
        report.summary()
    );
    tokio::time::sleep(SETTLE).await;
    let after = Footprint::of(&sidecar);
    let panics = PANICS.load(Ordering::Relaxed);
    let _ =
        writeln!(out, "ready {recovery:.1?} after it; {panics} panics\nbefore {before:?}\nafter  {after:?}");
    assert_eq!(panics, 0, "something panicked");
    after.assert_like(&before);
    assert!(result.violations.is_empty(), "{} answers were against the rules", result.violations.len());
}

fn arguments() -> (u64, u64, Vec<String>) {
    let given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut numbers, mut flags) = (Vec::new(), Vec::new());
    for argument in given {
        match argument.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => flags.push(argument),
        }
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = |nth: usize, or| numbers.get(nth).copied().unwrap_or(or);
    (number(0, SECONDS), number(1, now.as_secs()), flags)
}

/// The sampler survives a panic, which is no reason to have one.
fn count_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        usual(panic);
    }));
}

/// The faults, and calm after them; returns how many changes there were.
async fn blow(card: &FakeCard, state: &Path, history: &RefCell<History>, seed: u64, end: Instant) -> usize {
    let mut generator = FaultGenerator::new(seed);
    let mut tick = tokio::time::interval(BETWEEN_FAULTS);
    let mut changes = 0;
    while Instant::now() < end {
        tick.tick().await;
        let mut history = history.borrow_mut();
        history.look_for_ack(state);
        match generator.next() {
            Some(Change::Machine(xid)) => {
                history.set(card, generator.machine(), xid);
                changes += 1;
            }
            Some(Change::Calm) => {
                history.set(card, generator.machine(), None);
                history.acknowledge(state);
                changes += 1;
            }
            Some(Change::Acknowledge) => history.acknowledge(state),
            None => {}
        }
    }
    generator.calm();
    let mut history = history.borrow_mut();
    history.set(card, generator.machine(), None);
    history.acknowledge(state);
    changes
}

/// What was seen from outside.
#[derive(Debug, Default)]
struct WatchResult {
    answers: Vec<Duration>,
    statuses: [usize; 3],
    violations: Vec<String>,
    sentences: BTreeMap<String, usize>,
    demands: BTreeMap<&'static str, usize>,
}

async fn watch(sidecar: &Sidecar, history: &RefCell<History>, end: Instant) -> WatchResult {
    let client =
        client_builder(ConnectionPolicy::Pooled).build().expect("the client has no settings that can fail");
    let (mut result, mut model, start) = (WatchResult::default(), Model::default(), Instant::now());
    let mut tick = tokio::time::interval(BETWEEN_LOOKS);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while Instant::now() < end {
        tick.tick().await;
        let observation = ask(&client, &sidecar.url).await;
        result.answers.push(observation.received - observation.sent);
        result.statuses[match observation.report.status {
            ReadyStatus::Ready => 0,
            ReadyStatus::Degraded => 1,
            ReadyStatus::NotReady | ReadyStatus::Unrecognized => 2,
        }] += 1;
        for check in observation.report.checks.iter().filter(|check| !check.message.is_empty()) {
            *result.sentences.entry(format!("{} {:?}", check.name, check.status)).or_default() += 1;
        }
        let line = observation.report.summary();
        for violation in model.check(&history.borrow(), &observation) {
            let at = start.elapsed().as_secs_f64();
            result.violations.push(format!("{at:.2} s: {violation}\n    {line}"));
        }
    }
    result.demands.clone_from(model.demands());
    result
}

async fn ask(client: &Client, url: &str) -> Observation {
    let sent = Instant::now();
    let answer = client.get(format!("{url}/readyz")).timeout(ANSWER).send().await.expect("no request waits");
    let body = answer.bytes().await.expect("a complete body");
    let received = Instant::now();
    Observation { sent, received, report: serde_json::from_slice(&body).expect("a report") }
}

async fn sidecar_is_ready(sidecar: &Sidecar, calm: Instant) -> ReadyReport {
    loop {
        let report = sidecar.readyz().await;
        if report.status == ReadyStatus::Ready || calm.elapsed() > RECOVERY {
            return report;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

fn print(changes: usize, result: &mut WatchResult) {
    let mut out = std::io::stdout();
    let WatchResult { answers, statuses: [ready, degraded, not_ready], violations, sentences, demands } =
        result;
    let _ = writeln!(
        out,
        "{changes} changes; {} answers, p50 {:.1?}, p99 {:.1?}, max {:.1?}; {ready} ready, {degraded} degraded, \
         {not_ready} not ready",
        answers.len(),
        percentile(answers, 50),
        percentile(answers, 99),
        percentile(answers, 100)
    );
    let counts: Vec<_> = sentences.iter().map(|(check, times)| format!("{check} {times}")).collect();
    let _ = writeln!(out, "messages: {}", counts.join(", "));
    let had: Vec<_> = demands.iter().map(|(condition, times)| format!("{condition} {times}")).collect();
    let _ = writeln!(out, "had to refuse: {}\n{} against the rules", had.join(", "), violations.len());
    for violation in violations.iter().take(PRINTED_VIOLATIONS) {
        let _ = writeln!(out, "  {violation}");
    }
}
