//! A log that cannot be written loses lines and nothing else.

use std::{io::BufReader, os::unix::fs::PermissionsExt};

use crate::running::{Running, TOKEN, gateway, on_port, stderr, temp_dir};

/// The value of a metric.
fn metric(scrape: &str, name: &str) -> u64 {
    let value = scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    assert!(value.is_some(), "{name} in {scrape}");
    value.unwrap().trim().parse().unwrap()
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nAuthorization: Bearer process-token-0123";

#[test]
fn a_full_log_disk_loses_lines_and_nothing_else() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full");
        return;
    }
    let dir = temp_dir("full");
    // The port cannot be read from the log, so it is chosen here.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let port = address.rsplit(':').next().unwrap();
    let mut command = on_port(port, &dir, &["--gateway-log-file", "/dev/full"]);
    let mut child = command.env("GATEWAY_BEARER_TOKEN", TOKEN).spawn().unwrap();
    let log = stderr(&mut child);
    let running = Running { child, first_lines: String::new(), log, address };
    running.until_it_listens();
    assert!(running.request("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200 OK"));
    let dropped = metric(&running.request(SCRAPE), "gateway_log_lines_dropped_total");
    assert!(dropped >= 2, "the start and a request: {dropped}");
    running.signal("-TERM");
    assert_eq!(running.end(), (Some(0), String::new()), "nothing is printed elsewhere");
}

#[test]
fn a_closed_standard_error_loses_lines_and_nothing_else() {
    let dir = temp_dir("unread");
    let mut running = Running::start(gateway(&dir, &[]));
    // The other end of its standard error is closed.
    running.log = BufReader::new(Box::new(std::io::empty()));
    for _ in 0..2 {
        assert!(running.request("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200 OK"));
    }
    let dropped = metric(&running.request(SCRAPE), "gateway_log_lines_dropped_total");
    assert!(dropped >= 2, "{dropped}");
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(0));
}

#[test]
fn a_renamed_log_is_reopened_without_a_signal_and_on_sighup() {
    let dir = temp_dir("rotated");
    let log = dir.join("gateway.log");
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    let path = log.display().to_string();
    let mut command = gateway(&dir, &["--gateway-log-file", &path, "--gateway-log-format", "json"]);
    let mut child = command.env("GATEWAY_BEARER_TOKEN", TOKEN).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let address = loop {
        let printed = lines();
        if let Some((_, rest)) = printed.split_once("http://127.0.0.1:") {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            break format!("127.0.0.1:{port}");
        }
        assert!(std::time::Instant::now() < deadline, "{printed}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let errors = stderr(&mut child);
    let running = Running { child, first_lines: String::new(), log: errors, address };
    std::fs::rename(&log, dir.join("gateway.log.0")).unwrap();
    // It is reopened even if nothing is written.
    while !log.exists() {
        assert!(std::time::Instant::now() < deadline, "the log is not reopened");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::rename(&log, dir.join("gateway.log.1")).unwrap();
    running.request("GET /before HTTP/1.1");
    assert!(lines().contains("/before"), "with the next line at the latest: {}", lines());
    let mode = std::fs::metadata(&log).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640, "readable by the group despite the umask");
    running.signal("-HUP");
    while !lines().contains("configuration reloaded") {
        assert!(std::time::Instant::now() < deadline, "{}", lines());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    running.request("GET /v1/images/none HTTP/1.1");
    running.signal("-TERM");
    assert_eq!(running.end().0, Some(0));
    let (old, new) = (std::fs::read_to_string(dir.join("gateway.log.0")).unwrap(), lines());
    assert!(!old.contains("/before") && new.contains("/before"), "{new}");
    let line = new.lines().find(|line| line.contains("/v1/images/none")).expect("found by its path");
    for part in [
        "\"request_id\":\"",
        "\"client\":\"127.0.0.1\"",
        "\"method\":\"GET\"",
        "\"status\":401",
        "\"bytes\":",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}
