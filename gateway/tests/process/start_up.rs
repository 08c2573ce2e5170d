//! Signals that arrive while the program still starts.

use std::{
    fs,
    io::BufRead,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tokio::net::unix::pipe::{OpenOptions, Sender};

use super::running::{Running, TOKEN, gateway, stderr, temp_dir};

/// The program waits in the middle of its start: its env file is a pipe that nobody has written to.
async fn starting(dir: &Path) -> (Running, Sender) {
    let file = dir.join(".env");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut child = gateway(dir, &[]).env("GATEWAY_BEARER_TOKEN", TOKEN).spawn().unwrap();
    let log = stderr(&mut child);
    let starting = Running { child, first_lines: String::new(), log, address: String::new() };
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        // Succeeds as soon as somebody reads.
        match OpenOptions::new().open_sender(&file) {
            Ok(pipe) => return (starting, pipe),
            Err(error) => assert!(Instant::now() < deadline, "the env file is not read: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Gives the program an empty env file, now and for a reload.
fn go_on(dir: &Path, pipe: Sender) {
    fs::write(dir.join("env"), "").unwrap();
    fs::rename(dir.join("env"), dir.join(".env")).unwrap();
    drop(pipe);
}

#[tokio::test]
async fn sighup_during_the_start_reloads_after_it() {
    let dir = temp_dir("early-sighup");
    let (mut starting, pipe) = starting(&dir).await;
    starting.signal("-HUP");
    go_on(&dir, pipe);
    let mut line = String::new();
    while !line.contains("configuration reloaded") {
        line.clear();
        assert_ne!(starting.log.read_line(&mut line).unwrap(), 0, "the gateway exited");
    }
    starting.signal("-TERM");
    let (code, log) = starting.end();
    assert_eq!(code, Some(0), "{log}");
}

#[tokio::test]
async fn sigterm_during_the_start_ends_with_0() {
    let dir = temp_dir("early-sigterm");
    let (starting, pipe) = starting(&dir).await;
    starting.signal("-TERM");
    go_on(&dir, pipe);
    let (code, log) = starting.end();
    assert_eq!(code, Some(0), "{log}");
}
