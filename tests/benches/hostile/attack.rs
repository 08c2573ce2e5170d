//! The attacks.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::Duration,
};

use e2e::gateway::TOKEN;
use fakes::{
    child::Child,
    form::{BOUNDARY, KIND, file},
    invokeai::{FakeInvoke, InvokeScript, ItemStatus},
    large_images::{FORTY_MEGAPIXELS, edit_of, png_of},
};
use serde_json::json;

use super::client::{connect, get, post, send};

/// From a well-behaved client.
pub(super) const OTHER_TOKEN: &str = "another-token-0123456789";
const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";
const CHAT: &str = "/v1/chat/completions";
const JSON: &str = "application/json";
/// Just below the limit of both services.
const LARGE: usize = 31 << 20;
/// The longest body that both services take.
const LARGEST: usize = 32 << 20;
/// Uploads that stop before their end.
const DRIPPERS: u8 = 8;
/// Connections that never complete a head, more than a service has slots for.
const SLOW_HEADS: usize = 1_100;
/// From one address.
const HEADS_EACH: usize = 200;

/// Previews, and the bytes of each.
const PREVIEWS: usize = 600;
const PREVIEW: usize = 6 << 20;
/// A job that does not end by itself.
const FOREVER: Duration = Duration::from_hours(1);

/// A service under attack.
pub(super) struct Target {
    pub(super) service: &'static str,
    pub(super) address: SocketAddr,
}

impl Target {
    pub(super) fn new(service: &'static str, victim: &Child) -> Self {
        let address = victim.url.trim_start_matches("http://").parse().expect("an address with a port");
        Self { service, address }
    }

    /// The header of the attacker's token, where one is required.
    fn token(&self) -> String {
        self.bearer(TOKEN)
    }

    fn bearer(&self, token: &str) -> String {
        if self.service == "gateway" { format!("Authorization: Bearer {token}\r\n") } else { String::new() }
    }
}

/// The outcome of an attack.
pub(super) struct Outcome {
    /// Bytes of the longest body, for the factor.
    pub(super) largest_body: usize,
    /// A description.
    pub(super) answered: String,
}

#[derive(Clone, Copy)]
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) targets: &'static [&'static str],
    /// Whether the engine sends previews meanwhile, faster than any client can read them.
    pub(super) flood: bool,
    pub(super) run: fn(&Target) -> Outcome,
    /// The shortest time for which health is polled.
    pub(super) least: Duration,
}

pub(super) fn all() -> Vec<Attack> {
    const BOTH: &[&str] = &["sidecar", "gateway"];
    let attack =
        |name, targets, run| Attack { name, targets, flood: false, run, least: Duration::from_secs(2) };
    vec![
        Attack {
            least: Duration::from_secs(10),
            ..attack("12 leavers, 40 megapixels", &["sidecar"], leavers)
        },
        attack("31 MiB of objects in JSON", BOTH, |target| json(target, GENERATIONS, &objects(), 1)),
        attack("31 MiB of keys in JSON", BOTH, |target| json(target, GENERATIONS, &keys(), 1)),
        attack("31 MiB of arrays in chat", &["gateway"], |target| json(target, CHAT, &arrays(), 1)),
        attack("3 x 6 MiB of JSON", BOTH, |target| json(target, GENERATIONS, &objects()[..6 << 20], 3)),
        attack("31 MiB image in JSON", BOTH, |target| json(target, EDITS, &image_in_json(), 1)),
        attack("boundary of 40 kB", BOTH, long_boundary),
        attack("31 MiB of near-boundaries", BOTH, near_boundaries),
        attack("path of %2525…", BOTH, long_path),
        Attack { least: Duration::from_secs(12), ..attack("8 dripping uploads", BOTH, dripping) },
        Attack { least: Duration::from_secs(5), ..attack("1,100 heads without an end", BOTH, slow_heads) },
        Attack { flood: true, ..attack("600 previews of 6 MiB", &["sidecar"], preview_flood) },
    ]
}

/// Previews of one job that never finishes.
pub(super) async fn flood(engine: &FakeInvoke) {
    engine.script(|script| (script.hold, script.cancel_tail) = (true, FOREVER));
    engine.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
    let items = engine.items();
    let item = items.iter().find(|item| item.status == ItemStatus::InProgress).expect("just seen");
    let preview = base64_simd::STANDARD.encode_to_string(png_of(PREVIEW));
    let data = json!({"item_id": item.id, "batch_id": item.batch_id, "percentage": 0.1,
        "image": {"dataURL": format!("data:image/png;base64,{preview}")}});
    let frame = format!("42[\"invocation_progress\",{data}]");
    for _ in 0..PREVIEWS {
        engine.broadcast_raw(&frame);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The job ends with its client.
    engine.script(|script| *script = InvokeScript::default());
}

/// The same bodies at once, each from its own address.
fn json(target: &Target, path: &str, body: &[u8], clients: u8) -> Outcome {
    let head = post(path, JSON, body.len(), &target.token());
    outcome(body.len(), &at_once(target, &head, body, clients))
}

fn at_once(target: &Target, head: &str, body: &[u8], clients: u8) -> Vec<Option<u16>> {
    thread::scope(|scope| {
        let senders: Vec<_> = (0..clients)
            .map(|nth| scope.spawn(move || send(client(nth), target.address, head, body)))
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("it only sends")).collect()
    })
}

