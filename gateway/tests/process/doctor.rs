//! `gateway doctor` with good and faulty setups: each fault is reported once, with its fix, and nothing else is.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use fakes::upstream::{Upstream, UpstreamReply};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;

use crate::running::{run, temp_dir, text};

/// A setup: its own files, a fake sidecar, and a gateway once started.
struct Setup {
    dir: PathBuf,
    upstream: Upstream,
    env: Vec<String>,
    backends: String,
    gateway: Option<Started>,
}

struct Started {
    child: Child,
    url: String,
    /// Kept open, as the gateway goes on writing.
    _log: BufReader<std::process::ChildStderr>,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn report(checks: &Value) -> Value {
    let fails = checks.as_array().unwrap().iter().any(|check| check["status"] == "fail");
    json!({
        "status": if fails { "not_ready" } else { "ready" }, "checks": checks, "since": 1, "sampled_at": 1.0,
        "engine": {"kind": "invokeai", "version": "6.9.0", "queue_depth": 0, "models": 2},
    })
}

impl Setup {
    /// A good one, not started.
    async fn new(name: &str) -> Self {
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
            format!("UI_IMAGE_DIR={}", dir.join("pictures").display()),
            format!("GATEWAY_DATA_DIR={}", dir.display()),
        ];
        Self { dir, upstream, env, backends, gateway: None }
    }

    /// With this line in place of one with the same key.
    fn with(mut self, line: &str) -> Self {
        let (key, _) = line.split_once('=').unwrap();
        self.env.retain(|known| !known.starts_with(&format!("{key}=")));
        self.env.push(line.to_owned());
        self
    }

