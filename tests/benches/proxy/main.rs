//! The pass-through side by side with nginx: as users have it, and tuned. Every row is measured in turns, in one run, over
//! loopback; the ratios and the processor time per request are what to trust. Needs Debian's `nginx`.
//!
//! `cargo bench -p e2e --bench proxy -- [rounds] [part of a row's name]`

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod contestants;
mod load;
mod origin;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use e2e::figures::{median, percentile};

use self::{
    contestants::{Contestant, pin},
    load::{Ask, Load},
};

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
    ask: Ask,
    connections: usize,
    /// Bytes of one exchange, where bytes are what counts.
    bytes: Option<usize>,
}

#[tokio::main]
async fn main() {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match given.first().map(String::as_str) {
        Some(origin::NAME) => return origin::serve().await,
        Some(contestants::NAME) => return contestants::serve(&given[1..]).await,
        _ => {}
    }
    let rounds = given.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let origin = contestants::start_origin();
    let contestants = contestants::all(origin.url());
    let get = |path: &str| Ask::get(path);
    let rows = [
        Row { name: "/healthz, c=16", ask: get("/healthz"), connections: 16, bytes: None },
        Row { name: "GET 2 B, c=1", ask: get("/tiny"), connections: 1, bytes: None },
        Row { name: "GET 2 B, c=16", ask: get("/tiny"), connections: 16, bytes: None },
        Row { name: "GET 2 B, c=64", ask: get("/tiny"), connections: 64, bytes: None },
        Row { name: "GET 2 MB, c=4", ask: get("/large"), connections: 4, bytes: Some(TWO_MB) },
        Row {
            name: "POST 20 MB, c=2",
            ask: Ask::upload("/upload", TWENTY_MB),
            connections: 2,
            bytes: Some(TWENTY_MB),
        },
        Row { name: "WebSocket 64 B, c=1", ask: Ask::echo("/ws"), connections: 1, bytes: None },
        Row { name: PINNED, ask: Ask::echo("/ws"), connections: 1, bytes: None },
    ];
    say(format_args!(
        "idle memory: {}",
        contestants.iter().map(Contestant::memory).collect::<Vec<_>>().join(", ")
    ));
    let wanted = given.get(1).map_or("", String::as_str);
    for row in rows.iter().filter(|row| row.name.contains(wanted)) {
        if row.name == PINNED {
            origin.pin("0");
            pin(std::process::id(), "0");
            for contestant in &contestants {
                contestant.pin("1");
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
    let per_second = |turns: &[Turn]| median(turns.iter().map(|turn| turn.per_second));
    let ours = per_second(&turns[0]);
    for (contestant, turns) in contestants.iter().zip(&turns) {
        let rate = per_second(turns);
        let shown = row.bytes.map_or_else(
            || format!("{rate:>9.0}/s"),
            |bytes| format!("{:>6.0} MB/s", rate * bytes as f64 / 1e6),
        );
        let of = |read: fn(&Turn) -> f64| median(turns.iter().map(read));
        say(format_args!(
            "  {:<12} {shown}  p50 {:>7.0} us  p99 {:>7.0} us  CPU {:>8.1} us each  ours is {:.2} x",
            contestant.name,
            of(|turn| turn.p50),
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
    let begun = Instant::now();
    let mut times = Load::of(contestant.url(), &row.ask, row.connections, TURN).await;
    let elapsed = begun.elapsed().as_secs_f64();
    let count = times.len().max(1) as f64;
    let mut at = |percent| percentile(&mut times, percent).as_secs_f64() * 1e6;
    Turn {
        per_second: count / elapsed,
        p50: at(50),
        p99: at(99),
        processor: (contestant.processor_seconds() - before) / count * 1e6,
    }
}

fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
