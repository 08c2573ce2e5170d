//! The gateway, in this process, on a free port, with a store and files of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gateway::{
    Listeners, cli,
    config::{self, Config},
    serving::reload::ConfigSource,
    sleep::{ClockSource, Clocks},
};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use service::{lifecycle::Lifecycle, process::ServeError};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use fakes::{TestResponse, upstream::Upstream};

/// The clients' token.
pub const TOKEN: &str = "e2e-token-0123456789";

/// A running gateway. Dropping it gives up what runs; [`Gateway::stop`] drains it.
#[derive(Debug)]
pub struct Gateway {
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// The same of the listener for metrics, with `--gateway-metrics-listen 127.0.0.1:0`.
    pub metrics_url: Option<String>,
    /// Where its files are: `.env`, `backends_config.yaml`, its certificate.
    pub dir: PathBuf,
    /// Its image store.
    pub store: PathBuf,
    /// Its phases, for tests that stop it.
    pub lifecycle: Lifecycle,
    /// Seconds that its machine seems to have slept.
    slept: Arc<AtomicU64>,
    task: JoinHandle<Result<(), ServeError>>,
    /// Removed with this value.
    temp_dir: Option<TempDir>,
}

/// One backend, `gpu_heavy`, with two image slots.
pub fn gpu_heavy(upstream: &Upstream) -> String {
    format!(
        "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 2}}\n",
        upstream.url
    )
}

/// One more backend of this class for chat and embeddings, with one slot each; `more` are further lines of it.
pub fn chat_backend(class: &str, url: &str, more: &str) -> String {
    format!(
        "  {class}:\n    base_url: {url}/v1\n    supported_capabilities: [chat, embeddings]\n    \
         concurrency_limits: {{chat: 1, embeddings: 1}}\n{more}"
    )
}

/// `gpu_heavy`, and `local_mlx` for chat and embeddings.
pub fn with_local_mlx(upstream: &Upstream, mlx: &Upstream) -> String {
    format!(
        "{}  local_mlx:\n    base_url: {}/v1\n    supported_capabilities: [chat, embeddings]\n    \
         concurrency_limits: {{chat: 2, embeddings: 2}}\nlegacy_mapping: {{mlx: local_mlx}}\n",
        gpu_heavy(upstream),
        mlx.url
    )
}

impl Gateway {
    /// In front of this backend as `gpu_heavy`, with these further flags.
    pub async fn start(upstream: &Upstream, flags: &[&str]) -> Self {
        Self::with_backends(&gpu_heavy(upstream), flags).await
    }

    /// With this `backends_config.yaml`.
    pub async fn with_backends(yaml: &str, flags: &[&str]) -> Self {
        let temp_dir = fakes::new_temp_dir();
        let mut gateway = Self::start_in(temp_dir.path().to_owned(), yaml, flags).await;
        gateway.temp_dir = Some(temp_dir);
        gateway
    }

    /// In a directory that an earlier one left, as after a restart.
    pub async fn start_in(dir: PathBuf, yaml: &str, flags: &[&str]) -> Self {
        Self::try_start_in(dir, yaml, flags).await.expect("the test's configuration is valid")
    }

