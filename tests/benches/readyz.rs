//! No request waits for the driver: `/readyz`, `/healthz` and a refused image, while NVML answers and while a call into
//! it hangs, in turns within one run. The ratio of the two is to be 1.2 at most.
//!
//! `cargo bench -p benches --bench readyz`

use std::{
    io::Write,
    time::{Duration, Instant},
};

use e2e::sidecar::Sidecar;
use fakes::{gpu::FakeCard, invokeai::FakeInvoke, stats::percentile};
use reqwest::{Client, RequestBuilder};
use service::outbound::{ConnectionPolicy, client_builder};

const ROUNDS: usize = 8;
const REQUESTS: usize = 500;
/// The first ones after a pause open a connection.
const WARM_UP: usize = 20;
const GOAL: f64 = 1.2;
const HANGING: &str = "nvmlDeviceGetMemoryInfo_v2";

/// A request, where it goes, and what it must be answered.
struct Question {
    name: &'static str,
    request: Box<dyn Fn(&Client) -> RequestBuilder>,
    status: u16,
    status_when_hung: u16,
    times: [Vec<Duration>; 2],
}

#[tokio::main]
async fn main() {
    let cards = [FakeCard::new(), FakeCard::new()];
    let libraries = [cards[0].library().display().to_string(), cards[1].library().display().to_string()];
    let open = Sidecar::builtin(&["--gpu", "required", "--nvml-lib", &libraries[0]]).await;
    open.until_ready().await;
    // Images are refused whether or not the card is well: the engine's queue is paused.
    let engine = FakeInvoke::start().await;
    engine.pause(true);
    let shut = Sidecar::invokeai(&engine.url(), &["--gpu", "required", "--nvml-lib", &libraries[1]]).await;
    shut.until_fails("engine_queue").await;
    let sidecars = [&open, &shut];
    let mut questions = questions(&open, &shut);
    let client =
        client_builder(ConnectionPolicy::Pooled).build().expect("the client has no settings that can fail");
    for round in 0..ROUNDS {
        for hung in [false, true] {
            for (card, sidecar) in cards.iter().zip(sidecars) {
                card.set(|machine| {
                    machine.hang = if hung { vec![HANGING.to_owned()] } else { Vec::new() };
                });
                until_stale(sidecar, hung).await;
            }
            ask(&client, &mut questions, hung).await;
        }
        let _ = writeln!(std::io::stderr(), "round {} of {ROUNDS}", round + 1);
    }
    print(&mut questions);
}

fn questions(open: &Sidecar, shut: &Sidecar) -> Vec<Question> {
    let get = |name, url: String, status_when_hung| Question {
        name,
        request: Box::new(move |client| client.get(&url)),
        status: 200,
        status_when_hung,
        times: Default::default(),
    };
    let images = format!("{}/v1/images/generations", shut.url);
    let image = Question {
        name: "a refused image",
        request: Box::new(move |client| {
            client
                .post(&images)
                .header("content-type", "application/json")
                .body(r#"{"prompt":"p","size":"64x64"}"#)
        }),
        status: 503,
        status_when_hung: 503,
        times: Default::default(),
    };
    vec![
        get("/readyz", format!("{}/readyz", open.url), 503),
        get("/healthz", format!("{}/healthz", open.url), 200),
        image,
    ]
}

async fn until_stale(sidecar: &Sidecar, hung: bool) {
    fakes::eventually("the driver hangs, or no longer", async || {
        let report = sidecar.readyz().await;
        let check = report.checks.into_iter().find(|check| check.name == "snapshot_fresh")?;
        ((check.status == wire::health::CheckStatus::Fail) == hung).then_some(())
    })
    .await;
}

async fn ask(client: &Client, questions: &mut [Question], hung: bool) {
    for nth in 0..WARM_UP + REQUESTS {
        for question in &mut *questions {
            let start = Instant::now();
            let answer = (question.request)(client).send().await.expect("an answer");
            let status = answer.status().as_u16();
            answer.bytes().await.expect("a complete body");
            let took = start.elapsed();
            let expected = if hung { question.status_when_hung } else { question.status };
            assert_eq!(status, expected, "{}", question.name);
            if nth >= WARM_UP {
                question.times[usize::from(hung)].push(took);
            }
        }
    }
}

fn print(questions: &mut [Question]) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "one connection, one request at a time, n = {} each", ROUNDS * REQUESTS);
    let _ = writeln!(out, "| request | NVML well, p50 / p99 | NVML hung, p50 / p99 | ratio p50 / p99 |");
    let _ = writeln!(out, "|---|--:|--:|--:|");
    for Question { name, times: [well, hung], .. } in questions {
        let figures = [50, 99].map(|percent| (percentile(well, percent), percentile(hung, percent)));
        let [(well, hung), (well_99, hung_99)] = figures;
        let (ratio, ratio_99) =
            (hung.as_secs_f64() / well.as_secs_f64(), hung_99.as_secs_f64() / well_99.as_secs_f64());
        let _ = writeln!(
            out,
            "| {name} | {well:.0?} / {well_99:.0?} | {hung:.0?} / {hung_99:.0?} | {ratio:.2} / {ratio_99:.2} |"
        );
        if ratio.max(ratio_99) > GOAL {
            let _ = writeln!(out, "<!-- {name}: above the goal of {GOAL} -->");
        }
    }
}
