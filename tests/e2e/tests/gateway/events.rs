//! `GET /v1/gateway/events`: what feeds the page.

use std::time::{Duration, Instant};

use e2e::{
    gateway::{Gateway, TOKEN},
    sidecar::Sidecar,
};
use fakes::{
    TestResponse,
    form::{KIND, file, form, text},
    gpu::FakeCard,
    raw_http::RawClient,
    sse::SseReader,
    stream_client::StreamClient,
    upstream::{
        Upstream, UpstreamReply, fake_image,
        sse::{SseStep, completed},
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use wire::openai::images::ImageSize;

const PATH: &str = "/v1/gateway/events";
const ALICE: &str = "alice-0123456789abcdef";

/// A client of the stream, which remembers what it was sent last.
struct Page {
    stream: SseReader,
    /// The names of the events, in order.
    names: Vec<String>,
}

impl Page {
    async fn open(gateway: &Gateway) -> Self {
        Self::open_with(gateway, TOKEN).await
    }

    async fn open_with(gateway: &Gateway, token: &str) -> Self {
        let answer = gateway.anonymous(Method::GET, PATH).bearer_auth(token).send().await.unwrap();
        for (name, value) in [("cache-control", "no-store"), ("x-accel-buffering", "no")] {
            assert_eq!(answer.headers()[name], value);
        }
        Self { stream: SseReader::new(answer), names: Vec::new() }
    }

    async fn next(&mut self) -> Option<(String, Value)> {
        let event = self.stream.next_named().await.expect("no break");
        self.names.extend(event.as_ref().map(|(name, _)| name.clone()));
        event
    }

    /// The data of the next event of this name that is as expected (bounded).
    async fn until(&mut self, name: &str, expected: impl Fn(&Value) -> bool) -> Value {
        fakes::bounded(name, async {
            loop {
                let (found, data) = self.next().await.expect("the stream goes on");
                if found == name && expected(&data) {
                    return data;
                }
            }
        })
        .await
    }

    /// Reads to a clean end.
    async fn end(mut self) {
        while self.next().await.is_some() {}
    }
}

fn report(status: &str, checks: &Value) -> UpstreamReply {
    let code = if status == "not_ready" { 503 } else { 200 };
    let report = json!({"status": status, "checks": checks, "since": 1, "sampled_at": 1.5,
        "gpu": {"index": 0, "name": "NVIDIA RTX 6000 Ada Generation", "uuid": "GPU-1", "memory.total": 46068,
            "memory.reserved": 600, "memory.used": 12_000, "memory.free": 33_468, "memory.effective_free": 43_468,
            "temperature.gpu": 54},
        "engine": {"kind": "invokeai", "queue_depth": 3, "models": 1}});
    UpstreamReply::json(code, report)
}

fn failing(message: &str) -> UpstreamReply {
    report("not_ready", &json!([{"name": "xid", "status": "fail", "message": message}]))
}

async fn opened_with(gateway: &Gateway, token: &str) -> TestResponse {
    let answer = gateway.anonymous(Method::GET, PATH).bearer_auth(token).send().await.unwrap();
    TestResponse::read(answer).await
}

fn probes(upstream: &Upstream) -> usize {
    upstream.requests("/readyz").len()
}

#[tokio::test]
async fn hello_comes_first_and_then_the_state() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", report("ready", &json!([{"name": "xid", "status": "pass"}])));
    let gateway = Gateway::start(&upstream, &["--max-request-bytes", "1000"]).await;
    gateway.until_ready("gpu_heavy", true).await;
    let mut page = Page::open(&gateway).await;
    let (name, hello) = page.next().await.unwrap();
    assert_eq!(name, "hello");
    assert_eq!(hello["token"], json!({"name": "token", "sees_all": true}));
    assert_eq!(
        (&hello["images_class"], &hello["max_request_bytes"], &hello["auth"]),
        (&json!("gpu_heavy"), &json!(1000), &json!(true))
    );
    assert!(hello["version"].is_string() && hello["started_at"].as_u64().unwrap() > 1_700_000_000);
    let (name, status) = page.next().await.unwrap();
    assert_eq!(name, "status");
    let asked = gateway.get("/v1/gateway/status").await.json;
    for part in ["admission_control", "token_limits", "store"] {
        assert_eq!(status[part], asked[part], "{part}");
    }
    assert_eq!(status["backend_health"]["gpu_heavy"]["gpu"]["temperature.gpu"], 54);
    let (name, readiness) = page.next().await.unwrap();
    assert_eq!(name, "readiness");
    assert_eq!(
        (&readiness["class"], &readiness["status"], &readiness["error"]),
        (&json!("gpu_heavy"), &json!("ready"), &Value::Null)
    );
    assert_eq!(readiness["checks"][0]["name"], "xid");
    assert_eq!(readiness["engine"]["kind"], "invokeai");
    assert!(readiness["at"].as_f64().unwrap() > 1.7e9);
    let samples = page.until("samples", |_| true).await;
    assert_eq!(samples["class"], "gpu_heavy");
    let sample = &samples["samples"][0];
    let figures = ["memory_total", "memory_free", "memory_engine", "memory_others", "memory_reserved"];
    assert_eq!(figures.map(|name| sample[name].as_u64().unwrap()), [46_068, 33_468, 10_000, 2000, 600]);
    assert_eq!((&sample["queue_depth"], &sample["status"]), (&json!(3), &json!("ready")));
    assert!(sample.get("power").is_none() && sample.get("memory_used").is_none(), "{sample}");
}

#[tokio::test]
async fn a_slot_is_shown_within_a_moment_and_what_has_not_changed_is_not_sent_again() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", report("ready", &json!([])));
    upstream.set_images(UpstreamReply::Hold);
    let gateway = Gateway::start(&upstream, &[]).await;
    let mut page = Page::open(&gateway).await;
    let inflight = |count: u64| {
        move |status: &Value| status["admission_control"]["gpu_heavy.images"]["inflight"] == count
    };
    page.until("status", inflight(0)).await;
    let request = gateway.image_request(&json!({"prompt": "p", "size": "64x64"}));
    let ((), made) = tokio::join!(
        async {
            upstream.until_held(1).await;
            let since = Instant::now();
            page.until("status", inflight(1)).await;
            assert!(since.elapsed() < Duration::from_millis(250), "{:?}", since.elapsed());
            // Several probes that find nothing new.
            for _ in 0..3 {
                page.until("samples", |_| true).await;
            }
            upstream.release();
        },
        request.send()
    );
    assert_eq!(made.unwrap().status().as_u16(), 200);
    page.until("status", inflight(0)).await;
    let sent = |name: &str| page.names.iter().filter(|one| *one == name).count();
    assert_eq!(sent("readiness"), 1, "{:?}", page.names);
    assert!(sent("status") <= 5, "{:?}", page.names);
}

