//! The gateway side by side with others that do its work: each in a process of its own, started by a script, in front of
//! one backend, measured in turns in one run. What they add to the backend's own time, what they cost, how fast they
//! refuse, start, and relay a token.

#![expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]

mod baseline;
mod contestant;
mod requests;
mod table;

use std::time::Duration;

use fakes::stats::{median, percentile};
use reqwest::Client;
use service::outbound::{ConnectionPolicy, client_builder};

use self::{
    baseline::Baseline,
    contestant::Contestant,
    requests::Score,
    table::{Better, Table},
};

/// Measured rounds; one before them warms up.
const ROUNDS: usize = 5;
const IMAGES: usize = 80;
const CLIENTS: [usize; 2] = [1, 8];
const CHATS: usize = 60;
const STARTS: usize = 5;
/// Time for a started process to become idle.
const SETTLE: Duration = Duration::from_secs(3);
const SLOTS: usize = 16;
/// Of the overload.
const FEW_SLOTS: usize = 2;
const REQUESTS: usize = 1000;

/// Compares those that the script can start, with the backend itself first.
pub(crate) async fn compare(script: &str, names: &[&str]) {
    let client = client();
    let backend = Contestant::backend();
    let upstream = backend.child.url.clone();
    let (mut all, mut start_ups) = (vec![backend], vec![None]);
    for name in names {
        let (contestant, start_up) = started(script, name, &upstream).await;
        all.push(contestant);
        start_ups.push(Some(start_up));
    }
    tokio::time::sleep(SETTLE).await;
    let resident = |all: &[Contestant]| all.iter().map(|of| Some(of.resident_mib())).collect::<Vec<_>>();
    let idle = resident(&all);
    let table = Table::new(all.iter().map(|contestant| contestant.name.clone()).collect());
    table.line("start to first answer, ms", Better::Less, &start_ups);
    table.line("idle after the start, MiB", Better::Less, &idle);
    for clients in CLIENTS {
        images(&all, clients, &upstream, &table).await;
    }
    text(&client, &all, &table).await;
    tokio::time::sleep(SETTLE).await;
    table.line("idle after all that, MiB", Better::Less, &resident(&all));
    all.truncate(1);
    overload(&client, script, names, &upstream, &table).await;
}

/// The last of some starts, and how long they took, in milliseconds.
async fn started(script: &str, name: &str, upstream: &str) -> (Contestant, f64) {
    let mut times = Vec::new();
    loop {
        let contestant = Contestant::start(script, name, upstream, SLOTS).await;
        times.push(milliseconds(contestant.start_up));
        if times.len() == STARTS {
            return (contestant, median(times.into_iter()));
        }
    }
}

async fn images(all: &[Contestant], clients: usize, upstream: &str, table: &Table) {
    let mut baseline = Baseline::default();
    let mut scores: Vec<Score> = all.iter().map(|_| Score::default()).collect();
    for contestant in all {
        Score::default().images(contestant, clients, IMAGES / 2).await;
    }
    for _ in 0..ROUNDS {
        for (contestant, score) in all.iter().zip(&mut scores) {
            score.images(contestant, clients, IMAGES).await;
        }
        baseline.measure(upstream, clients, IMAGES);
    }
    let line = |name: &str, better, figure: &dyn Fn(&Score) -> f64, baseline: Option<f64>| {
        let figures = scores.iter().map(|score| Some(figure(score)));
        let figures: Vec<_> = figures.chain([baseline]).collect();
        table.line(&format!("2 MiB images, c={clients}: {name}"), better, &figures);
    };
    let count = (ROUNDS * IMAGES) as f64;
    let rate = |wall: Duration| count / wall.as_secs_f64();
    let cost = |processor: Duration| milliseconds(processor) / count;
    line("a second", Better::More, &|score| rate(score.wall), Some(rate(baseline.wall)));
    line(
        "processor seconds per 1,000",
        Better::Less,
        &|score| cost(score.processor),
        Some(cost(baseline.processor)),
    );
    line("peak memory, MiB", Better::Less, &|score| score.peak_mib as f64, None);
    added(&format!("2 MiB images, c={clients}:"), scores, table);
}

async fn text(client: &Client, all: &[Contestant], table: &Table) {
    let mut scores: Vec<Score> = all.iter().map(|_| Score::default()).collect();
    for round in 0..=ROUNDS {
        for (contestant, score) in all.iter().zip(&mut scores) {
            score.chat_requests(client, contestant, CHATS).await;
            if round == 0 {
                *score = Score::default();
            }
        }
    }
    added("chat, first token:", scores, table);
}

/// What each adds to the backend's own time, which comes first.
fn added(what: &str, mut scores: Vec<Score>, table: &Table) {
    for percent in [50, 99] {
        let times = scores.iter_mut().map(|score| milliseconds(percentile(&mut score.times, percent)));
        let times: Vec<_> = times.collect();
        let figures =
            times.iter().enumerate().map(|(at, time)| if at == 0 { *time } else { time - times[0] });
        let figures: Vec<_> = figures.map(Some).collect();
        table.line(&format!("{what} added p{percent}, ms"), Better::Less, &figures);
    }
}

/// With a backend that is slow.
async fn overload(client: &Client, script: &str, names: &[&str], upstream: &str, table: &Table) {
    let mut all = Vec::new();
    for name in names {
        let contestant = Contestant::start(script, name, upstream, FEW_SLOTS).await;
        tokio::time::sleep(SETTLE).await;
        all.push(requests::refusals(client, &contestant.child.url, REQUESTS).await);
    }
    let line = |name: &str, better, figures: Vec<Option<f64>>| {
        table.line(
            &format!("200 requests per second for {FEW_SLOTS} slots: {name}"),
            better,
            &[&[None], &figures[..]].concat(),
        );
    };
    line(
        &format!("refused of {REQUESTS}"),
        Better::More,
        all.iter().map(|times| Some(times.len() as f64)).collect(),
    );
    for percent in [50, 99] {
        let figure =
            |times: &mut Vec<Duration>| (!times.is_empty()).then(|| milliseconds(percentile(times, percent)));
        line(&format!("429 p{percent}, ms"), Better::Less, all.iter_mut().map(figure).collect());
    }
}

fn client() -> Client {
    let client = client_builder(ConnectionPolicy::Pooled);
    client.timeout(Duration::from_mins(1)).build().expect("a client")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
