//! What an idle sidecar costs: in a process of its own, at its default sampling rate, its processor time by
//! thread, and how often it calls NVML. Under 0.5 % of a core is the goal. The fake library's work counts as the thread
//! `nvml`'s: it looks at its scenario every 10 ms while that thread waits for events, and writes a line for each call. A
//! card without events shows what is left without that waiting.
//!
//! `cargo bench -p benches --bench idle_cost -- [seconds]`

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use e2e::sidecar::Sidecar;
use fakes::{gpu::FakeCard, invokeai::FakeInvoke};

const SECONDS: u64 = 60;
/// Until the first surveys and the loader's work are over.
const SETTLE: Duration = Duration::from_secs(5);
/// What `/proc` counts processor time in: `sysconf(_SC_CLK_TCK)` on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const GOAL: f64 = 0.5;
/// The first argument of the measured process.
const SERVE: &str = "serve";

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if given.first().is_some_and(|first| first == SERVE) {
        return serve(&given[1..]).await;
    }
    let seconds = given.first().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS);
    let engine = FakeInvoke::start().await;
    let cards = [FakeCard::new(), FakeCard::new(), FakeCard::new()];
    cards[2].set(|machine| machine.gpus[0].event_types = 0);
    let processes = [
        MeasuredProcess::start("engine builtin", &cards[0], &["--engine", "builtin"]),
        MeasuredProcess::start(
            "engine invokeai",
            &cards[1],
            &["--engine", "invokeai", "--engine-url", &engine.url()],
        ),
        MeasuredProcess::start("engine builtin, card without events", &cards[2], &["--engine", "builtin"]),
    ];
    tokio::time::sleep(SETTLE).await;
    let before: Vec<_> = processes.iter().zip(&cards).map(|(one, card)| one.snapshot(card)).collect();
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let time = start.elapsed().as_secs_f64();
    for ((one, card), before) in processes.iter().zip(&cards).zip(before) {
        print(one.name, &before, &one.snapshot(card), time);
    }
}

/// The measured process: prints its address, and ends with its parent.
async fn serve(flags: &[String]) {
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start_in(fakes::fresh_dir("measured"), &flags).await;
    sidecar.until_ready().await;
    let _ = writeln!(std::io::stdout(), "{}", sidecar.url);
    std::future::pending::<()>().await;
}

struct MeasuredProcess {
    name: &'static str,
    process: Child,
}

impl MeasuredProcess {
    /// Returns when it is ready.
    fn start(name: &'static str, card: &FakeCard, flags: &[&str]) -> Self {
        let library = card.library();
        let mut process = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([SERVE, "--gpu", "required", "--nvml-lib"])
            .arg(library)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let mut ready = String::new();
        let output = process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut ready).expect("it says where it listens");
        assert!(ready.starts_with("http://"), "{name}: {ready:?}");
        Self { name, process }
    }

    fn snapshot(&self, card: &FakeCard) -> Snapshot {
        let dir = format!("/proc/{}", self.process.id());
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("{dir}/task")).expect("procfs").flatten() {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let nanoseconds: f64 =
                read("schedstat").split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default();
            *threads.entry(read("comm").trim().to_owned()).or_default() += nanoseconds / 1e9;
        }
        let stat = fs::read_to_string(format!("{dir}/stat")).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
        // utime and stime are the 14th and 15th of all, and the name is the second.
        let ticks: f64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        Snapshot { seconds: ticks / TICKS_PER_SECOND, threads, calls: card.all_calls() }
    }
}

impl Drop for MeasuredProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Processor seconds and calls so far.
struct Snapshot {
    seconds: f64,
    threads: BTreeMap<String, f64>,
    calls: usize,
}

fn print(name: &str, before: &Snapshot, after: &Snapshot, time: f64) {
    let percent = |seconds: f64| seconds / time * 100.0;
    let all = percent(after.seconds - before.seconds);
    let threads: Vec<_> = after
        .threads
        .iter()
        .map(|(thread, seconds)| {
            let spent = seconds - before.threads.get(thread).copied().unwrap_or_default();
            format!("{thread} {:.3} %", percent(spent))
        })
        .collect();
    #[expect(clippy::cast_precision_loss, reason = "calls are few")]
    let calls = (after.calls - before.calls) as f64 / time;
    let verdict = if all < GOAL { "met" } else { "missed" };
    let _ = writeln!(
        std::io::stdout(),
        "{name}: {all:.2} % of a core over {time:.0} s idle (goal {GOAL} %: {verdict}), {calls:.1} NVML calls/s\n  by thread: {}",
        threads.join(", ")
    );
}
