//! The commands that query a running gateway, and `token new`.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Barrier},
};

use picture::painter::ProceduralImage;
use wire::openai::images::ImageSize;

use crate::running::{Running, TOKEN, gateway, run, temp_dir, text};

fn query(running: &Running, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().args(arguments).args([
        "--url",
        &format!("http://{}", running.address),
        "--token",
        TOKEN,
    ]);
    run(command)
}

#[test]
fn a_new_token_needs_no_configuration_and_its_printed_line_is_valid() {
    let dir = temp_dir("token");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().args(["token", "new", "alice", "--env-file", "/nowhere/.env"]);
    let output = run(command);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line =
        printed.lines().map(str::trim).find(|line| line.starts_with("GATEWAY_BEARER_TOKENS=")).unwrap();
    let token = line.rsplit('=').next().unwrap();
    std::fs::write(dir.join(".env"), format!("{line}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_HOST", "0.0.0.0").args(["token", "new", "phone", "--qr"]);
    let code = text(&run(command).stdout);
    assert!(code.contains("GATEWAY_BEARER_TOKENS=phone=gw_") && code.contains('\u{2584}'), "{code}");
    assert!(!code.contains('\u{1b}'), "no colours without a terminal");
    assert!(code.contains(":8800/ui#token=gw_"), "{code}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().args(["token", "new", "phone", "--qr"]);
    let here = text(&run(command).stdout);
    assert!(
        here.contains("https://localhost:8800/ui#token=gw_") && here.contains("GATEWAY_HOST=0.0.0.0"),
        "{here}"
    );
    assert!(!here.contains('\u{2584}'), "no phone reaches a loopback address: {here}");
    let running = Running::start_with(gateway(&dir, &[]), None);
    let answer = running.request(&format!("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {token}"));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    running.signal("-TERM");
    let (_, log) = running.end();
    assert!(log.contains("caller=\"alice\"") && !log.contains(token), "{log}");
    for name in ["Alice", "", "a b"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.env_clear().args(["token", "new", name]);
        let output = run(command);
        assert_eq!(output.status.code(), Some(70), "{name}");
        assert!(text(&output.stderr).contains("cannot name a token") && output.stdout.is_empty());
    }
}

#[test]
fn a_token_file_is_read_again_on_sighup() {
    let dir = temp_dir("token-file");
    let file = dir.join("tokens");
    std::fs::write(&file, format!("alice=0123456789abcdef\nbob={TOKEN}\n")).unwrap();
    let mut command = gateway(&dir, &[]);
    command.env("GATEWAY_BEARER_TOKENS_FILE", &file);
    let running = Running::start_with(command, None);
    assert_eq!(query(&running, &["status"]).status.code(), Some(1), "the backends are down");
    std::fs::write(&file, "alice=0123456789abcdef").unwrap();
    running.signal("-HUP");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while query(&running, &["status"]).status.code() == Some(1) {
        assert!(std::time::Instant::now() < deadline);
    }
    let refused = query(&running, &["status"]);
    assert_eq!(refused.status.code(), Some(70));
    assert!(text(&refused.stderr).contains("rejects the token"), "{}", text(&refused.stderr));
    let mut empty = gateway(&dir, &["check-config"]);
    std::fs::write(&file, "\n").unwrap();
    empty.env("GATEWAY_BEARER_TOKENS_FILE", &file);
    let printed = run(empty);
    assert_eq!(printed.status.code(), Some(78));
    assert!(text(&printed.stderr).contains("found an empty value"), "{}", text(&printed.stderr));
}

/// A ready backend without models, which answers image requests in pairs.
fn slow_backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pair = Arc::new(Barrier::new(2));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pair = pair.clone();
            std::thread::spawn(move || serve(stream, &pair));
        }
    });
    format!("http://{address}")
}

fn serve(mut stream: TcpStream, pair: &Barrier) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = text(&head).to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; length]).unwrap();
    let body = if head.starts_with("post") {
        pair.wait();
        let png =
            ProceduralImage { label: "slow", prompt: "p", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        format!("{{\"data\":[{{\"b64_json\":\"{}\"}}]}}", base64_simd::STANDARD.encode_to_string(png))
    } else {
        "{\"object\":\"list\",\"data\":[]}".to_owned()
    };
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

#[test]
fn status_and_verify_report_by_text_and_exit_code() {
    let dir = temp_dir("verify");
    let url = slow_backend();
    std::fs::write(
        dir.join("backends_config.yaml"),
        format!(
            "backends:\n  gpu_heavy:\n    base_url: {url}\n    supported_capabilities: [images]\n    \
             concurrency_limits: {{images: 2}}\n  local_mlx:\n    base_url: {url}\n    \
             supported_capabilities: [chat]\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    let (env_file, image_dir) = (dir.join(".env"), dir.join("images"));
    command.env_clear().arg("--env-file").arg(env_file).arg("--ui-image-dir").arg(image_dir);
    command.args(["--gateway-tls", "off", "--gateway-port", "0"]).stderr(Stdio::piped());
    let running = Running::start(command);
    let status = query(&running, &["status"]);
    let table = text(&status.stdout);
    assert_eq!(status.status.code(), Some(0), "{table}{}", text(&status.stderr));
    assert!(table.contains("gpu_heavy  yes    ") && table.contains("images 0/2"), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");
    let verified = query(&running, &["verify", "--overload"]);
    let lines = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{lines}{}", text(&verified.stderr));
    for part in [
        "pass  no token         /v1/models answers 401",
        "pass  images backend   gpu_heavy is ready",
        "answers 400: Backend local_mlx does not support images",
        "pass  overload         of 3 concurrent requests, one was answered with 429, Retry-After: 5",
        "10 passed, 0 failed",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
    let address = running.address.clone();
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(0));
    let mut stopped = Command::new(env!("CARGO_BIN_EXE_gateway"));
    stopped.env_clear().args(["status", "--url", &format!("http://{address}"), "--token", TOKEN]);
    let stopped = run(stopped);
    assert_eq!(stopped.status.code(), Some(70));
    assert!(text(&stopped.stderr).contains("nothing listens there"), "{}", text(&stopped.stderr));
    let mut stopped = Command::new(env!("CARGO_BIN_EXE_gateway"));
    stopped.env_clear().args(["verify", "--url", &format!("http://{address}"), "--token", TOKEN]);
    let stopped = run(stopped);
    let lines = text(&stopped.stdout);
    assert_eq!((stopped.status.code(), lines.lines().count()), (Some(1), 2), "{lines}");
    assert!(lines.starts_with("FAIL  health           nothing listens there"), "{lines}");
    assert!(lines.ends_with("0 passed, 1 failed\n"), "{lines}");
}

#[test]
fn verify_has_an_image_made_and_names_failures() {
    let dir = temp_dir("verify-mock");
    let running = Running::start(gateway(&dir, &[]));
    let verified = query(&running, &["verify", "--generate"]);
    let lines = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{lines}");
    assert!(
        lines.contains("pass  generate         /ui/images/") && lines.contains("their SHA-256 in its name"),
        "{lines}"
    );
    running.signal("-TERM");
    let _ = running.end();
    let open = Running::start_with(gateway(&dir, &["--gateway-auth", "off"]), None);
    let verified = query(&open, &["verify"]);
    let lines = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{lines}");
    assert!(lines.contains("FAIL  no token         expected 401, found 200"), "{lines}");
}