#[tokio::test]
async fn the_backend_is_probed_every_second_only_while_a_page_is_open() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", report("ready", &json!([])));
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    let before = (probes(&upstream), upstream.requests("/v1/models").len());
    let mut page = Page::open(&gateway).await;
    let start = Instant::now();
    fakes::eventually("four probes", async || (probes(&upstream) >= before.0 + 4).then_some(())).await;
    assert!(start.elapsed() >= Duration::from_millis(2900), "{:?}", start.elapsed());
    let samples = page.until("samples", |data| data["samples"][0]["status"] == "ready").await;
    assert_eq!(samples["class"], "gpu_heavy");
    upstream.set("/readyz", failing("GPU 0 has fallen off the bus: reboot"));
    let since = Instant::now();
    let fault = page.until("readiness", |data| data["status"] == "not_ready").await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert_eq!(fault["error"], "xid: GPU 0 has fallen off the bus: reboot");
    upstream.set("/readyz", report("ready", &json!([])));
    page.until("readiness", |data| data["status"] == "ready").await;
    assert_eq!(
        upstream.requests("/v1/models").len(),
        before.1 + 1,
        "models are listed when it becomes ready, not with every probe"
    );
    let connections: Vec<_> = upstream.requests("/readyz").iter().map(|probe| probe.connection).collect();
    assert!(connections.windows(2).all(|pair| pair[0] == pair[1]), "one connection is kept: {connections:?}");
    drop(page);
    // At most one more probe: the page's end is noticed a moment later.
    let last = probes(&upstream);
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(probes(&upstream) <= last + 1, "{last} then {}", probes(&upstream));
    let mut next = Page::open(&gateway).await;
    let history = next.until("samples", |_| true).await;
    assert!(history["samples"].as_array().unwrap().len() >= 5, "what came before is kept: {history}");
    assert!(history["samples"].to_string().contains("not_ready"), "{history}");
}

