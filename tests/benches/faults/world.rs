//! The card, engine, sidecar and gateway of one trial, and what its client gets.

use std::{
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant},
};

use e2e::{
    gateway::{Gateway, TOKEN},
    sidecar::Sidecar,
};
use fakes::{fresh_dir, gpu::FakeCard, invokeai::FakeInvoke};
use reqwest::Client;
use serde_json::Value;
use service::outbound::{ConnectionPolicy, client_builder};
use wire::health::ReadyReport;

use super::fault::Fault;

/// Far more than an image of 20 ms takes; a hung engine must not hang the trial.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
const IMAGE_REQUEST: &str = r#"{"prompt":"p","size":"64x64","steps":1}"#;

/// Everything that a trial needs.
pub(crate) struct World {
    pub(crate) card: FakeCard,
    pub(crate) engine: Option<FakeInvoke>,
    pub(crate) sidecar: Sidecar,
    pub(crate) gateway: Gateway,
    pub(crate) state: PathBuf,
    flags: Vec<String>,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum RequestOutcome {
    /// An image.
    Image,
    /// A refusal with this message.
    Refusal(String),
    /// Neither: no free slot, or no response in time.
    NoAnswer,
}

impl World {
    /// Starts the services with a card that may be faulty already. Does not wait for readiness.
    pub(crate) async fn start(fault: &Fault, card: FakeCard) -> Self {
        let engine = if fault.invokeai { Some(FakeInvoke::start().await) } else { None };
        let library = card.library().display().to_string();
        let unit = unit_of_this_process();
        let mut flags = vec!["--gpu", "required", "--nvml-lib", &library, "--engine-unit", &unit];
        // What the bench itself allocates is no fault.
        flags.extend(["--min-free-memory", "0", "--max-swap-used", "100"]);
        flags.extend(fault.flags);
        let url = engine.as_ref().map(FakeInvoke::url);
        match &url {
            Some(url) => flags.extend(["--engine", "invokeai", "--engine-url", url]),
            None => flags.extend(["--engine", "builtin"]),
        }
        let state = fresh_dir("sidecar");
        let sidecar = Sidecar::start_in(state.clone(), &flags).await;
        let flags = flags.into_iter().map(str::to_owned).collect();
        let backends = format!(
            "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    \
             concurrency_limits: {{images: 2}}\n",
            sidecar.url
        );
        let gateway = Gateway::with_backends(&backends, &[]).await;
        Self { card, engine, sidecar, gateway, state, flags }
    }

    /// Waits until images are made, and events of the engine are followed.
    pub(crate) async fn until_healthy(&self) {
        self.sidecar.until_ready().await;
        self.gateway.until_ready("gpu_heavy", true).await;
        if let Some(engine) = &self.engine {
            engine.until_followed(1).await;
        }
        let image = async || matches!(self.request_image().await, RequestOutcome::Image).then_some(());
        fakes::eventually("it works before it is broken", image).await;
    }

    /// Another process in the place of the sidecar that was stopped.
    pub(crate) async fn start_sidecar_again(&mut self) {
        let address = self.sidecar.url.trim_start_matches("http://");
        let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free again");
        let flags: Vec<_> = self.flags.iter().map(String::as_str).collect();
        self.sidecar = Sidecar::start_on(listener, &fresh_dir("sidecar"), &flags);
    }

    /// One image through the gateway.
    pub(crate) async fn request_image(&self) -> RequestOutcome {
        self.request_image_within(REQUEST_TIMEOUT).await
    }

    /// The same with another timeout.
    pub(crate) async fn request_image_within(&self, timeout: Duration) -> RequestOutcome {
        let url = format!("{}/v1/images/generations", self.gateway.url);
        let request = client().post(url).bearer_auth(TOKEN).header("content-type", "application/json");
        let Ok(answer) = request.body(IMAGE_REQUEST).timeout(timeout).send().await else {
            return RequestOutcome::NoAnswer;
        };
        let status = answer.status().as_u16();
        let Ok(body) = answer.bytes().await else { return RequestOutcome::NoAnswer };
        match status {
            200 => RequestOutcome::Image,
            429 => RequestOutcome::NoAnswer,
            _ => {
                let json: Value = serde_json::from_slice(&body).unwrap_or_default();
                RequestOutcome::Refusal(json["error"]["message"].as_str().unwrap_or_default().to_owned())
            }
        }
    }

    /// `/readyz`, if the sidecar is there.
    pub(crate) async fn readyz(&self) -> Option<ReadyReport> {
        let answer = client()
            .get(format!("{}/readyz", self.sidecar.url))
            .timeout(REQUEST_TIMEOUT)
            .send()
            .await
            .ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }
}

/// Until then from the start of something, but for the last second.
pub(crate) async fn almost(then: Instant) {
    let before = then.checked_sub(Duration::from_secs(1)).unwrap_or(then);
    tokio::time::sleep(before.saturating_duration_since(Instant::now())).await;
}

/// The unit that holds the card's memory of this process: any part of our own cgroup's path.
fn unit_of_this_process() -> String {
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut parts =
        cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)).flat_map(|path| path.split('/'));
    parts.rfind(|part| !part.is_empty()).unwrap_or("none.service").to_owned()
}

/// Keeps its connections, as a busy client does.
fn client() -> &'static Client {
    static CLIENT: LazyLock<Client> = LazyLock::new(|| {
        client_builder(ConnectionPolicy::Pooled).build().expect("the client has no settings that can fail")
    });
    &CLIENT
}