    /// The same, giving the configuration's problems.
    pub async fn try_start_in(dir: PathBuf, yaml: &str, flags: &[&str]) -> Result<Self, Vec<String>> {
        let (env_file, backends) = (dir.join(".env"), dir.join("backends_config.yaml"));
        if !env_file.exists() {
            std::fs::write(&env_file, format!("GATEWAY_BEARER_TOKEN={TOKEN}\n"))
                .expect("a writable directory");
        }
        std::fs::write(&backends, yaml).expect("a writable directory");
        let store = dir.join("pictures");
        let (env_file, store_path) = (env_file.display().to_string(), store.display().to_string());
        let data = dir.display().to_string();
        let tls: &[&str] = if flags.contains(&"--gateway-tls") { &[] } else { &["--gateway-tls", "off"] };
        let paths =
            ["gateway", "--env-file", &env_file, "--ui-image-dir", &store_path, "--gateway-data-dir", &data];
        let matches = cli::command().get_matches_from([&paths[..], tls, flags].concat());
        let read = move || config::load(&matches, &|_| None);
        let loaded =
            read().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let scheme = if matches!(loaded.config.tls, gateway::tls::Tls::Off) { "http" } else { "https" };
        let url = format!("{scheme}://{}", listener.local_addr().expect("a bound socket has an address"));
        let metrics = match loaded.config.metrics_listen {
            Some(address) => Some(TcpListener::bind(address).await.expect("loopback has a free port")),
            None => None,
        };
        let metrics_url = metrics
            .as_ref()
            .map(|socket| format!("http://{}", socket.local_addr().expect("a bound socket has an address")));
        let listeners = Listeners { api: listener, metrics };
        let lifecycle = Lifecycle::new();
        let slept = Arc::new(AtomicU64::new(0));
        let serving = serve(
            listeners,
            loaded.config,
            ConfigSource::new(read),
            clocks(slept.clone()),
            lifecycle.clone(),
        );
        #[expect(clippy::disallowed_methods, reason = "the harness owns the service's one task")]
        let task = tokio::spawn(serving);
        let gateway = Self { url, metrics_url, dir, store, lifecycle, slept, task, temp_dir: None };
        if scheme == "http" {
            // Answered once it serves; broken off if it does not start.
            let _ = gateway.anonymous(Method::GET, "/healthz").send().await;
        }
        Ok(gateway)
    }

