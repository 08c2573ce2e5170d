//! What tests and benches share: fake engines and backends that replay recordings and record their requests, a fake
//! graphics card, and clients that control every byte.

pub mod child;
pub mod comfyui;
pub mod engine;
pub mod form;
pub mod fuzz_seeds;
pub mod gpu;
pub mod hostile_bodies;
pub mod invokeai;
pub mod large_images;
pub mod mlx;
pub mod old_state;
mod painting;
pub mod plain_http;
pub mod process;
pub mod promtool;
pub mod raw_engine;
pub mod raw_http;
pub mod reference;
pub mod sse;
pub mod stats;
pub mod stream_client;
pub mod upstream;

use std::{
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use reqwest::header::HeaderMap;
use serde_json::Value;
use service::outbound::{ConnectionPolicy, client_builder};
use tempfile::TempDir;

/// Far more than a loaded machine needs; a longer wait has failed.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Polls until there is a value; panics at the timeout.
pub async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a future; panics at the timeout.
pub async fn bounded<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(TIMEOUT, wait).await;
    assert!(waited.is_ok(), "not within {TIMEOUT:?}: {what}");
    waited.expect("just seen")
}

/// A fresh directory with users' templates in it ([what each is](../../fixtures/templates/README.md)).
pub fn template_dir() -> PathBuf {
    let dir = fresh_dir("templates");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/templates");
    for entry in std::fs::read_dir(fixtures).expect("the fixtures are there") {
        let entry = entry.expect("a readable directory");
        std::fs::copy(entry.path(), dir.join(entry.file_name())).expect("the directory can be written");
    }
    dir
}

/// A directory that is removed with its owner.
pub fn new_temp_dir() -> TempDir {
    tempfile::Builder::new().prefix("e2e-").tempdir().expect("the temporary directory can be written")
}

/// A unique directory, for what outlives one service. Removed by the next run, since this one does not know
/// when its services are done with it.
pub fn fresh_dir(name: &str) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    static CLEAN_UP: std::sync::Once = std::sync::Once::new();
    CLEAN_UP.call_once(remove_stale_dirs);
    let nth = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("e2e-{}-{nth}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
    dir
}

fn remove_stale_dirs() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process =
            name.strip_prefix("e2e-").and_then(|rest| rest.split_once('-')).map(|(process, _)| process);
        let dead = |process: &str| {
            process.parse::<u32>().is_ok() && !std::path::Path::new("/proc").join(process).exists()
        };
        if process.is_some_and(dead) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A client as curl is one: a new connection each time. A missing response is a failure, not a hang.
pub fn http() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        client_builder(ConnectionPolicy::PerRequest)
            .timeout(TIMEOUT)
            .build()
            .expect("the client has no settings that can fail")
    });
    &CLIENT
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct TestResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub bytes: bytes::Bytes,
    /// The same as JSON; null if it is none.
    pub json: Value,
}

impl TestResponse {
    /// Reads it.
    pub async fn read(answer: reqwest::Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let bytes = answer.bytes().await.expect("a complete body");
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { status, headers, bytes, json }
    }

    /// A header as text; empty if absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The error's code; empty if it is no error.
    pub fn code(&self) -> &str {
        self.json.pointer("/error/code").and_then(Value::as_str).unwrap_or_default()
    }

    /// The images of an answer that carries them in base64, which must be 200.
    pub fn images(&self) -> Vec<Vec<u8>> {
        assert_eq!(self.status, 200, "{self:?}");
        self.json["data"].as_array().expect("a list").iter().map(decode_image).collect()
    }

    /// The error's message.
    pub fn message(&self) -> &str {
        self.json.pointer("/error/message").and_then(Value::as_str).unwrap_or_default()
    }
}

/// The image in an object's `b64_json`.
pub fn decode_image(object: &Value) -> Vec<u8> {
    let text = object["b64_json"].as_str().expect("an image in base64");
    base64_simd::STANDARD.decode_to_vec(text).expect("base64")
}

/// Posts JSON.
pub async fn post(url: &str, body: &Value) -> TestResponse {
    let request = http().post(url).header("content-type", "application/json").body(body.to_string());
    TestResponse::read(request.send().await.expect("an answer")).await
}
