//! `gateway doctor`: each fault is reported once, with its fix, and nothing else is.

mod setup;

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{PermissionsExt, symlink},
    time::{Duration, SystemTime},
};

use fakes::upstream::{Upstream, UpstreamReply};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Handle;

use self::setup::{Setup, problems, report, with_pair, write_pair};
use crate::running::{run, temp_dir, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_setup_has_no_problems() {
    let setup = Setup::new("valid").await.started();
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
    open.assert_only(
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
    file.started().assert_only(
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
            assert_eq!(problems(&setup.doctor(&[]).1).count(), 0, "{line} is valid on loopback");
        } else {
            let status = if check == "legacy_upstream" { "fail" } else { "warn" };
            setup.assert_only(status, check, message, fix);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_broken_or_changed_while_the_gateway_runs() {
    let mut setup = Setup::new("broken").await.started();
    setup.env.push("IMAGES_MAX_PIXELS=lots".to_owned());
    setup.write();
    setup.assert_only(
        "fail",
        "configuration",
        "IMAGES_MAX_PIXELS: expected a number",
        "correct IMAGES_MAX_PIXELS in ",
    );
    setup.env.pop();
    setup.write();
    let env = fs::File::options().append(true).open(setup.dir.join(".env")).unwrap();
    env.set_modified(SystemTime::now() + Duration::from_mins(1)).unwrap();
    setup.assert_only("warn", "reload", ".env was changed since", "gateway check-config && kill -HUP");
    let down = Setup::new("down-and-broken").await.with("GATEWAY_PORT=what");
    down.write();
    down.assert_only("fail", "configuration", "GATEWAY_PORT", "gateway check-config");
    let missing = Setup::new("no-file").await;
    fs::remove_file(missing.dir.join(".env")).unwrap();
    missing.assert_only("fail", "configuration", "--env-file", "gateway check-config");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_backend() {
    let down = Setup::new("down").await;
    down.upstream.stop().await;
    down.started().assert_only(
        "fail",
        "backend",
        "nothing listens at http://127.0.0.1:",
        "systemctl status ada2-sidecar",
    );
    let not_ready = Setup::new("not-ready").await;
    let low_vram = json!([{"name": "vram_headroom", "status": "fail", "message": "python (pid 7) holds 40000 MiB: stop it"}]);
    not_ready.upstream.set("/readyz", UpstreamReply::json(503, report(&low_vram)));
    not_ready.started().assert_only(
        "fail",
        "backend",
        "vram_headroom: python (pid 7) holds 40000 MiB",
        "/readyz?verbose'",
    );
    let warns = Setup::new("warns").await;
    let full_disk = json!([{"name": "disk", "status": "warn", "message": "93 % full"}]);
    warns.upstream.set("/readyz", UpstreamReply::json(200, report(&full_disk)));
    warns.started().assert_only("warn", "backend_warning", "disk: 93 % full", "/readyz?verbose'");
    let few_slots = Setup::new("few").await;
    let slots = json!([{"name": "slots", "status": "pass", "observed": "0 of 1 taken"}]);
    few_slots.upstream.set("/readyz", UpstreamReply::json(200, report(&slots)));
    few_slots.started().assert_only("warn", "limits", "the sidecar accepts only 1 at once", "{images: 1}");
    let wrong_clock = Setup::new("late").await;
    let past = UpstreamReply::Respond(
        200,
        vec![("date", "Tue, 01 Oct 2024 00:00:00 GMT".to_owned())],
        b"ok".to_vec(),
    );
    wrong_clock.upstream.set("/healthz", past);
    wrong_clock.started().assert_only("warn", "clock", "behind this machine's", "timedatectl");
    let old = Setup::new("old").await;
    old.upstream.set(
        "/metrics",
        UpstreamReply::Respond(200, Vec::new(), b"ada2_sidecar_build_info{version=\"99.0.1\"} 1\n".to_vec()),
    );
    old.started().assert_only("warn", "sidecar_version", "99.0.1", "upgrade the older one");
    let unresolved = Setup::new("nowhere").await.with_backends(|yaml| {
        let (before, after) = yaml.split_once("http://127.0.0.1:").unwrap();
        format!("{before}http://ada2.invalid:{after}")
    });
    unresolved.started().assert_only(
        "fail",
        "backend_address",
        "the name ada2.invalid does not resolve",
        "IP address",
    );
    let wrong_path = Setup::new("wrong-path").await;
    wrong_path.upstream.set("/readyz", UpstreamReply::json(404, json!({"detail": "Not Found"})));
    wrong_path.started().assert_only("warn", "probe_path", "the backend has no /readyz", "under `health`");
    let other_program = Setup::new("stranger").await;
    for path in ["/healthz", "/readyz", "/v1/models", "/metrics"] {
        other_program
            .upstream
            .set(path, UpstreamReply::Respond(404, Vec::new(), b"<html>404 Not Found</html>".to_vec()));
    }
    let other_program = other_program.started();
    other_program.assert_only(
        "fail",
        "backend",
        "no sidecar answers at http://127.0.0.1:",
        "sudo ada2-sidecar doctor",
    );
    let (_, checks) = other_program.doctor(&["--generate"]);
    let generate = checks.iter().find(|check| check["name"] == "generate").unwrap();
    assert_eq!(generate["status"], "skip", "{checks:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_certificate() {
    let valid = with_pair("pair", 300).await.started();
    assert_eq!(problems(&valid.doctor(&[]).1).count(), 0, "{:#?}", valid.doctor(&[]).1);
    with_pair("expired", -3).await.started().assert_only("fail", "certificate", "expired on ", "renew it");
    with_pair("ends", 3).await.started().assert_only("warn", "certificate", "expires on ", "renew it");
    let named = with_pair("named", 300).await.with("PUBLIC_BASE_URL=https://ai.example.org:8800");
    let named =
        named.with("TRUST_PROXY_CIDRS=192.0.2.1").with("GATEWAY_ALLOWED_HOSTS=ai.example.org").started();
    named.assert_only("warn", "certificate", "clients use ai.example.org", "GATEWAY_TLS_CERT_PATH");
    let replaced = with_pair("replaced", 300).await.started();
    write_pair(&replaced.dir, "ai2.example.org", 301);
    replaced.assert_only("warn", "certificate_shown", "another certificate", "kill -HUP");
    let mut moved = Setup::new("moved").await.started();
    let elsewhere = format!("GATEWAY_DATA_DIR={}", temp_dir("doctor-moved-to").display());
    moved = moved.with(&elsewhere);
    moved.write();
    moved.assert_only(
        "warn",
        "answers",
        "uses another GATEWAY_DATA_DIR or certificate",
        "gateway check-config",
    );
    let lost = Setup::new("lost").await.started();
    fs::remove_file(lost.dir.join("gateway-ca-key.pem")).unwrap();
    lost.assert_only(
        "warn",
        "certificate",
        "the local certificate authority cannot sign: gateway-ca-key.pem",
        "every client has to trust",
    );
    let readable = Setup::new("readable").await.started();
    let key = readable.dir.join("gateway-ca-key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    readable.assert_only("warn", "certificate", "gateway-ca-key.pem", "chmod 600");
}

/// A port that refuses connections and stays taken.
fn refusing_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn causes_of_a_gateway_that_does_not_run() {
    let (_taken, port) = refusing_port();
    let stopped = async |name: &str| Setup::new(name).await.with(&format!("GATEWAY_PORT={port}"));
    let down = stopped("stopped").await;
    down.write();
    down.assert_only("fail", "port", "nothing listens at https://127.0.0.1:", "gateway serve");
    let file = stopped("store-file").await;
    fs::write(file.dir.join("images"), "").unwrap();
    file.write();
    file.assert_only("fail", "store", "is not a directory", "sudo mv ");
    let link = stopped("store-link").await;
    symlink("/not/mounted", link.dir.join("images")).unwrap();
    link.write();
    link.assert_only(
        "fail",
        "store",
        "is a symbolic link to /not/mounted, which does not exist",
        "mount the disk with /not/mounted",
    );
    let log = stopped("log").await;
    let log = log.with("GATEWAY_LOG_FILE=/");
    log.write();
    log.assert_only("fail", "log", "/ is not a file", "sudo mv");
    let first = Setup::new("first").await.started();
    let second = stopped("second").await.with(&format!("UI_IMAGE_DIR={}", first.path("images")));
    second.write();
    let holder = first.gateway.as_ref().unwrap().child.id();
    second.assert_only(
        "warn",
        "port",
        &format!("process {holder} still runs with the previous settings"),
        &format!("gateway check-config, then: restart the gateway (process {holder})"),
    );
    let invalid = second.with("GATEWAY_PORT=what");
    invalid.write();
    invalid.assert_only("fail", "configuration", "GATEWAY_PORT", "gateway check-config");
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
    setup.assert_only(
        "fail",
        "port",
        &format!("http://127.0.0.1:{port} is held by "),
        "another GATEWAY_PORT",
    );
    // An older gateway, or any other HTTP server.
    let other = Upstream::start().await;
    other.set("/healthz", UpstreamReply::json(200, json!({"status": "ok"})));
    let port = other.url.rsplit(':').next().unwrap();
    let setup = Setup::new("other").await.with(&format!("GATEWAY_PORT={port}")).with("GATEWAY_TLS=off");
    setup.write();
    setup.assert_only("fail", "port", "not as a gateway does", "another GATEWAY_PORT");
}