    /// A request with the token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(TOKEN)
    }

    /// A request without it.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        fakes::http().request(method, format!("{}{path}", self.url))
    }

    /// Gets a path, with the token.
    pub async fn get(&self, path: &str) -> TestResponse {
        TestResponse::read(self.request(Method::GET, path).send().await.expect("an answer")).await
    }

    /// An image request, to be completed or sent.
    pub fn image_request(&self, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, "/v1/images/generations");
        request.header("content-type", "application/json").body(body.to_string())
    }

    /// A chat or embeddings request, to be completed or sent.
    pub fn json_request(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(body)
    }

    /// Sends a chat request.
    pub async fn chat(&self, body: &Value) -> TestResponse {
        let request = self.json_request("/v1/chat/completions", body.to_string());
        TestResponse::read(request.send().await.expect("an answer")).await
    }

    /// An edit request, to be completed or sent.
    pub fn edit(&self, content_type: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.request(Method::POST, "/v1/images/edits");
        request.header("content-type", content_type).body(body)
    }

    /// What it has counted, as text.
    pub async fn metrics(&self) -> String {
        let scrape = self.request(Method::GET, "/metrics").send().await.expect("an answer");
        assert_eq!(scrape.status().as_u16(), 200);
        scrape.text().await.expect("a complete body")
    }

    /// Requests images.
    pub async fn generate(&self, body: &Value) -> TestResponse {
        TestResponse::read(self.image_request(body).send().await.expect("an answer")).await
    }

    /// Fetches a stored image as a browser does: without token.
    pub async fn image(&self, path: &str) -> Vec<u8> {
        let answer = self.anonymous(Method::GET, path).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.bytes().await.expect("a complete image").to_vec()
    }

    /// Places taken under a key of the status, for example `gpu_heavy.images`.
    pub async fn inflight(&self, key: &str) -> u64 {
        let status = self.get("/v1/gateway/status").await;
        status.json["admission_control"][key]["inflight"].as_u64().expect("a configured key")
    }

    /// Waits until this many slots are taken (bounded).
    pub async fn until_inflight(&self, key: &str, expected: u64) {
        fakes::eventually("slots taken", async || (self.inflight(key).await == expected).then_some(())).await;
    }

    /// The files in its store but the lock and the records beside images: images, and temporary files.
    pub fn stored(&self) -> Vec<PathBuf> {
        self.in_store(|path| {
            !path.ends_with(".lock") && path.extension().is_none_or(|ending| ending != "json")
        })
    }

    /// The records beside images in its store.
    pub fn records(&self) -> Vec<PathBuf> {
        self.in_store(|path| path.extension().is_some_and(|ending| ending == "json"))
    }

    fn in_store(&self, expected: impl Fn(&PathBuf) -> bool) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.store).expect("the store is a directory");
        entries.map(|entry| entry.expect("it can be read").path()).filter(expected).collect()
    }

    /// Waits until nothing is in its store (bounded): what is given up is removed by the thread that writes it, which may
    /// be a moment after the answer.
    pub async fn until_nothing_stored(&self) {
        fakes::eventually("an empty store", async || self.stored().is_empty().then_some(())).await;
    }

    /// A backend in the status.
    pub async fn backend(&self, class: &str) -> Value {
        self.get("/v1/gateway/status").await.json["backend_health"][class].clone()
    }

    /// Waits until a backend is ready, or is not (bounded); returns it as in the status.
    pub async fn until_ready(&self, class: &str, ready: bool) -> Value {
        fakes::eventually("the backend's readiness", async || {
            Some(self.backend(class).await).filter(|backend| backend["ready"] == ready)
        })
        .await
    }

    /// Simulates that its machine sleeps: wall time runs ahead.
    pub fn sleep(&self, time: Duration) {
        self.slept.fetch_add(time.as_secs(), Ordering::AcqRel);
    }

    /// Replaces its env file.
    pub fn set_env(&self, lines: &str) {
        std::fs::write(self.dir.join(".env"), lines).expect("a writable directory");
    }

    /// Changes its `backends_config.yaml`.
    pub fn set_backends(&self, yaml: &str) {
        std::fs::write(self.dir.join("backends_config.yaml"), yaml).expect("a writable directory");
    }

    /// Reloads as on SIGHUP, and waits until it is done or refused (bounded). Returns the configuration's part of the status,
    /// requested with this token.
    pub async fn reload(&self, token: &str) -> Value {
        let tries = |config: &Value| config["reloads"].as_u64();
        let before = tries(&self.config_status(token).await).unwrap_or_default();
        self.lifecycle.request_reload();
        fakes::eventually("a reload", async || {
            Some(self.config_status(token).await).filter(|now| tries(now).is_some_and(|tries| tries > before))
        })
        .await
    }

    /// The configuration's part of the status.
    pub async fn config_status(&self, token: &str) -> Value {
        let request = self.anonymous(Method::GET, "/v1/gateway/status").bearer_auth(token);
        TestResponse::read(request.send().await.expect("an answer")).await.json["gateway"]["config"].clone()
    }

    /// Drains it and waits for its end.
    pub async fn stop(mut self) {
        self.lifecycle.begin_drain();
        let ended = tokio::time::timeout(Duration::from_mins(1), &mut self.task).await.expect("it drains");
        ended.expect("without panic").expect("a clean end");
    }

    /// Waits until it ends by itself.
    pub async fn ended(mut self) -> Result<(), ServeError> {
        (&mut self.task).await.expect("without panic")
    }
}

async fn serve(
    listeners: Listeners,
    config: Config,
    source: ConfigSource,
    clocks: ClockSource,
    lifecycle: Lifecycle,
) -> Result<(), ServeError> {
    gateway::Gateway::open(config)?
        .with_clocks(clocks)
        .with_config_source(source)
        .serve(listeners, lifecycle)
        .await
}

/// The machine's clocks, after a sleep of so many seconds.
fn clocks(slept: Arc<AtomicU64>) -> ClockSource {
    ClockSource::new(move || {
        let now = Clocks::read();
        Clocks { wall: now.wall + Duration::from_secs(slept.load(Ordering::Acquire)), ..now }
    })
}

impl Drop for Gateway {
    /// The task is not aborted: only when it ends by itself do the service's workers and threads end. Otherwise they would
    /// run on, and disturb the next user of their ports.
    fn drop(&mut self) {
        self.lifecycle.begin_drain();
        self.lifecycle.aborting().cancel();
    }
}
