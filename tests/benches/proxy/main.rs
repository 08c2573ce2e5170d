//! The pass-through side by side with nginx: as users have it, and tuned. Every row is measured in turns, in one run, over
//! loopback; the ratios and the processor time per request are what to trust. Needs Debian's `nginx`.
//!
//! `cargo bench -p benches --bench proxy -- [rounds] [part of a row's name]`

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod contestants;
mod origin;

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use fakes::{
    plain_http::{self, LoadRequest},
    stats::{median, percentile},
};

use self::contestants::{Contestant, pin};

const ROUNDS: usize = 7;
/// Of one turn.
const TURN: Duration = Duration::from_millis(1_500);
const TWO_MB: usize = 2 << 20;
const TWENTY_MB: usize = 20 << 20;

/// The last row: whether three processes that wait for each other share a core is chance, and worth more than what is
/// measured. Here it is settled.
const PINNED: &str = "WebSocket 64 B, c=1, the proxy on a core of its own";

/// One line of the table.
struct Row {
    name: &'static str,
    ask: Arc<LoadRequest>,
    connections: usize,
    /// Bytes of one exchange, where bytes are what counts.
    bytes: Option<usize>,
}

fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match given.first().map(String::as_str) {
        Some(origin::NAME) => plain_http::runtime().block_on(origin::serve()),
        Some(contestants::NAME) => contestants::serve(&given[1..]),
        _ => plain_http::runtime().block_on(compare(&given)),
    }
}

async fn compare(given: &[String]) {
    let rounds = given.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let contestants = contestants::all();
    let row = |name, ask, connections, bytes| Row { name, ask: Arc::new(ask), connections, bytes };
    let upload = || upload("/upload", TWENTY_MB);
    let rows = [
        row("/healthz, c=16", get("/healthz"), 16, None),
        row("GET 2 B, c=1", get("/tiny"), 1, None),
        row("GET 2 B, c=16", get("/tiny"), 16, None),
        row("GET 2 B, c=64", get("/tiny"), 64, None),
        row("GET 2 MB, c=4", get("/large"), 4, Some(TWO_MB)),
        row("POST 20 MB, c=1", upload(), 1, Some(TWENTY_MB)),
        row("POST 20 MB, c=2", upload(), 2, Some(TWENTY_MB)),
        row("WebSocket 64 B, c=1", echo("/ws"), 1, None),
        row(PINNED, echo("/ws"), 1, None),
    ];
    say(format_args!(
        "idle memory: {}",
        contestants.iter().map(Contestant::memory).collect::<Vec<_>>().join(", ")
    ));
    let filter = given.get(1).map_or("", String::as_str);
    for row in rows.iter().filter(|row| row.name.contains(filter)) {
        if row.name == PINNED {
            pin(std::process::id(), "0");
            for contestant in &contestants {
                contestant.pin(if contestant.name == contestants::DIRECT { "0" } else { "1" });
            }
        }
        measure(row, &contestants, rounds).await;
    }
    say(format_args!(
        "memory after: {}",
        contestants.iter().map(Contestant::memory).collect::<Vec<_>>().join(", ")
    ));
}

async fn measure(row: &Row, contestants: &[Contestant], rounds: usize) {
    let mut turns: Vec<Vec<Turn>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (contestant, turns) in contestants.iter().zip(&mut turns) {
            let turn = turn(row, contestant).await;
            // The first warms up.
            if round > 0 {
                turns.push(turn);
            }
        }
    }
    say(format_args!("{}", row.name));
    let middle = |turns: &[Turn], read: fn(&Turn) -> f64| median(turns.iter().map(read));
    let direct = turns.last().map_or(0.0, |turns| middle(turns, |turn| turn.p50));
    let ours = middle(&turns[0], |turn| turn.per_second);
    for (contestant, turns) in contestants.iter().zip(&turns) {
        let of = |read| middle(turns, read);
        let rate = of(|turn| turn.per_second);
        let throughput = row.bytes.map_or_else(
            || format!("{rate:>9.0}/s"),
            |bytes| format!("{:>6.0} MB/s", rate * bytes as f64 / 1e6),
        );
        let p50 = of(|turn| turn.p50);
        say(format_args!(
            "  {:<12} {throughput}  p50 {p50:>6.0} us, adds {:>6.0}  p99 {:>6.0} us  CPU {:>8.1} us each  ours is {:.2} x",
            contestant.name,
            p50 - direct,
            of(|turn| turn.p99),
            of(|turn| turn.processor),
            ours / rate,
        ));
    }
}

/// What one turn gave; times in microseconds.
struct Turn {
    per_second: f64,
    p50: f64,
    p99: f64,
    processor: f64,
}

async fn turn(row: &Row, contestant: &Contestant) -> Turn {
    let before = contestant.processor_seconds();
    let started = Instant::now();
    let more = move || started.elapsed() < TURN;
    let mut times = row.ask.over(contestant.url(), row.connections, more).await;
    let elapsed = started.elapsed().as_secs_f64();
    let count = times.len().max(1) as f64;
    let mut at = |percent| percentile(&mut times, percent).as_secs_f64() * 1e6;
    Turn {
        per_second: count / elapsed,
        p50: at(50),
        p99: at(99),
        processor: (contestant.processor_seconds() - before) / count * 1e6,
    }
}

fn get(path: &str) -> LoadRequest {
    LoadRequest { opening: None, request: format!("GET {path} HTTP/1.1\r\nHost: ada2\r\n\r\n").into_bytes() }
}

fn upload(path: &str, bytes: usize) -> LoadRequest {
    let head = format!("POST {path} HTTP/1.1\r\nHost: ada2\r\nContent-Length: {bytes}\r\n\r\n");
    LoadRequest { opening: None, request: [head.into_bytes(), vec![b'u'; bytes]].concat() }
}

/// A message that is echoed.
fn echo(path: &str) -> LoadRequest {
    let opening = format!(
        "GET {path} HTTP/1.1\r\nHost: ada2\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    LoadRequest { opening: Some(opening.into_bytes()), request: vec![b'w'; 64] }
}

fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