/// `{"prompt":"x","a":[{"":0},…]}`
fn objects() -> Vec<u8> {
    filled(br#"{"prompt":"x","size":"64x64","a":["#, br#"{"":0},"#, b"0]}")
}

/// As many keys as possible.
fn keys() -> Vec<u8> {
    let mut body = br#"{"prompt":"x","size":"64x64""#.to_vec();
    let mut nth = 0_u32;
    while body.len() < LARGE {
        body.extend(format!(r#","{nth:x}":0"#).as_bytes());
        nth += 1;
    }
    body.push(b'}');
    body
}

fn arrays() -> Vec<u8> {
    filled(br#"{"model":"local_mlx","messages":["#, b"[],", b"0]}")
}

fn image_in_json() -> Vec<u8> {
    filled(
        br#"{"prompt":"x","size":"64x64","images":[{"image_url":"data:image/png;base64,"#,
        b"AAAA",
        br#""}]}"#,
    )
}

fn filled(start: &[u8], piece: &[u8], end: &[u8]) -> Vec<u8> {
    let mut body = start.to_vec();
    while body.len() < LARGE {
        body.extend_from_slice(piece);
    }
    body.extend_from_slice(end);
    body
}

/// Clients that disconnect once their image is sent: a small file of 40 megapixels with 16 bits a channel.
fn leavers(target: &Target) -> Outcome {
    let request = edit_of(&FORTY_MEGAPIXELS, &[("prompt", "x"), ("size", "512x512")]);
    for nth in 0..12 {
        let Some(mut stream) = connect(client(nth), target.address) else { continue };
        let _ = stream.write_all(&request);
        thread::sleep(Duration::from_millis(60));
    }
    Outcome { largest_body: 0, answered: "no client waits".to_owned() }
}

/// Every place in the body looks like the boundary up to its last byte.
fn long_boundary(target: &Target) -> Outcome {
    let boundary = format!("{}x", "-".repeat(40_000));
    let body = vec![b'-'; LARGE];
    let head = post(EDITS, &format!("multipart/form-data; boundary={boundary}"), body.len(), &target.token());
    outcome(body.len(), &at_once(target, &head, &body, 2))
}

/// Bytes that begin a delimiter again and again and never end one.
fn near_boundaries(target: &Target) -> Outcome {
    let almost = format!("\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1]);
    let start = format!("--{BOUNDARY}\r\n{}\r\n\r\n", file("image", "a.png"));
    let body = filled(start.as_bytes(), almost.as_bytes(), format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let head = post(EDITS, KIND, body.len(), &target.token());
    outcome(body.len(), &[send(client(0), target.address, &head, &body)])
}

/// Escaped many times: each decoding removes one layer.
fn long_path(target: &Target) -> Outcome {
    let path = format!("/v1/%{}", "25".repeat(30_000));
    let statuses: Vec<_> = (0..3)
        .map(|nth| {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n",
                target.token()
            );
            send(client(nth), target.address, &head, b"")
        })
        .collect();
    outcome(0, &statuses)
}

/// Uploads of one client that stop just before their end, a byte a second; meanwhile another client requests an image.
fn dripping(target: &Target) -> Outcome {
    let head = post(GENERATIONS, JSON, LARGEST, &target.token());
    let most = vec![b' '; LARGEST - 64];
    let mut uploads: Vec<_> = (0..DRIPPERS)
        .filter_map(|_| {
            let mut stream = connect(client(0), target.address)?;
            stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&most));
            Some(stream)
        })
        .collect();
    // Otherwise this request could arrive before the last of them and take its slot.
    thread::sleep(Duration::from_secs(1));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        for stream in &mut uploads {
            let _ = stream.write_all(b" ");
        }
        let body = large_image_request();
        let head = post(GENERATIONS, JSON, body.len(), &target.bearer(OTHER_TOKEN));
        statuses.push(send(client(9), target.address, &head, &body));
        thread::sleep(Duration::from_secs(1));
    }
    Outcome { answered: format!("another client: {}", tally(&statuses)), largest_body: 0 }
}

/// An image request of 1 MiB.
fn large_image_request() -> Vec<u8> {
    let mut body = br#"{"prompt":"x","size":"64x64","user":""#.to_vec();
    body.resize(1 << 20, b'u');
    body.extend_from_slice(br#""}"#);
    body
}

fn slow_heads(target: &Target) -> Outcome {
    let mut held = Vec::new();
    for nth in 0..SLOW_HEADS {
        let from = client(u8::try_from(nth / HEADS_EACH + 1).expect("a few"));
        if let Some(mut stream) = connect(from, target.address) {
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: local");
            held.push(stream);
        }
    }
    let statuses: Vec<_> = (0..20)
        .map(|_| {
            thread::sleep(Duration::from_millis(150));
            get(target.address, "/readyz")
        })
        .collect();
    Outcome { answered: format!("/readyz: {}", tally(&statuses)), largest_body: 0 }
}

/// A client that requests a stream and never reads.
fn preview_flood(target: &Target) -> Outcome {
    let body = br#"{"prompt":"x","size":"64x64","steps":30,"stream":true,"partial_images":3}"#;
    let head = post(GENERATIONS, JSON, body.len(), &target.token());
    let stream = connect(client(0), target.address).map(|mut stream| {
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        stream
    });
    thread::sleep(Duration::from_secs(5));
    Outcome {
        largest_body: 0,
        answered: if stream.is_some() { "no client reads" } else { "refused" }.to_owned(),
    }
}

/// A loopback address of its own for each attacker.
fn client(nth: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + nth)
}

fn outcome(largest_body: usize, statuses: &[Option<u16>]) -> Outcome {
    Outcome { largest_body, answered: tally(statuses) }
}

/// `2 x 200, 1 x no answer`
fn tally(statuses: &[Option<u16>]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for status in statuses {
        let name = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        *counts.entry(name).or_insert(0) += 1;
    }
    counts.iter().map(|(name, count)| format!("{count} x {name}")).collect::<Vec<_>>().join(", ")
}