#[tokio::test]
async fn an_unreachable_backend_leaves_samples_without_figures() {
    let upstream = Upstream::start().await;
    upstream.set("/readyz", report("ready", &json!([])));
    let gateway = Gateway::start(&upstream, &[]).await;
    let mut page = Page::open(&gateway).await;
    page.until("samples", |_| true).await;
    upstream.stop().await;
    let gone = page.until("readiness", |data| data["status"] == "unreachable").await;
    assert!(gone["error"].as_str().unwrap().contains("connection refused"), "{gone}");
    assert_eq!((&gone["checks"], &gone["gpu"], &gone["engine"]), (&json!([]), &Value::Null, &Value::Null));
    let samples = page.until("samples", |data| data["samples"][0]["status"] == "unreachable").await;
    let mut names: Vec<_> = samples["samples"][0].as_object().unwrap().keys().collect();
    names.sort_unstable();
    assert_eq!(names, ["at", "status"]);
}

#[tokio::test]
async fn a_fault_of_a_real_sidecars_card_is_on_the_page_within_two_seconds() {
    let card = FakeCard::new();
    let library = card.library().display().to_string();
    let sidecar = Sidecar::builtin(&["--gpu", "required", "--nvml-lib", &library]).await;
    sidecar.until_ready().await;
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n",
        sidecar.url
    );
    let gateway = Gateway::with_backends(&yaml, &[]).await;
    let mut page = Page::open(&gateway).await;
    page.until("readiness", |data| data["status"] != "unreachable" && data["status"] != "not_ready").await;
    card.xid(79);
    let since = Instant::now();
    let fault = page.until("readiness", |data| data["status"] == "not_ready").await;
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    assert!(fault["error"].as_str().unwrap().contains("xid"), "{fault}");
}

#[tokio::test]
async fn the_mock_is_ready_without_any_backend() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    let readiness = Page::open(&gateway).await.until("readiness", |_| true).await;
    assert_eq!(
        (&readiness["status"], &readiness["engine"]["kind"], &readiness["gpu"]),
        (&json!("ready"), &json!("mock"), &Value::Null)
    );
}

#[tokio::test]
async fn a_stream_is_one_request_counted_at_its_end() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let mut page = Page::open(&gateway).await;
    page.until("hello", |_| true).await;
    let line = format!("gateway_requests_total{{backend=\"none\",route=\"{PATH}\",status=\"200\"}} 1");
    assert!(!gateway.metrics().await.contains(PATH));
    drop(page);
    fakes::eventually(&line, async || gateway.metrics().await.contains(&line).then_some(())).await;
}

#[tokio::test]
async fn a_reload_ends_the_stream_and_a_withdrawn_token_does_not_come_back() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.set_env(&format!("GATEWAY_BEARER_TOKENS={TOKEN},alice={ALICE}\nGATEWAY_OWNER_TOKENS=alice\n"));
    gateway.reload(TOKEN).await;
    let (mut alice, mut other) =
        (Page::open_with(&gateway, ALICE).await, Page::open_with(&gateway, TOKEN).await);
    let (_, hello) = alice.next().await.unwrap();
    assert_eq!(hello["token"], json!({"name": "alice", "sees_all": true}));
    let (_, hello) = other.next().await.unwrap();
    assert_eq!(hello["token"], json!({"name": "token1", "sees_all": false}));
    gateway.set_env(&format!("GATEWAY_BEARER_TOKEN={TOKEN}\n"));
    gateway.reload(TOKEN).await;
    alice.end().await;
    other.end().await;
    let refused = opened_with(&gateway, ALICE).await;
    assert_eq!((refused.status, refused.code()), (401, "invalid_api_key"));
    let (_, hello) = Page::open_with(&gateway, TOKEN).await.next().await.unwrap();
    assert_eq!(hello["token"], json!({"name": "token", "sees_all": true}));
    let none = gateway.anonymous(Method::GET, PATH).send().await.unwrap();
    assert_eq!(none.status().as_u16(), 401);
}

