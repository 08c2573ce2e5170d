//! The README's first command. Builds both programs, runs them on the embedded default (builtin engine, GPU optional),
//! makes a first picture through the gateway, says what to try next, and stays up until Ctrl-C.

use std::{
    error::Error,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use shared::service::outbound::{self, Connections};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::sleep,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const START_TIME: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("quickstart: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let target = build().await?;
    let started = Instant::now();
    let mut home = Home::new(&target)?;
    let outcome = tokio::select! {
        outcome = home.first_picture(&target) => outcome,
        _ = term.recv() => Err("stopped".into()),
        _ = int.recv() => Err("stopped".into()),
    };
    if let Ok(url) = &outcome {
        home.tell(url, started.elapsed());
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            name = home.any_exit() => say(&format!("{name} ended; stopping")),
        }
    }
    home.stop().await;
    outcome.map(drop)
}

/// `cargo build --release` of both; gives the folder of the binaries.
async fn build() -> Outcome<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    say("building ada2-sidecar and gateway …");
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let arguments = ["build", "--release", "-p", "ada2-sidecar", "-p", "gateway"];
    let status = Command::new(cargo).args(arguments).current_dir(&root).status().await?;
    if !status.success() {
        return Err("the build failed".into());
    }
    // This program lies in target/PROFILE beside them, wherever the target folder is.
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).ok_or("cannot tell where the target folder is")?;
    Ok(target.join("release"))
}

/// Both programs, where they listen and where they keep their things.
struct Home {
    folder: PathBuf,
    token: String,
    sidecar: String,
    gateway: String,
    children: Vec<(&'static str, Child)>,
}

impl Home {
    fn new(target: &Path) -> Outcome<Self> {
        let folder = target.parent().unwrap_or(target).join("quickstart");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            token: format!("quickstart-{}", uuid::Uuid::new_v4().simple()),
            sidecar: free_address(7860)?,
            gateway: free_address(8800)?,
            children: Vec::new(),
            folder,
        })
    }

    async fn first_picture(&mut self, target: &Path) -> Outcome<String> {
        self.start_sidecar(target)?;
        self.start_gateway(target)?;
        let client = outbound::builder(Connections::Pooled).danger_accept_invalid_certs(true).build()?;
        let deadline = Instant::now() + START_TIME;
        loop {
            let body = r#"{"prompt":"a lighthouse in a storm","size":"512x512","steps":10}"#;
            let answer = client
                .post(format!("https://{}/v1/images/generations", self.gateway))
                .header("authorization", format!("Bearer {}", self.token))
                .header("content-type", "application/json")
                .body(body)
                .send()
                .await;
            let wrong = match answer {
                Ok(answer) if answer.status().is_success() => {
                    let json: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
                    let url = json.pointer("/data/0/url").and_then(serde_json::Value::as_str);
                    return Ok(format!(
                        "https://{}{}",
                        self.gateway,
                        url.ok_or("the answer has no picture")?
                    ));
                }
                Ok(answer) => format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()),
                Err(error) => error.to_string(),
            };
            if let Some((name, status)) = self.exited() {
                return Err(
                    format!("{name} ended with {status}; its log is in {}", self.folder.display()).into()
                );
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "no picture within {} s: {wrong}; logs are in {}",
                    START_TIME.as_secs(),
                    self.folder.display()
                )
                .into());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn start_sidecar(&mut self, target: &Path) -> Outcome<()> {
        let mut command = Command::new(target.join("ada2-sidecar"));
        command.args(["--engine", "builtin", "--gpu", "optional", "--listen", &self.sidecar, "--state-dir"]);
        command.arg(self.folder.join("sidecar-state"));
        self.start("ada2-sidecar", command)
    }

    fn start_gateway(&mut self, target: &Path) -> Outcome<()> {
        let (host, port) = self.gateway.rsplit_once(':').ok_or("an address has a port")?;
        let data = self.folder.join("gateway-data");
        let mut command = Command::new(target.join("gateway"));
        command
            .env("GATEWAY_HOST", host)
            .env("GATEWAY_PORT", port)
            .env("GATEWAY_BEARER_TOKEN", &self.token)
            .env("GATEWAY_DATA_DIR", &data)
            .env("UI_IMAGE_DIR", data.join("ui_images"))
            .env("IMAGES_HTTP_BASE_URL", format!("http://{}", self.sidecar))
            // A picture store of its own; neither the env file nor the backends of a real installation.
            .args(["--env-file", "/dev/null"]);
        self.start("gateway", command)
    }

    fn start(&mut self, name: &'static str, mut command: Command) -> Outcome<()> {
        let log = std::fs::File::create(self.folder.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.children.push((name, command.spawn()?));
        Ok(())
    }

    fn exited(&mut self) -> Option<(&'static str, std::process::ExitStatus)> {
        self.children.iter_mut().find_map(|(name, child)| Some((*name, child.try_wait().ok()??)))
    }

    async fn any_exit(&mut self) -> &'static str {
        loop {
            if let Some((name, _)) = self.exited() {
                return name;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// As a service manager would: SIGTERM, so that both drain.
    async fn stop(&mut self) {
        for (_, child) in self.children.iter().rev() {
            if let Some(pid) = child.id() {
                let _ = Command::new("kill").arg(pid.to_string()).status().await;
            }
        }
        for (_, child) in &mut self.children {
            let _ = tokio::time::timeout(Duration::from_secs(40), child.wait()).await;
        }
    }

    fn tell(&self, url: &str, took: Duration) {
        let Self { folder, token, sidecar, gateway, .. } = self;
        let ca = folder.join("gateway-data/gateway-ca.pem");
        let ca = ca.display();
        say(&format!(
            "
First picture after {:.1} s: {url}
Token: {token}

Try:
  curl http://{sidecar}/healthz
  curl 'http://{sidecar}/readyz?verbose'
  curl http://{sidecar}/v1/images/generations -H 'Content-Type: application/json' \\
       -d '{{\"model\":\"sd-xl-base-1.0\",\"prompt\":\"test\",\"size\":\"512x512\"}}'
  curl --cacert {ca} https://{gateway}/v1/gateway/status -H 'Authorization: Bearer {token}'
  curl --cacert {ca} https://{gateway}/v1/images/generations -H 'Authorization: Bearer {token}' \\
       -H 'Content-Type: application/json' -d '{{\"prompt\":\"a red cat\",\"size\":\"512x512\"}}'
  curl --cacert {ca} -o first.png {url}

Logs, certificates and pictures are in {}. Ctrl-C stops both.",
            took.as_secs_f64(),
            folder.display()
        ));
    }
}

/// The documented port on loopback, or a free one if somebody has it.
fn free_address(port: u16) -> Outcome<String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    Ok(listener.local_addr()?.to_string())
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
