//! A gateway with its own files and a fake sidecar, and what the doctor finds there.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use fakes::upstream::{Upstream, UpstreamReply};
use serde_json::{Value, json};

use crate::running::{run, temp_dir, text};

/// With a running gateway once started.
pub(super) struct Setup {
    pub(super) dir: PathBuf,
    pub(super) upstream: Upstream,
    pub(super) env: Vec<String>,
    backends: String,
    pub(super) gateway: Option<Started>,
}

pub(super) struct Started {
    pub(super) child: Child,
    pub(super) url: String,
    /// Must stay open: the gateway writes to it.
    _log: BufReader<std::process::ChildStderr>,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn report(checks: &Value) -> Value {
    let fails = checks.as_array().unwrap().iter().any(|check| check["status"] == "fail");
    json!({
        "status": if fails { "not_ready" } else { "ready" }, "checks": checks, "since": 1, "sampled_at": 1.0,
        "engine": {"kind": "invokeai", "version": "6.9.0", "queue_depth": 0, "models": 2},
    })
}

impl Setup {
    /// Without faults, not started.
    pub(super) async fn new(name: &str) -> Self {
        let dir = temp_dir(&format!("doctor-{name}"));
        let upstream = Upstream::start().await;
        let slots = json!([{"name": "slots", "status": "pass", "observed": "0 of 4 taken", "expected": ""}]);
        upstream.set("/readyz", UpstreamReply::json(200, report(&slots)));
        let version = format!("ada2_sidecar_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION"));
        upstream.set("/metrics", UpstreamReply::Respond(200, Vec::new(), version.into_bytes()));
        let backends = format!(
            "backends:\n  gpu_heavy:\n    base_url: {}\n    supported_capabilities: [images]\n    concurrency_limits: {{images: 2}}\n",
            upstream.url
        );
        let env = vec![
            "GATEWAY_BEARER_TOKEN=0123456789abcdef".to_owned(),
            "GATEWAY_PORT=0".to_owned(),
            format!("UI_IMAGE_DIR={}", dir.join("images").display()),
            format!("GATEWAY_DATA_DIR={}", dir.display()),
        ];
        Self { dir, upstream, env, backends, gateway: None }
    }

    /// Sets a line of the env file.
    pub(super) fn with(mut self, line: &str) -> Self {
        let (key, _) = line.split_once('=').unwrap();
        self.env.retain(|other| !other.starts_with(&format!("{key}=")));
        self.env.push(line.to_owned());
        self
    }

    pub(super) fn with_backends(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.backends = change(&self.backends);
        self
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub(super) fn write(&self) {
        let env = self.dir.join(".env");
        fs::write(&env, self.env.join("\n") + "\n").unwrap();
        fs::set_permissions(env, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.dir.join("backends_config.yaml"), &self.backends).unwrap();
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.env_clear().args(["--env-file", &self.path(".env")]);
        command
    }

    /// Writes the files and starts the gateway with them.
    pub(super) fn started(mut self) -> Self {
        self.write();
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it listened");
            if let Some((_, rest)) = line.split_once(" listen=\"") {
                break rest.split('"').next().unwrap().replace("0.0.0.0", "127.0.0.1");
            }
        };
        self.gateway = Some(Started { child, url, _log: log });
        self
    }

    /// The doctor's exit code and findings.
    pub(super) fn doctor(&self, more: &[&str]) -> (Option<i32>, Vec<Value>) {
        let mut command = self.command();
        command.args(["doctor", "--json"]).args(more);
        command.args(self.gateway.iter().flat_map(|gateway| ["--url", gateway.url.as_str()]));
        let output = run(command);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(report.is_object(), "{}", text(&output.stderr));
        (output.status.code(), report["checks"].as_array().unwrap().clone())
    }

    /// Asserts that this is the only problem.
    pub(super) fn assert_only(&self, status: &str, name: &str, message: &str, fix: &str) {
        let (code, checks) = self.doctor(&[]);
        let problems: Vec<_> = problems(&checks).collect();
        assert_eq!(problems.len(), 1, "{name}: {problems:#?}");
        let finding = problems[0];
        assert_eq!(
            (finding["name"].as_str(), finding["status"].as_str()),
            (Some(name), Some(status)),
            "{finding:#}"
        );
        assert!(finding["message"].as_str().unwrap().contains(message), "{finding:#}");
        assert!(finding["fix"].as_str().unwrap().contains(fix), "{finding:#}");
        assert_eq!(code, Some(i32::from(status == "fail")), "{finding:#}");
    }
}

/// Findings with a fix. The test machine's disk may be nearly full.
pub(super) fn problems(checks: &[Value]) -> impl Iterator<Item = &Value> {
    checks.iter().filter(|check| {
        check["name"] != "disk" && ["warn", "fail"].contains(&check["status"].as_str().unwrap())
    })
}

/// Writes a certificate for this name that expires in so many days.
pub(super) fn write_pair(dir: &Path, name: &str, days: i64) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let day = |days: i64| {
        let seconds = i64::try_from(now).unwrap() + days * 86_400;
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap())
    };
    (params.not_before, params.not_after) = (day(-900), day(days));
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let path = dir.join("key.pem");
    fs::write(&path, key.serialize_pem()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(super) async fn with_pair(name: &str, days: i64) -> Setup {
    let setup = Setup::new(name).await;
    write_pair(&setup.dir, "ai2.example.org", days);
    let [certificate, key] = ["cert.pem", "key.pem"].map(|file| setup.path(file));
    setup.with(&format!("GATEWAY_TLS_CERT_PATH={certificate}")).with(&format!("GATEWAY_TLS_KEY_PATH={key}"))
}
