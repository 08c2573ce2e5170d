//! How many instructions the daily work costs, held against the figures in `budgets.json`: a request passed to the engine, a
//! picture through the gateway, `/readyz`, a refused request, a sample of the card. Unlike times, counts are repeatable on a
//! busy machine. Both programs run under valgrind's callgrind, on one thread, each with what it talks to beside it.
//!
//! `cargo bench -p benches --bench instructions --profile dev -- [part of a row's name]`, as `.ci/run` does; ends with 1 if
//! a row needs over 3 % more than its figure. `--record` writes the figures of this machine's compiler in its place.

mod budgets;
mod callgrind;
mod programs;

use std::{
    io::Write,
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use e2e::gateway::TOKEN;
use fakes::{
    child::Child,
    gpu::FakeCard,
    plain_http::{self, Connection},
    stats::median,
};

use self::{budgets::Budgets, callgrind::Program};

/// Of one batch to the gateway.
const REQUESTS: usize = 200;
/// Many, because the sidecar's polls of the engine cost as much as thirty requests each.
const SIDECAR_REQUESTS: usize = 1000;
const BATCHES: usize = 5;
/// How long a program is watched without requests: probes of backends and other work of its own.
const IDLE: Duration = Duration::from_secs(6);
/// Of a picture, which takes as much as ten of the others.
const PICTURES: usize = 50;
/// Of one batch: ten seconds, in which all that is read less often was read, too.
const SAMPLES: usize = 40;
const SAMPLE_BATCHES: usize = 2;
/// Read once with each sample.
const SAMPLED: &str = "nvmlDeviceGetMemoryInfo_v2";
const SAMPLING_TIME: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(program) = given.first().and_then(|name| programs::by_name(name)) {
        programs::run(program, &given[1..]);
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        say("skipped: there is no valgrind here (apt-get install valgrind)");
        return ExitCode::SUCCESS;
    }
    let record = given.iter().any(|argument| argument == "--record");
    let filter = given.iter().find(|argument| *argument != "--record").map_or("", String::as_str);
    let mut budgets = Budgets::read();
    let mut within = true;
    let rows = ROWS.iter().filter(|(name, _)| name.contains(filter));
    let rows: Vec<_> = rows.map(|(name, measure)| (name, thread::spawn(measure))).collect();
    for (name, measured) in rows {
        let count = measured.join().expect("what was measured has answered");
        if record {
            budgets.set(name, count);
            say(&format!("{name:<34} {count:>10}, recorded"));
        } else {
            let verdict = budgets.compare(name, count);
            say(&format!("{name:<34} {count:>10}, {verdict}"));
            within &= !verdict.is_over();
        }
    }
    if record {
        budgets.write();
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Measure = fn() -> u64;

/// What is counted, in instructions each.
const ROWS: [(&str, Measure); 6] = [
    ("sidecar, a request to the engine", || sidecar(SIDECAR_REQUESTS, "200", &get("/api/v1/app/version"))),
    ("sidecar, /readyz", || sidecar(SIDECAR_REQUESTS, "200", &get("/readyz"))),
    ("sidecar, a sample of the card", samples),
    ("gateway, a picture of 64 KiB", || gateway(PICTURES, "200", &generation(TOKEN))),
    ("gateway, /readyz", || gateway(REQUESTS, "200", &get("/readyz"))),
    ("gateway, refused: unknown token", || gateway(REQUESTS, "401", &generation("unknown"))),
];

/// One program under load at a time. The samples, which wait most of their time, are taken beside it.
static UNDER_LOAD: Mutex<()> = Mutex::new(());

fn sidecar(count: usize, status: &str, request: &str) -> u64 {
    let _alone = UNDER_LOAD.lock().expect("the row before has answered");
    let engine = Child::start(&[programs::ENGINE]);
    requests(&Program::start(&[programs::SIDECAR, &engine.url]), count, status, request)
}

fn gateway(count: usize, status: &str, request: &str) -> u64 {
    let _alone = UNDER_LOAD.lock().expect("the row before has answered");
    let backend = Child::start(&[programs::BACKEND]);
    requests(&Program::start(&[programs::GATEWAY, &backend.url]), count, status, request)
}

/// Instructions of one such request, on a kept connection, without what the program does by itself meanwhile.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "instructions are far below 2^52"
)]
fn requests(program: &Program, count: usize, status: &str, request: &str) -> u64 {
    plain_http::runtime().block_on(async {
        let mut connection = Connection::to(&program.child.url).await;
        // Pools and caches are cold at first, and symbols not bound yet.
        batch(&mut connection, count, status, request).await;
        program.counted();
        tokio::time::sleep(IDLE).await;
        let idle = program.counted().all as f64;
        let mut each = Vec::new();
        for _ in 0..BATCHES {
            program.counted();
            let started = Instant::now();
            batch(&mut connection, count, status, request).await;
            let elapsed = started.elapsed();
            let all = program.counted().all as f64;
            each.push((all - idle * elapsed.as_secs_f64() / IDLE.as_secs_f64()) / count as f64);
        }
        median(each.into_iter()) as u64
    })
}

async fn batch(connection: &mut Connection, count: usize, status: &str, request: &str) {
    for _ in 0..count {
        connection.send(request.as_bytes()).await;
        let response = connection.message().await.expect("a response");
        assert_eq!(response.head.split(' ').nth(1), Some(status), "{}", response.head);
    }
}

/// Instructions of one sample, without those of the driver's library.
fn samples() -> u64 {
    let card = FakeCard::new();
    let program = Program::start(&[programs::SAMPLER, &card.library().display().to_string()]);
    let mut cheapest = u64::MAX;
    for batch in 0..=SAMPLE_BATCHES {
        let (before, started) = (card.calls(SAMPLED), Instant::now());
        while card.calls(SAMPLED) < before + SAMPLES {
            assert!(started.elapsed() < SAMPLING_TIME, "the card is not read");
            thread::sleep(Duration::from_millis(50));
        }
        let own = program.counted().own / (card.calls(SAMPLED) - before) as u64;
        if batch > 0 {
            cheapest = cheapest.min(own);
        }
    }
    cheapest
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: ada2\r\n\r\n")
}

fn generation(token: &str) -> String {
    let body = r#"{"prompt":"a lighthouse at dusk","size":"1024x1024","n":1}"#;
    format!(
        "POST /v1/images/generations HTTP/1.1\r\nHost: ai2\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
