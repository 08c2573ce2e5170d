//! The commands that ask a running gateway, and those that need none.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    sync::{Arc, Barrier},
};

use picture::painter::ProceduralImage;
use wire::openai::images::ImageSize;

use crate::running::{Running, TOKEN, folder, gateway, run, text};

fn ask(running: &Running, arguments: &[&str]) -> Output {
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
fn a_fresh_token_needs_no_configuration_and_the_printed_line_makes_it_one() {
    let folder = folder("token");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().args(["token", "new", "alice", "--env-file", "/nowhere/.env"]);
    let output = run(command);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = said.lines().map(str::trim).find(|line| line.starts_with("GATEWAY_BEARER_TOKENS=")).unwrap();
    let token = line.rsplit('=').next().unwrap();
    std::fs::write(folder.join(".env"), format!("{line}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().args(["token", "new", "phone", "--qr"]);
    let code = text(&run(command).stdout);
    assert!(code.contains("GATEWAY_BEARER_TOKENS=phone=gw_") && code.contains('\u{2584}'), "{code}");
    assert!(!code.contains('\u{1b}'), "no colours where no terminal is");
    let running = Running::start_with(gateway(&folder, &[]), None);
    let answer = running.request(&format!("GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {token}"));
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    running.signal("-TERM");
    let (_, log) = running.end();
    assert!(log.contains("caller=\"alice\"") && !log.contains(token), "{log}");
    for bad in ["Alice", "", "a b"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.env_clear().args(["token", "new", bad]);
        let output = run(command);
        assert_eq!(output.status.code(), Some(70), "{bad}");
        assert!(text(&output.stderr).contains("cannot name a token") && output.stdout.is_empty());
    }
}

#[test]
fn a_token_can_lie_in_a_file_and_is_read_again_on_sighup() {
    let folder = folder("token-file");
    let file = folder.join("tokens");
    std::fs::write(&file, format!("alice=0123456789abcdef\nbob={TOKEN}\n")).unwrap();
    let mut command = gateway(&folder, &[]);
    command.env("GATEWAY_BEARER_TOKENS_FILE", &file);
    let running = Running::start_with(command, None);
    assert_eq!(ask(&running, &["status"]).status.code(), Some(1), "the mock's backends are away");
    std::fs::write(&file, "alice=0123456789abcdef").unwrap();
    running.signal("-HUP");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while ask(&running, &["status"]).status.code() == Some(1) {
        assert!(std::time::Instant::now() < deadline);
    }
    let refused = ask(&running, &["status"]);
    assert_eq!(refused.status.code(), Some(70));
    assert!(text(&refused.stderr).contains("does not accept the token"), "{}", text(&refused.stderr));
    let mut empty = gateway(&folder, &["check-config"]);
    std::fs::write(&file, "\n").unwrap();
    empty.env("GATEWAY_BEARER_TOKENS_FILE", &file);
    let said = run(empty);
    assert_eq!(said.status.code(), Some(78));
    assert!(text(&said.stderr).contains("found an empty value"), "{}", text(&said.stderr));
}

/// A backend that is ready, lists nothing, and makes pictures once two were asked for.
fn slow_backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let two = Arc::new(Barrier::new(2));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let two = two.clone();
            std::thread::spawn(move || serve(stream, &two));
        }
    });
    format!("http://{address}")
}

fn serve(mut stream: TcpStream, two: &Barrier) {
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
        two.wait();
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
fn status_and_verify_tell_people_and_scripts_the_same() {
    let folder = folder("verify");
    let url = slow_backend();
    std::fs::write(
        folder.join("backends_config.yaml"),
        format!(
            "backends:\n  gpu_heavy:\n    base_url: {url}\n    supported_capabilities: [images]\n    \
             concurrency_limits: {{images: 2}}\n  local_mlx:\n    base_url: {url}\n    \
             supported_capabilities: [chat]\n"
        ),
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    let (env_file, pictures) = (folder.join(".env"), folder.join("pictures"));
    command.env_clear().arg("--env-file").arg(env_file).arg("--ui-image-dir").arg(pictures);
    command.args(["--gateway-tls", "off", "--gateway-port", "0"]).stderr(Stdio::piped());
    let running = Running::start(command);
    let status = ask(&running, &["status"]);
    let table = text(&status.stdout);
    assert_eq!(status.status.code(), Some(0), "{table}{}", text(&status.stderr));
    assert!(table.contains("gpu_heavy  yes    ") && table.contains("images 0/2"), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");
    let verified = ask(&running, &["verify", "--overload"]);
    let lines = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{lines}{}", text(&verified.stderr));
    for part in [
        "pass  no token         /v1/models answers 401",
        "pass  images backend   gpu_heavy is ready",
        "answers 400: Backend local_mlx does not support images",
        "pass  overload         of 3 at once one was answered 429, Retry-After: 5",
        "10 passed, 0 failed",
    ] {
        assert!(lines.contains(part), "{part} in {lines}");
    }
    let address = running.address.clone();
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(0));
    let mut away = Command::new(env!("CARGO_BIN_EXE_gateway"));
    away.env_clear().args(["status", "--url", &format!("http://{address}"), "--token", TOKEN]);
    let away = run(away);
    assert_eq!(away.status.code(), Some(70));
    assert!(text(&away.stderr).contains("nothing listens there"), "{}", text(&away.stderr));
    let mut away = Command::new(env!("CARGO_BIN_EXE_gateway"));
    away.env_clear().args(["verify", "--url", &format!("http://{address}"), "--token", TOKEN]);
    let away = run(away);
    let lines = text(&away.stdout);
    assert_eq!((away.status.code(), lines.lines().count()), (Some(1), 2), "{lines}");
    assert!(lines.starts_with("FAIL  health           nothing listens there"), "{lines}");
    assert!(lines.ends_with("0 passed, 1 failed\n"), "{lines}");
}

#[test]
fn verify_has_a_picture_made_and_names_what_fails() {
    let folder = folder("verify-mock");
    let running = Running::start(gateway(&folder, &[]));
    let verified = ask(&running, &["verify", "--generate"]);
    let lines = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(0), "{lines}");
    assert!(
        lines.contains("pass  generate         /ui/images/") && lines.contains("tells their SHA-256"),
        "{lines}"
    );
    running.signal("-TERM");
    let _ = running.end();
    let open = Running::start_with(gateway(&folder, &["--gateway-auth", "off"]), None);
    let verified = ask(&open, &["verify"]);
    let lines = text(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{lines}");
    assert!(lines.contains("FAIL  no token         expected 401, found 200"), "{lines}");
}
