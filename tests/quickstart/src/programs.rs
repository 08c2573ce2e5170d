//! Both programs: where they listen, where they keep their things, and how they are started, checked and stopped.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Outcome, POLL};

/// What both may take to drain.
const STOP_TIME: Duration = Duration::from_secs(40);
/// Variables of a real installation in this shell would win over the env file.
const PREFIXES: [&str; 6] = ["ADA2_", "GATEWAY_", "IMAGES_", "UI_", "BACKEND", "HEALTH_CHECK_"];

pub(super) struct Programs {
    binaries: PathBuf,
    dir: PathBuf,
    token: String,
    sidecar: String,
    gateway: String,
    children: Vec<(&'static str, Child)>,
}

impl Programs {
    /// Chooses addresses and a token; starts nothing.
    pub(super) fn new(target: &Path) -> Outcome<Self> {
        let dir = target.join("quickstart");
        fs::create_dir_all(&dir)?;
        Ok(Self {
            binaries: target.join("release"),
            dir,
            token: new_token()?,
            sidecar: free_address(7860)?,
            gateway: free_address(8800)?,
            children: Vec::new(),
        })
    }

    /// Logs, certificate, images, configuration.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Both, with a log file each.
    pub(super) fn start(&mut self) -> Outcome<()> {
        let mut sidecar = self.command("ada2-sidecar");
        sidecar.args(["--engine", "builtin", "--gpu", "optional", "--listen", &self.sidecar, "--state-dir"]);
        sidecar.arg(self.dir.join("sidecar-state"));
        self.spawn("ada2-sidecar", sidecar)?;
        self.write_configuration()?;
        let gateway = self.gateway_command();
        self.spawn("gateway", gateway)
    }

    /// `gateway verify --generate`: checks everything, including an image.
    pub(super) fn verify(&self) -> Outcome<Output> {
        Ok(self.gateway_command().args(["verify", "--generate"]).output()?)
    }

    /// The first that has ended, as a message.
    pub(super) fn ended(&mut self) -> Option<String> {
        let mut all = self.children.iter_mut();
        all.find_map(|(name, child)| Some(format!("{name} ended with {}", child.try_wait().ok()??)))
    }

    /// As a service manager would: SIGTERM, so that both drain. After a Ctrl-C they have had their own.
    pub(super) fn stop(&mut self) {
        for (_, child) in self.children.iter().rev() {
            let _ = Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status();
        }
        let deadline = Instant::now() + STOP_TIME;
        for (_, child) in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                sleep(POLL);
            }
            let _ = child.kill();
        }
    }

    pub(super) fn what_to_try(&self) -> String {
        let Self { dir, token, sidecar, gateway, binaries, .. } = self;
        let (dir, binaries) = (dir.display(), binaries.display());
        let authority = format!("{dir}/gateway-data/gateway-ca.pem");
        format!(
            "
Token: {token}

Try:
  curl http://{sidecar}/healthz
  curl 'http://{sidecar}/readyz?verbose'
  curl http://{sidecar}/v1/images/generations -H 'Content-Type: application/json' \\
       -d '{{\"model\":\"sd-xl-base-1.0\",\"prompt\":\"test\",\"size\":\"512x512\",\"response_format\":\"url\"}}'
  curl --cacert {authority} https://{gateway}/v1/images/generations -H 'Authorization: Bearer {token}' \\
       -H 'Content-Type: application/json' -d '{{\"prompt\":\"a red cat\",\"size\":\"512x512\"}}'
  {binaries}/gateway status --env-file {dir}/gateway.env

Images, logs, certificates and configuration are in {dir}. Ctrl-C stops both."
        )
    }

    /// The gateway's configuration as an installation has it, with the one backend that runs here.
    fn write_configuration(&self) -> Outcome<()> {
        let Self { token, sidecar, .. } = self;
        let (host, port) = self.gateway.rsplit_once(':').ok_or("an address has a port")?;
        let data = self.dir.join("gateway-data");
        let data = data.display();
        let env = format!(
            "GATEWAY_HOST={host}\nGATEWAY_PORT={port}\nGATEWAY_BEARER_TOKEN={token}\nGATEWAY_DATA_DIR='{data}'\n\
             UI_IMAGE_DIR='{data}/ui_images'\n"
        );
        let backends = format!(
            "backends:\n  gpu_heavy:\n    base_url: http://{sidecar}\n    supported_capabilities: [images]\n    \
             concurrency_limits: {{images: 2}}\n    health: {{liveness: /healthz, readiness: /readyz}}\n"
        );
        let path = self.dir.join("gateway.env");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(env.as_bytes())?;
        fs::write(self.dir.join("backends_config.yaml"), backends)?;
        Ok(())
    }

    fn gateway_command(&self) -> Command {
        let mut command = self.command("gateway");
        command.arg("--env-file").arg(self.dir.join("gateway.env"));
        command
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        for (name, _) in std::env::vars_os() {
            if PREFIXES.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> Outcome<()> {
        let log = File::create(self.dir.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.children.push((name, command.spawn()?));
        Ok(())
    }
}

/// The documented port on loopback, or a free one if it is taken.
fn free_address(port: u16) -> Outcome<String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    Ok(listener.local_addr()?.to_string())
}

fn new_token() -> Outcome<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("quickstart-{:032x}", u128::from_ne_bytes(bytes)))
}
