//! The sidecar, in this process, on a free port, with a state directory of its own.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ada2_sidecar::{Sockets, cli, config, reload::ConfigSource};
use fakes::engine::{Fake, FakeEngine};
use service::lifecycle::Lifecycle;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use wire::health::{Check, CheckStatus, ReadyReport};

/// A running sidecar. Dropping it gives up what runs; [`Sidecar::stop`] drains it.
#[derive(Debug)]
pub struct Sidecar {
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// Its phases, for tests that stop it.
    pub lifecycle: Lifecycle,
    task: JoinHandle<()>,
    /// Removed with this value.
    temp_dir: Option<TempDir>,
}

impl Sidecar {
    /// With the builtin engine and these further flags; the GPU is optional unless they say otherwise.
    pub async fn builtin(flags: &[&str]) -> Self {
        Self::start(&[&["--engine", "builtin"], flags].concat()).await
    }

    /// In front of this InvokeAI.
    pub async fn invokeai(url: &str, flags: &[&str]) -> Self {
        Self::start(&[&["--engine", "invokeai", "--engine-url", url], flags].concat()).await
    }

    /// In front of this ComfyUI.
    pub async fn comfyui(url: &str, flags: &[&str]) -> Self {
        Self::start(&[&["--engine", "comfyui", "--engine-url", url], flags].concat()).await
    }

    /// In front of this engine.
    pub async fn of<E: FakeEngine>(engine: &Fake<E>, flags: &[&str]) -> Self {
        Self::start(&[&["--engine", E::NAME, "--engine-url", &engine.url()], flags].concat()).await
    }

    async fn start(flags: &[&str]) -> Self {
        let dir = fakes::new_temp_dir();
        let mut sidecar = Self::start_in(dir.path().to_owned(), flags).await;
        sidecar.temp_dir = Some(dir);
        sidecar
    }

    /// With a state directory that an earlier one left, as after a crash.
    pub async fn start_in(state: PathBuf, flags: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        Self::start_on(listener, &state, flags)
    }

    /// On this socket as well, as after a restart.
    pub fn start_on(listener: TcpListener, state: &Path, flags: &[&str]) -> Self {
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let gpu: &[&str] = if flags.contains(&"--gpu") { &[] } else { &["--gpu", "optional"] };
        let dir = state.display().to_string();
        let all = [&["ada2-sidecar", "--state-dir", &dir], gpu, flags].concat();
        let matches = cli::command().get_matches_from(all);
        let loaded = config::load(&matches, &|_| None).expect("the test's flags are valid");
        let source = ConfigSource::new(move || config::load_for_reload(&matches, &|_| None, &[]));
        let lifecycle = Lifecycle::new();
        let life = lifecycle.clone();
        #[expect(clippy::disallowed_methods, reason = "the harness owns the service's one task")]
        let task = tokio::spawn(async move {
            let sockets = Sockets { listeners: vec![listener], socket_activated: false };
            ada2_sidecar::serve(sockets, loaded.config, source, life)
                .await
                .expect("the sidecar shuts down cleanly");
        });
        Self { url, lifecycle, task, temp_dir: None }
    }

    /// Waits until it is ready (bounded), and returns the report.
    pub async fn until_ready(&self) -> ReadyReport {
        fakes::eventually("the sidecar is ready", async || {
            Some(self.readyz().await).filter(ReadyReport::admits)
        })
        .await
    }

    /// Waits until a check fails (bounded), and returns it.
    pub async fn until_fails(&self, name: &str) -> Check {
        self.until_check(name, CheckStatus::Fail).await
    }

    /// Waits until a check has this status (bounded), and returns it.
    pub async fn until_check(&self, name: &str, status: CheckStatus) -> Check {
        let reached = async || {
            let checks = self.readyz().await.checks;
            checks.into_iter().find(|check| check.name == name).filter(|check| check.status == status)
        };
        fakes::eventually(name, reached).await
    }

    /// Requests images.
    pub async fn generate(&self, request: &serde_json::Value) -> fakes::TestResponse {
        fakes::post(&format!("{}/v1/images/generations", self.url), request).await
    }

    /// `/readyz` of this moment.
    pub async fn readyz(&self) -> ReadyReport {
        let answer =
            fakes::http().get(format!("{}/readyz", self.url)).send().await.expect("the sidecar answers");
        serde_json::from_slice(&answer.bytes().await.expect("a complete body")).expect("a report")
    }

    /// Waits until this many slots are taken (bounded).
    pub async fn until_inflight(&self, taken: usize) {
        let expected = format!("{taken} of ");
        fakes::eventually("slots taken", async || {
            let report = self.readyz().await;
            let slots = report.checks.iter().find(|check| check.name == "slots").cloned();
            slots.filter(|slots| slots.observed.starts_with(&expected))
        })
        .await;
    }

    /// Drains it and waits for its end.
    pub async fn stop(mut self) {
        self.lifecycle.begin_drain();
        tokio::time::timeout(Duration::from_mins(1), &mut self.task)
            .await
            .expect("it drains")
            .expect("a clean end");
    }
}

impl Drop for Sidecar {
    /// The task is not aborted: only when it ends by itself do the service's workers and threads end. Otherwise they would
    /// run on, and disturb the next user of their ports.
    fn drop(&mut self) {
        self.lifecycle.begin_drain();
        self.lifecycle.aborting().cancel();
    }
}
