//! The program as its supervisor sees it: exit codes, signals, what it prints.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ask;
mod bodies;
mod ca;
mod config_files;
mod descriptors;
mod doctor;
mod log;
mod running;
mod secrets;
mod upgrade;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use running::{Running, TOKEN, folder, gateway, run, text};

#[test]
fn a_sound_configuration_is_printed_without_its_secrets() {
    let folder = folder("sound");
    let mut command = gateway(&folder, &["check-config"]);
    command.env("GATEWAY_BEARER_TOKENS", "alice=0123456789abcdef");
    let output = run(command);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(printed.contains("GATEWAY_PORT: 0  # --gateway-port"), "{printed}");
    assert!(printed.contains("  gpu_heavy:\n    base_url: http://ada2:7860/"), "{printed}");
    assert!(!printed.contains("0123456789abcdef"), "{printed}");
    assert!(!folder.join("pictures").exists(), "checking touches nothing");
}

#[test]
fn every_problem_is_on_a_line_of_its_own_and_both_commands_exit_78() {
    let folder = folder("broken");
    for command in ["check-config", "serve"] {
        let output =
            run(gateway(&folder, &["--images-max-pixels", "lots", "--ip-allowlist", "nowhere", command]));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(said.contains(
            "--images-max-pixels: IMAGES_MAX_PIXELS: expected a number of pixels above 0, found \"lots\""
        ));
        assert!(said.contains("--ip-allowlist: IP_ALLOWLIST: expected"), "{said}");
        assert!(said.contains("GATEWAY_BEARER_TOKEN: expected a token"), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn version_and_help_are_for_people() {
    let folder = folder("help");
    let version = run(gateway(&folder, &["--version"]));
    assert!(text(&version.stdout).starts_with(concat!("gateway ", env!("CARGO_PKG_VERSION"))));
    let help = text(&run(gateway(&folder, &["--help"])).stdout);
    for part in ["check-config", "GATEWAY_BEARER_TOKEN", "Examples:", "--backends", "Exit codes"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let all = text(&run(gateway(&folder, &["--help-all"])).stdout);
    assert!(
        all.contains("--health-check-timeout-sec <SECONDS>") && !help.contains("--health-check"),
        "{all}"
    );
    assert!(text(&run(gateway(&folder, &["man"])).stdout).contains("\n.TH GATEWAY 8 "));
    let unknown = run(gateway(&folder, &["help", "verfy"]));
    assert_eq!(unknown.status.code(), Some(78));
    assert!(text(&unknown.stderr).contains("'verify'"), "{}", text(&unknown.stderr));
}

#[test]
fn it_serves_on_a_free_port_drains_on_sigterm_and_exits_0() {
    let folder = folder("serve");
    let running = Running::start(gateway(&folder, &[]));
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
    let mut made = Vec::new();
    stream.read_to_end(&mut made).unwrap();
    assert!(text(&made).contains("/ui/images/"), "{}", text(&made));
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
    let folder = folder("second");
    let first = Running::start(gateway(&folder, &[]));
    let mut second = gateway(&folder, &[]);
    second.env("GATEWAY_BEARER_TOKEN", TOKEN);
    let output = run(second);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("UI_IMAGE_DIR") && said.contains(&format!("process {}", first.child.id())),
        "{said}"
    );
    first.signal("-INT");
    assert_eq!(first.end().0, Some(0));
}

#[test]
fn a_store_that_cannot_be_written_exits_78_with_the_remedy() {
    let folder = folder("unwritable");
    std::fs::write(folder.join("file"), "").unwrap();
    let path = folder.join("file/pictures");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(folder.join(".env"));
    command.arg("--ui-image-dir").arg(&path).args(["--gateway-tls", "off", "--gateway-port", "0"]);
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in ["UI_IMAGE_DIR", &path.display().to_string(), "is owned by uid", "sudo chown"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn an_address_for_metrics_that_is_none_exits_78_and_one_that_is_taken_70() {
    let folder = folder("metrics");
    let listen = |address: &str| {
        let mut command = gateway(&folder, &["--gateway-metrics-listen", address]);
        command.env("GATEWAY_BEARER_TOKEN", TOKEN);
        let output = run(command);
        (output.status.code(), text(&output.stderr))
    };
    for bad in ["8801", "localhost", "127.0.0.1", ":8801"] {
        let (code, said) = listen(bad);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("GATEWAY_METRICS_LISTEN: expected an IP address with a port"), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = listen(&taken.local_addr().unwrap().to_string());
    assert_eq!(code, Some(70), "{said}");
    assert!(
        said.contains("cannot listen on 127.0.0.1:") && said.contains("GATEWAY_METRICS_LISTEN"),
        "{said}"
    );
}

#[test]
fn an_address_that_is_taken_exits_70_and_names_the_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = folder("taken");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(folder.join(".env"));
    command.arg("--ui-image-dir").arg(folder.join("pictures")).args([
        "--gateway-tls",
        "off",
        "--gateway-port",
        &port,
    ]);
    let output = run(command);
    assert_eq!(output.status.code(), Some(70));
    assert!(text(&output.stderr).contains("GATEWAY_PORT"), "{}", text(&output.stderr));
}