#[tokio::test]
async fn a_drain_ends_the_stream_at_once() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let mut page = Page::open(&gateway).await;
    page.until("hello", |_| true).await;
    let start = Instant::now();
    tokio::join!(gateway.stop(), page.end());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_token_has_sixteen_streams_and_no_slot_is_taken() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    gateway.set_env(&format!("GATEWAY_BEARER_TOKENS={TOKEN},alice={ALICE};max=1\n"));
    gateway.reload(TOKEN).await;
    let mut pages = Vec::new();
    for _ in 0..16 {
        let mut page = Page::open_with(&gateway, ALICE).await;
        let status = page.until("status", |_| true).await;
        assert_eq!(status["token_limits"]["alice"]["inflight"], 0);
        pages.push(page);
    }
    let refused = opened_with(&gateway, ALICE).await;
    assert_eq!((refused.status, refused.code()), (429, "too_many_streams"));
    assert_eq!(refused.header("retry-after"), "5");
    assert!(refused.message().contains("alice has 16 event streams open"), "{}", refused.message());
    Page::open_with(&gateway, TOKEN).await.until("hello", |_| true).await;
    pages.pop();
    fakes::eventually("room for another", async || {
        let answer = gateway.anonymous(Method::GET, PATH).bearer_auth(ALICE).send().await.unwrap();
        (answer.status().as_u16() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_gets_the_newest_state_later_and_not_what_it_missed() {
    let upstream = Upstream::start().await;
    // More than fits into the buffers of a connection.
    let message = |nth: usize| format!("{nth} {}", "x".repeat(400_000));
    upstream.set("/readyz", failing(&message(0)));
    let gateway = Gateway::start(&upstream, &["--health-check-interval-sec", "0.05"]).await;
    let mut client = RawClient::to(&gateway.url).await;
    client
        .send(format!(
            "GET {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        ))
        .await;
    for nth in 1..=12 {
        upstream.set("/readyz", failing(&message(nth)));
        let before = probes(&upstream);
        fakes::eventually("a probe", async || (probes(&upstream) > before + 1).then_some(())).await;
    }
    upstream.set("/readyz", report("ready", &json!([])));
    gateway.until_ready("gpu_heavy", true).await;
    let mut states = 0;
    fakes::bounded("the newest state", async {
        loop {
            let block = client.until(b"\n\n").await.expect("the stream goes on");
            let block = String::from_utf8_lossy(&block);
            states += usize::from(block.contains("event: readiness"));
            if block.contains("event: readiness") && block.contains("\"status\":\"ready\"") {
                return;
            }
        }
    })
    .await;
    assert!((2..12).contains(&states), "{states} of 14 were sent");
}

#[tokio::test]
async fn text_of_others_stays_on_its_line() {
    let upstream = Upstream::start().await;
    let odd = "a\r\nevent: hello\ndata: {}\n\n<script>\u{0}\u{1b}[31m\u{2028}\u{7f}";
    upstream.set("/readyz", failing(odd));
    let gateway = Gateway::start(&upstream, &[]).await;
    let mut page = Page::open(&gateway).await;
    let readiness = page.until("readiness", |data| data["status"] == "not_ready").await;
    assert_eq!(readiness["checks"][0]["message"], odd);
    assert_eq!(page.names.iter().filter(|name| *name == "hello").count(), 1);
}

/// Has a picture made with this token; returns the request's id.
async fn made(gateway: &Gateway, token: &str, prompt: &str) -> String {
    let body = json!({"prompt": prompt, "size": "64x64"}).to_string();
    let request = gateway.anonymous(Method::POST, "/v1/images/generations").bearer_auth(token);
    let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
    let answer = TestResponse::read(answer).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-request-id").to_owned()
}

#[tokio::test]
async fn each_token_sees_its_own_jobs_and_an_owner_all() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &["--images-backend", "mock"]).await;
    gateway.set_env(&format!("GATEWAY_BEARER_TOKENS=own={TOKEN},alice={ALICE}\nGATEWAY_OWNER_TOKENS=own\n"));
    gateway.reload(TOKEN).await;
    let (mut alice, mut owner) =
        (Page::open_with(&gateway, ALICE).await, Page::open_with(&gateway, TOKEN).await);
    for page in [&mut alice, &mut owner] {
        assert_eq!(page.until("jobs", |_| true).await, json!({"jobs": []}));
    }
    let odd = "<img src=x onerror=alert(1)>\r\n\n\u{0}\u{1b}event: hello";
    let first = made(&gateway, TOKEN, "the owner's").await;
    let second = made(&gateway, ALICE, odd).await;
    let is_done = |id: &str| {
        let id = id.to_owned();
        move |data: &Value| data["jobs"][0]["id"] == *id && data["jobs"][0]["state"] == "done"
    };
    let own = alice.until("jobs", is_done(&second)).await;
    assert_eq!(own["jobs"].as_array().unwrap().len(), 1, "{own}");
    assert_eq!(
        (&own["jobs"][0]["prompt"], &own["jobs"][0]["token"], &own["jobs"][0]["task"]),
        (&json!(odd), &json!("alice"), &json!("generate"))
    );
    let all = owner.until("jobs", is_done(&second)).await;
    assert_eq!((all["jobs"].as_array().unwrap().len(), &all["jobs"][1]["id"]), (2, &json!(first)));
    assert_eq!(alice.names.iter().filter(|name| *name == "hello").count(), 1);
}

#[tokio::test]
async fn a_job_says_what_it_does_and_no_prompt_where_none_are_kept() {
    let upstream = Upstream::start().await;
    for (flag, prompt) in [("on", json!("p")), ("off", Value::Null)] {
        let flags = ["--images-backend", "mock", "--ui-image-settings", flag];
        let gateway = Gateway::start(&upstream, &flags).await;
        let mut page = Page::open(&gateway).await;
        let heads = [file("image", "a.png"), text("prompt"), file("mask", "m.png")];
        let contents: [&[u8]; 3] = [b"png", b"p", b"png"];
        let parts: Vec<_> = heads.iter().map(String::as_str).zip(contents).collect();
        for (parts, task) in [(&parts[..2], "edit"), (&parts[..], "inpaint")] {
            let answer = gateway.edit(KIND, form(parts)).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 200);
            let done = |data: &Value| data["jobs"][0]["task"] == task && data["jobs"][0]["state"] == "done";
            let data = page.until("jobs", done).await;
            assert_eq!(data["jobs"][0]["prompt"], prompt, "{flag}");
        }
    }
}

#[tokio::test]
async fn progress_is_sent_at_most_four_times_a_second() {
    let upstream = Upstream::start().await;
    let gateway = Gateway::start(&upstream, &[]).await;
    let mut page = Page::open(&gateway).await;
    page.until("jobs", |_| true).await;
    let mut script: Vec<_> = (0..100)
        .flat_map(|nth| [SseStep::Send(format!(": progress 0.{nth:02}\n\n").into_bytes()), SseStep::Wait])
        .collect();
    script.push(completed("image_generation", &fake_image("p", 7, ImageSize::new(32, 32))));
    upstream.set_images(UpstreamReply::Events(script));
    let mut client =
        StreamClient::start(gateway.image_request(&json!({"prompt": "p", "stream": true}))).await;
    let start = Instant::now();
    let steps = async {
        for _ in 0..100 {
            upstream.step();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(client.end().await);
    };
    let seen = async {
        let mut seen = Vec::new();
        loop {
            let data = page.until("jobs", |_| true).await;
            let job = &data["jobs"][0];
            seen.push((start.elapsed(), job["progress"].as_f64()));
            if job["state"] == "done" {
                return seen;
            }
        }
    };
    let ((), seen) = tokio::join!(steps, seen);
    let (last, _) = *seen.last().unwrap();
    let most = 4 * (last.as_secs() + 1) + 1;
    assert!(seen.len() as u64 <= most && seen.len() >= 3, "{seen:?}");
    let progress: Vec<_> = seen.iter().filter_map(|(_, progress)| *progress).collect();
    assert!(progress.is_sorted() && progress.len() >= 2, "{seen:?}");
}
