//! The program as a process: exit codes, signals, output.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ca;
mod config_files;
mod doctor;
mod limits;
mod log;
mod query;
mod running;
mod secrets;
mod start_up;
mod upgrade;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use running::{Running, TOKEN, gateway, run, temp_dir, text};

#[test]
fn a_valid_configuration_is_printed_without_secrets() {
    let dir = temp_dir("valid");
    let mut command = gateway(&dir, &["check-config"]);
    command.env("GATEWAY_BEARER_TOKENS", "alice=0123456789abcdef");
    let output = run(command);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(printed.contains("GATEWAY_PORT: 0  # --gateway-port"), "{printed}");
    assert!(printed.contains("  gpu_heavy:\n    base_url: http://ada2:7860/"), "{printed}");
    assert!(!printed.contains("0123456789abcdef"), "{printed}");
    assert!(!dir.join("images").exists(), "the check creates nothing");
}

#[test]
fn every_problem_has_its_own_line_and_both_commands_exit_78() {
    let dir = temp_dir("broken");
    for command in ["check-config", "serve"] {
        let output =
            run(gateway(&dir, &["--images-max-pixels", "lots", "--ip-allowlist", "nowhere", command]));
        let printed = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{printed}");
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines.len(), 3, "{printed}");
        assert!(printed.contains(
            "--images-max-pixels: IMAGES_MAX_PIXELS: expected a number of pixels above 0, found \"lots\""
        ));
        assert!(printed.contains("--ip-allowlist: IP_ALLOWLIST: expected"), "{printed}");
        assert!(printed.contains("GATEWAY_BEARER_TOKEN: expected a token"), "{printed}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn version_help_and_man_page_are_printed() {
    let dir = temp_dir("help");
    let version = run(gateway(&dir, &["--version"]));
    assert!(text(&version.stdout).starts_with(concat!("gateway ", env!("CARGO_PKG_VERSION"))));
    let help = text(&run(gateway(&dir, &["--help"])).stdout);
    for part in ["check-config", "GATEWAY_BEARER_TOKEN", "Examples:", "--backends", "Exit codes"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let all = text(&run(gateway(&dir, &["--help-all"])).stdout);
    assert!(
        all.contains("--health-check-timeout-sec <SECONDS>") && !help.contains("--health-check"),
        "{all}"
    );
    assert!(text(&run(gateway(&dir, &["man"])).stdout).contains("\n.TH GATEWAY 8 "));
    let unknown = run(gateway(&dir, &["help", "verfy"]));
    assert_eq!(unknown.status.code(), Some(78));
    assert!(text(&unknown.stderr).contains("'verify'"), "{}", text(&unknown.stderr));
}

#[test]
fn it_serves_on_a_free_port_drains_on_sigterm_and_exits_0() {
    let dir = temp_dir("serve");
    let running = Running::start(gateway(&dir, &[]));
    assert!(running.request("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200 OK"));
    let refused = running.request("GET /v1/models HTTP/1.1");
    assert!(refused.starts_with("HTTP/1.1 401 Unauthorized"), "{refused}");
    let body = r#"{"prompt":"a red cat","size":"64x64"}"#;
    let length = body.len();
    let mut stream = TcpStream::connect(&running.address).unwrap();
    write!(
        stream,
        "POST /v1/images/generations HTTP/1.1\r\nHost: ai2\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).unwrap();
    assert!(text(&response).contains("/ui/images/"), "{}", text(&response));
    let address = running.address.clone();
    running.signal("-TERM");
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(TcpStream::connect(address).is_err());
    let line = log.lines().find(|line| line.contains("/v1/images/generations")).expect("the access log");
    for part in [
        "request",
        "request_id=\"",
        "caller=\"token\"",
        "client=127.0.0.1",
        "method=POST",
        "route_kind=\"images\"",
        "backend=\"mock\"",
        "model=\"default\"",
        "reason=\"backend_class\"",
        "status=200",
        "bytes=",
        "ms=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_second_process_on_the_same_store_exits_78_and_names_the_first() {
    let dir = temp_dir("second");
    let first = Running::start(gateway(&dir, &[]));
    let mut second = gateway(&dir, &[]);
    second.env("GATEWAY_BEARER_TOKEN", TOKEN);
    let output = run(second);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(
        printed.contains("UI_IMAGE_DIR") && printed.contains(&format!("process {}", first.child.id())),
        "{printed}"
    );
    first.signal("-INT");
    assert_eq!(first.end().0, Some(0));
}

#[test]
fn an_unwritable_store_exits_78_with_the_fix() {
    let dir = temp_dir("unwritable");
    std::fs::write(dir.join("file"), "").unwrap();
    let path = dir.join("file/images");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(dir.join(".env"));
    command.arg("--ui-image-dir").arg(&path).args(["--gateway-tls", "off", "--gateway-port", "0"]);
    let output = run(command);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    for part in ["UI_IMAGE_DIR", &path.display().to_string(), "is owned by uid", "sudo chown"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
}

#[test]
fn an_invalid_metrics_address_exits_78_and_one_in_use_70() {
    let dir = temp_dir("metrics");
    let listen = |address: &str| {
        let mut command = gateway(&dir, &["--gateway-metrics-listen", address]);
        command.env("GATEWAY_BEARER_TOKEN", TOKEN);
        let output = run(command);
        (output.status.code(), text(&output.stderr))
    };
    for address in ["8801", "localhost", "127.0.0.1", ":8801"] {
        let (code, printed) = listen(address);
        assert_eq!(code, Some(78), "{printed}");
        assert!(printed.contains("GATEWAY_METRICS_LISTEN: expected an IP address with a port"), "{printed}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, printed) = listen(&taken.local_addr().unwrap().to_string());
    assert_eq!(code, Some(70), "{printed}");
    assert!(
        printed.contains("cannot listen on 127.0.0.1:") && printed.contains("GATEWAY_METRICS_LISTEN"),
        "{printed}"
    );
}

#[test]
fn an_address_in_use_exits_70_and_names_the_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = temp_dir("taken");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(dir.join(".env"));
    command.arg("--ui-image-dir").arg(dir.join("images")).args([
        "--gateway-tls",
        "off",
        "--gateway-port",
        &port,
    ]);
    let output = run(command);
    assert_eq!(output.status.code(), Some(70));
    assert!(text(&output.stderr).contains("GATEWAY_PORT"), "{}", text(&output.stderr));
}
