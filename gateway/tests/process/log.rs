//! A log that cannot be written costs lines and nothing else.

use std::io::BufReader;

use crate::running::{Running, TOKEN, folder, gateway, on_port, stderr};

/// The value of a metric.
fn metric(scrape: &str, name: &str) -> u64 {
    let value = scrape.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    assert!(value.is_some(), "{name} in {scrape}");
    value.unwrap().trim().parse().unwrap()
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nAuthorization: Bearer process-token-0123";

#[test]
fn a_full_log_disk_costs_lines_and_nothing_else() {
    if !std::path::Path::new("/dev/full").exists() {
        println!("skipped: there is no /dev/full here");
        return;
    }
    let folder = folder("full");
    // The log cannot tell the port, so it is chosen here.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let port = address.rsplit(':').next().unwrap();
    let mut command = on_port(port, &folder, &["--gateway-log-file", "/dev/full"]);
    let mut child = command.env("GATEWAY_BEARER_TOKEN", TOKEN).spawn().unwrap();
    let log = stderr(&mut child);
    let running = Running { child, log, address };
    running.until_it_listens();
    assert!(running.request("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200 OK"));
    let dropped = metric(&running.request(SCRAPE), "gateway_log_lines_dropped_total");
    assert!(dropped >= 2, "the start and a request: {dropped}");
    running.signal("-TERM");
    assert_eq!(running.end(), (Some(0), String::new()), "nothing is printed elsewhere");
}

#[test]
fn a_log_that_nobody_reads_any_more_costs_lines_and_nothing_else() {
    let folder = folder("unread");
    let mut running = Running::start(gateway(&folder, &[]));
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
