//! No secret is printed, logged or returned, however malformed it is.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::running::{Running, TOKEN, gateway, run, temp_dir, text};

const CANARY: &str = "c4nary-S3cret";

fn command_in(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().arg("--env-file").arg(dir.join(".env")).args(arguments);
    command
}

/// Writes a configuration that is broken in every way that involves a secret.
fn write_broken_config(dir: &Path) {
    let key = dir.join("key.pem");
    std::fs::write(&key, format!("-----BEGIN PRIVATE KEY-----{CANARY}{CANARY}-----END PRIVATE KEY-----"))
        .unwrap();
    let key = key.display();
    let env = format!(
        "GATEWAY_BEARER_TOKEN={CANARY}\u{fc}\nGATEWAY_LEGACY_UPSTREAM=http://me:{CANARY}@old:1\n\
         GATEWAY_LEGACY_BEARER_TOKEN=\"{CANARY}\\tx\"\nIMAGES_HTTP_BASE_URL=http://me:{CANARY}@ada2\n\
         BACKEND_CLIENT_CERT={key}\nGATEWAY_TLS_CERT_PATH={key}\nGATEWAY_TLS_KEY_PATH={key}\n"
    );
    std::fs::write(dir.join(".env"), env).unwrap();
    let yaml = format!("backends:\n  a:\n    base_url: http://me:{CANARY}@a\n    token: \"{CANARY}\n");
    std::fs::write(dir.join("backends_config.yaml"), yaml).unwrap();
}

#[test]
fn a_broken_configuration_is_reported_without_its_secrets() {
    let dir = temp_dir("secrets");
    write_broken_config(&dir);
    for command in ["check-config", "serve", "status"] {
        let output = run(command_in(&dir, &[command]));
        let printed = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{printed}");
        assert!(!printed.contains(CANARY), "{printed}");
        for part in [
            "GATEWAY_BEARER_TOKEN: expected a token of printable ASCII",
            "GATEWAY_LEGACY_UPSTREAM: expected",
            "found \"http://[redacted]@old:1\"",
            "key.pem: its line breaks are missing: the whole file is one line",
            "backends_config.yaml: (the whole file): expected YAML: line ",
        ] {
            assert!(printed.contains(part), "{part} in {printed}");
        }
    }
}

#[test]
fn a_refused_reload_reveals_no_secret_in_log_or_status() {
    let dir = temp_dir("secrets-reload");
    let running = Running::start(gateway(&dir, &[]));
    write_broken_config(&dir);
    running.signal("-HUP");
    let deadline = Instant::now() + Duration::from_secs(20);
    let head = format!("GET /v1/gateway/status HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
    let status = loop {
        let status = running.request(&head);
        if status.contains("\"last_error\":\"") {
            break status;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.contains("[redacted]@old:1") && !status.contains(CANARY), "{status}");
    running.signal("-TERM");
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("configuration not reloaded") && !log.contains(CANARY), "{log}");
}

#[test]
fn a_key_in_place_of_its_path_and_a_token_in_place_of_its_variable_stay_secret_on_reload() {
    let dir = temp_dir("secrets-paths");
    let running = Running::start(gateway(&dir, &[]));
    let env = format!("GATEWAY_BEARER_TOKEN={TOKEN}\nBACKEND_CLIENT_CERT=MIGHAgEAMBMGByqGSM49{CANARY}\n");
    std::fs::write(dir.join(".env"), env).unwrap();
    let yaml = "backends:\n  a:\n    base_url: http://a\n    supported_capabilities: [images]\n    \
                auth: {bearer_env: HUSHTOKENVALUE}\n";
    std::fs::write(dir.join("backends_config.yaml"), yaml).unwrap();
    running.signal("-HUP");
    let deadline = Instant::now() + Duration::from_secs(20);
    let head = format!("GET /v1/gateway/status HTTP/1.1\r\nAuthorization: Bearer {TOKEN}");
    let status = loop {
        let status = running.request(&head);
        if status.contains("\"last_error\":\"") {
            break status;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(10));
    };
    running.signal("-TERM");
    let (_, log) = running.end();
    let checked = run(command_in(&dir, &["check-config"]));
    let checked = text(&checked.stdout) + &text(&checked.stderr);
    for printed in [&status, &log, &checked] {
        assert!(printed.contains("bearer_env: expected the name of a variable"), "{printed}");
        assert!(printed.contains("BACKEND_CLIENT_CERT: expected the path of a PEM file"), "{printed}");
        assert!(!printed.contains(CANARY) && !printed.contains("HUSHTOKENVALUE"), "{printed}");
    }
}

#[test]
fn a_token_that_is_not_utf8_is_invalid_not_missing() {
    use std::os::unix::ffi::OsStrExt;
    let dir = temp_dir("latin-1");
    let mut command = gateway(&dir, &["--gateway-auth", "off"]);
    command.env("GATEWAY_BEARER_TOKEN", std::ffi::OsStr::from_bytes(b"schl\xfcssel"));
    let output = run(command);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("GATEWAY_BEARER_TOKEN: expected a token of printable ASCII"), "{printed}");
}

#[test]
fn a_lock_that_is_a_symbolic_link_is_rejected_and_its_target_unchanged() {
    let dir = temp_dir("lock-link");
    std::fs::create_dir_all(dir.join("images")).unwrap();
    let precious = dir.join("precious");
    std::fs::write(&precious, "precious").unwrap();
    let link = dir.join("images/.lock");
    std::os::unix::fs::symlink(&precious, &link).unwrap();
    let mut command = gateway(&dir, &[]);
    command.env("GATEWAY_BEARER_TOKEN", TOKEN);
    let output = run(command);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(
        printed.contains(&format!("{} is a symbolic link to {}", link.display(), precious.display())),
        "{printed}"
    );
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "precious");
}