    fn with_backends(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.backends = change(&self.backends);
        self
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn write(&self) {
        let env = self.dir.join(".env");
        fs::write(&env, self.env.join("\n") + "\n").unwrap();
        fs::set_permissions(env, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(self.dir.join("backends_config.yaml"), &self.backends).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.env_clear().args(["--env-file", &self.path(".env")]);
        command
    }

    /// Writes the files and starts the gateway with them.
    fn started(mut self) -> Self {
        self.write();
        let mut child = self.command().stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let url = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it listened");
            if let Some((_, behind)) = line.split_once(" listen=\"") {
                break behind.split('"').next().unwrap().replace("0.0.0.0", "127.0.0.1");
            }
        };
        self.gateway = Some(Started { child, url, _log: log });
        self
    }

    /// The doctor's exit code and findings.
    fn doctor(&self, more: &[&str]) -> (Option<i32>, Vec<Value>) {
        let mut command = self.command();
        command.args(["doctor", "--json"]).args(more);
        command.args(self.gateway.iter().flat_map(|gateway| ["--url", gateway.url.as_str()]));
        let output = run(command);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert!(report.is_object(), "{}", text(&output.stderr));
        (output.status.code(), report["checks"].as_array().unwrap().clone())
    }

    /// Asserts that this is the only problem.
    fn only(&self, status: &str, name: &str, message: &str, fix: &str) {
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

/// Findings with a fix, except that the test machine's disk is nearly full.
fn problems(checks: &[Value]) -> impl Iterator<Item = &Value> {
    checks.iter().filter(|check| {
        check["name"] != "disk" && ["warn", "fail"].contains(&check["status"].as_str().unwrap())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_setup_has_no_problems() {
    let setup = Setup::new("sound").await.started();
    setup.upstream.set_images(UpstreamReply::Hold);
    let (code, checks) = std::thread::scope(|scope| {
        let overload = scope.spawn(|| setup.doctor(&["--overload"]));
        tokio::task::block_in_place(|| Handle::current().block_on(setup.upstream.until_held(2)));
        setup.upstream.release();
        overload.join().unwrap()
    });
    assert_eq!((code, problems(&checks).count()), (Some(0), 0), "{checks:#?}");
    let names: Vec<_> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    for name in [
        "configuration",
        "secret_files",
        "tokens",
        "listener",
        "store",
        "data_dir",
        "log",
        "port",
        "version",
        "reload",
        "answers",
        "certificate",
        "backend",
        "clock",
        "sidecar_version",
        "overload",
    ] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
    let (code, checks) = setup.doctor(&["--generate"]);
    assert_eq!((code, problems(&checks).count()), (Some(0), 0), "{checks:#?}");
    assert!(checks.iter().any(|check| check["name"] == "generate" && check["status"] == "ok"), "{checks:#?}");
    let mut lines = setup.command();
    lines.args(["doctor", "--url", &setup.gateway.as_ref().unwrap().url]);
    let lines = text(&run(lines).stdout);
    assert!(lines.contains("ok    port               a gateway answers at https://127.0.0.1:"), "{lines}");
    assert!(lines.lines().last().unwrap().ends_with("0 skipped"), "{lines}");
    assert!(!lines.contains("0123456789abcdef"), "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_configuration() {
    let open = Setup::new("open").await.started();
    fs::set_permissions(open.dir.join(".env"), fs::Permissions::from_mode(0o644)).unwrap();
    open.only(
        "warn",
        "secret_files",
        "can be read by everybody",
        &format!("sudo chmod 600 {}", open.path(".env")),
    );
    let file = Setup::new("token-file").await.with("GATEWAY_BEARER_TOKENS_FILE=x");
    let path = file.path("tokens");
    fs::write(&path, "alice=0123456789abcdefg\n").unwrap();
    let mut file = file.with(&format!("GATEWAY_BEARER_TOKENS_FILE={path}"));
    file.env.retain(|line| !line.starts_with("GATEWAY_BEARER_TOKEN="));
    file.started().only(
        "warn",
        "secret_files",
        "GATEWAY_BEARER_TOKENS_FILE",
        &format!("sudo chmod 600 {path}"),
    );
    for (name, line, check, message, fix) in [
        ("spelling", "GATEWAY_PROT=1", "spelling", "did you mean GATEWAY_PORT?", "rename GATEWAY_PROT in "),
        ("short", "GATEWAY_BEARER_TOKEN=short", "tokens", "shorter than 16 characters", "gateway token new"),
        ("mock", "IMAGES_BACKEND=mock", "images", "placeholder", "IMAGES_BACKEND=http_openai_images"),
        ("slow", "IMAGES_HTTP_TIMEOUT_SEC=400", "limits", "400 s", "IMAGES_HTTP_TIMEOUT_SEC=280"),
        ("allowlist", "IP_ALLOWLIST=192.0.2.0/24", "listener", "excludes 127.0.0.1", "IP_ALLOWLIST"),
        (
            "legacy",
            "GATEWAY_LEGACY_UPSTREAM=http://127.0.0.1:9",
            "legacy_upstream",
            "127.0.0.1:9",
            "GATEWAY_LEGACY_UPSTREAM",
        ),
        ("plain", "GATEWAY_TLS=off", "", "", ""),
    ] {
        let setup = Setup::new(name).await.with(line).started();
        if check.is_empty() {
            assert_eq!(problems(&setup.doctor(&[]).1).count(), 0, "{line} is sound on loopback");
        } else {
            let status = if check == "legacy_upstream" { "fail" } else { "warn" };
            setup.only(status, check, message, fix);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_broken_or_changed_while_the_gateway_runs() {
    let mut setup = Setup::new("broken").await.started();
    setup.env.push("IMAGES_MAX_PIXELS=lots".to_owned());
    setup.write();
    setup.only(
        "fail",
        "configuration",
        "IMAGES_MAX_PIXELS: expected a number",
        "correct IMAGES_MAX_PIXELS in ",
    );
    setup.env.pop();
    setup.write();
    let env = fs::File::options().append(true).open(setup.dir.join(".env")).unwrap();
    env.set_modified(SystemTime::now() + Duration::from_mins(1)).unwrap();
    setup.only("warn", "reload", ".env was changed since", "gateway check-config && kill -HUP");
    let down = Setup::new("down-and-broken").await.with("GATEWAY_PORT=what");
    down.write();
    down.only("fail", "configuration", "GATEWAY_PORT", "gateway check-config");
    let missing = Setup::new("no-file").await;
    fs::remove_file(missing.dir.join(".env")).unwrap();
    missing.only("fail", "configuration", "--env-file", "gateway check-config");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_backend() {
    let down = Setup::new("down").await;
    down.upstream.stop().await;
    down.started().only(
        "fail",
        "backend",
        "nothing listens at http://127.0.0.1:",
        "systemctl status ada2-sidecar",
    );
    let not_ready = Setup::new("not-ready").await;
    let little = json!([{"name": "vram_headroom", "status": "fail", "message": "python (pid 7) holds 40000 MiB: stop it"}]);
    not_ready.upstream.set("/readyz", UpstreamReply::json(503, report(&little)));
    not_ready.started().only(
        "fail",
        "backend",
        "vram_headroom: python (pid 7) holds 40000 MiB",
        "/readyz?verbose'",
    );
    let warns = Setup::new("warns").await;
    let full = json!([{"name": "disk", "status": "warn", "message": "93 % full"}]);
    warns.upstream.set("/readyz", UpstreamReply::json(200, report(&full)));
    warns.started().only("warn", "backend_warning", "disk: 93 % full", "/readyz?verbose'");
    let few = Setup::new("few").await;
    let slots = json!([{"name": "slots", "status": "pass", "observed": "0 of 1 taken"}]);
    few.upstream.set("/readyz", UpstreamReply::json(200, report(&slots)));
    few.started().only("warn", "limits", "the sidecar accepts only 1 at once", "{images: 1}");
    let late = Setup::new("late").await;
    let past = UpstreamReply::Respond(
        200,
        vec![("date", "Tue, 01 Oct 2024 00:00:00 GMT".to_owned())],
        b"ok".to_vec(),
    );
    late.upstream.set("/healthz", past);
    late.started().only("warn", "clock", "behind this machine's", "timedatectl");
    let old = Setup::new("old").await;
    old.upstream.set(
        "/metrics",
        UpstreamReply::Respond(200, Vec::new(), b"ada2_sidecar_build_info{version=\"99.0.1\"} 1\n".to_vec()),
    );
    old.started().only("warn", "sidecar_version", "99.0.1", "upgrade the older one");
    let nowhere = Setup::new("nowhere").await.with_backends(|yaml| {
        let (before, behind) = yaml.split_once("http://127.0.0.1:").unwrap();
        format!("{before}http://ada2.invalid:{behind}")
    });
    nowhere.started().only("fail", "backend_address", "the name ada2.invalid does not resolve", "IP address");
    let wrong = Setup::new("wrong-path").await;
    wrong.upstream.set("/readyz", UpstreamReply::json(404, json!({"detail": "Not Found"})));
    wrong.started().only("warn", "probe_path", "the backend has no /readyz", "under `health`");
    let stranger = Setup::new("stranger").await;
    for path in ["/healthz", "/readyz", "/v1/models", "/metrics"] {
        stranger
            .upstream
            .set(path, UpstreamReply::Respond(404, Vec::new(), b"<html>404 Not Found</html>".to_vec()));
    }
    let stranger = stranger.started();
    stranger.only("fail", "backend", "no sidecar answers at http://127.0.0.1:", "sudo ada2-sidecar doctor");
    let (_, checks) = stranger.doctor(&["--generate"]);
    let generate = checks.iter().find(|check| check["name"] == "generate").unwrap();
    assert_eq!(generate["status"], "skip", "{checks:#?}");
}

/// Writes a certificate for this name that expires in so many days.
fn pair(dir: &Path, name: &str, days: i64) {
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

async fn with_pair(name: &str, days: i64) -> Setup {
    let setup = Setup::new(name).await;
    pair(&setup.dir, "ai2.example.org", days);
    let [certificate, key] = ["cert.pem", "key.pem"].map(|file| setup.path(file));
    setup.with(&format!("GATEWAY_TLS_CERT_PATH={certificate}")).with(&format!("GATEWAY_TLS_KEY_PATH={key}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_certificate() {
    let sound = with_pair("pair", 300).await.started();
    assert_eq!(problems(&sound.doctor(&[]).1).count(), 0, "{:#?}", sound.doctor(&[]).1);
    with_pair("expired", -3).await.started().only("fail", "certificate", "expired on ", "renew it");
    with_pair("ends", 3).await.started().only("warn", "certificate", "expires on ", "renew it");
    let named = with_pair("named", 300).await.with("PUBLIC_BASE_URL=https://ai.example.org:8800");
    let named =
        named.with("TRUST_PROXY_CIDRS=192.0.2.1").with("GATEWAY_ALLOWED_HOSTS=ai.example.org").started();
    named.only("warn", "certificate", "clients use ai.example.org", "GATEWAY_TLS_CERT_PATH");
    let replaced = with_pair("replaced", 300).await.started();
    pair(&replaced.dir, "ai2.example.org", 301);
    replaced.only("warn", "certificate_shown", "another certificate", "kill -HUP");
    let mut moved = Setup::new("moved").await.started();
    let elsewhere = format!("GATEWAY_DATA_DIR={}", temp_dir("doctor-moved-to").display());
    moved = moved.with(&elsewhere);
    moved.write();
    moved.only("warn", "answers", "uses another GATEWAY_DATA_DIR or certificate", "gateway check-config");
    let lost = Setup::new("lost").await.started();
    fs::remove_file(lost.dir.join("gateway-ca-key.pem")).unwrap();
    lost.only(
        "warn",
        "certificate",
        "the local certificate authority cannot sign: gateway-ca-key.pem",
        "every client has to trust",
    );
    let readable = Setup::new("readable").await.started();
    let key = readable.dir.join("gateway-ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    readable.only("warn", "certificate", "gateway-ca-key.pem", "chmod 600");
}

/// A port that is taken without a listener.
fn refusing() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn causes_of_a_gateway_that_does_not_run() {
    let (_taken, port) = refusing();
    let stopped = async |name: &str| Setup::new(name).await.with(&format!("GATEWAY_PORT={port}"));
    let down = stopped("stopped").await;
    down.write();
    down.only("fail", "port", "nothing listens at https://127.0.0.1:", "gateway serve");
    let file = stopped("store-file").await;
    fs::write(file.dir.join("pictures"), "").unwrap();
    file.write();
    file.only("fail", "store", "is not a directory", "sudo mv ");
    let link = stopped("store-link").await;
    symlink("/not/mounted", link.dir.join("pictures")).unwrap();
    link.write();
    link.only(
        "fail",
        "store",
        "is a symbolic link to /not/mounted, which does not exist",
        "mount the disk with /not/mounted",
    );
    let log = stopped("log").await;
    let log = log.with("GATEWAY_LOG_FILE=/");
    log.write();
    log.only("fail", "log", "/ is not a file", "sudo mv");
    let first = Setup::new("first").await.started();
    let second = stopped("second").await.with(&format!("UI_IMAGE_DIR={}", first.path("pictures")));
    second.write();
    let holder = first.gateway.as_ref().unwrap().child.id();
    second.only(
        "warn",
        "port",
        &format!("process {holder} still runs with the previous settings"),
        &format!("gateway check-config, then: restart the gateway (process {holder})"),
    );
    let invalid = second.with("GATEWAY_PORT=what");
    invalid.write();
    invalid.only("fail", "configuration", "GATEWAY_PORT", "gateway check-config");
    let (_, checks) = invalid.doctor(&[]);
    assert!(checks.iter().all(|check| check["name"] != "port"), "{checks:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_held_by_another_program() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    std::thread::spawn(move || taken.incoming().for_each(drop));
    let setup = Setup::new("taken").await.with(&format!("GATEWAY_PORT={port}")).with("GATEWAY_TLS=off");
    setup.write();
    setup.only("fail", "port", &format!("http://127.0.0.1:{port} is held by "), "another GATEWAY_PORT");
    // An older gateway, or any other HTTP server.
    let other = Upstream::start().await;
    other.set("/healthz", UpstreamReply::json(200, json!({"status": "ok"})));
    let port = other.url.rsplit(':').next().unwrap();
    let setup = Setup::new("other").await.with(&format!("GATEWAY_PORT={port}")).with("GATEWAY_TLS=off");
    setup.write();
    setup.only("fail", "port", "not as a gateway does", "another GATEWAY_PORT");
}
