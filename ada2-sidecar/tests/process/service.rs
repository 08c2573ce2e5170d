//! Exit codes, signals, kill -9.

use std::time::Duration;

use fakes::invokeai::{FakeInvoke, ItemStatus};
use serde_json::json;

use crate::running::{Running, notification, run};

#[test]
fn a_broken_configuration_is_78_with_every_problem_on_its_own_line() {
    for subcommand in ["serve", "check-config"] {
        let output = run(&[subcommand, "--listen", "nowhere", "--max-n", "0", "--engine", "x"]);
        assert_eq!(output.status.code(), Some(78), "{subcommand}");
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(text.contains("--max-n: max_n: expected a whole number from 1 to 10, found \"0\""), "{text}");
    }
}

#[test]
fn a_flag_that_does_not_exist_is_78_with_the_nearest() {
    let output = run(&["--max-inflght", "3"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--max-inflight"));
}

#[test]
fn check_config_prints_what_is_in_force_and_changes_nothing() {
    let state = fakes::fresh_dir("check").join("not-made");
    let output =
        run(&["check-config", "--token", "hush-hush-hush", "--state-dir", &state.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("listen: \"0.0.0.0:7860\"  # default") && text.contains("[redacted]"), "{text}");
    assert!(!text.contains("hush") && !state.exists());
}

#[test]
fn help_and_version_are_complete() {
    let printed = |arguments: &[&str]| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = printed(&["--help"]);
    for part in ["--engine-url", "ADA2_ENGINE_URL", "check-config", "Examples:", "[default: 0.0.0.0:7860]"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    assert_eq!(printed(&["-h"]), help);
    assert_eq!(printed(&["help"]), help);
    assert_eq!(printed(&["help", "check-port"]), printed(&["check-port", "--help"]));
    assert!(printed(&["--help-all"]).contains("--log-filter <FILTER>") && !help.contains("--log-filter"));
    assert!(printed(&["man"]).contains("\n.TH ADA2-SIDECAR 8 "));
    let version = concat!("ada2-sidecar ", env!("CARGO_PKG_VERSION"));
    assert!(printed(&["--version"]).starts_with(version));
}

#[test]
fn a_command_that_does_not_exist_is_78_with_the_nearest() {
    for arguments in [["chek-config"].as_slice(), &["help", "chek-config"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(78));
        assert!(String::from_utf8(output.stderr).unwrap().contains("'check-config'"));
    }
}

#[test]
fn the_holder_of_an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let state = fakes::fresh_dir("taken").display().to_string();
    let output = run(&["--engine", "builtin", "--listen", &address, "--state-dir", &state]);
    assert_eq!(output.status.code(), Some(70));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("cannot listen on {address} (--listen)")), "{text}");
    let holder = format!("(pid {}", std::process::id());
    assert!(text.contains("the port is held by ") && text.contains(&holder), "{text}");
    assert!(text.contains("`sudo systemctl restart ada2-sidecar`"), "{text}");
    let output = run(&["check-port", "--listen", &address]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains(&holder), "{text}");
    drop(taken);
    assert_eq!(run(&["check-port", "--listen", &address]).status.code(), Some(0));
}

#[tokio::test]
async fn two_processes_never_share_an_identity() {
    let state = fakes::fresh_dir("shared");
    let first = Running::start(&state, &["--engine-url", "http://127.0.0.1:9"]);
    let output = run(&["--listen", "127.0.0.1:0", "--state-dir", &state.display().to_string()]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("(pid {})", first.child.id())) && text.contains("--state-dir"), "{text}");
}

#[tokio::test]
async fn sigterm_lets_the_running_request_finish_and_exits_0() {
    let sidecar = Running::start(&fakes::fresh_dir("term"), &["--engine", "builtin"]);
    sidecar.ready().await;
    let url = format!("{}/v1/images/generations", sidecar.url);
    let request = json!({"prompt": "a", "size": "64x64", "steps": 50});
    let (answer, ()) = tokio::join!(fakes::post(&url, &request), async {
        fakes::eventually("the job runs", async || sidecar.slots().await?.contains("1 of 4").then_some(()))
            .await;
        sidecar.signal("-TERM");
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    let (code, log) = sidecar.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("draining"), "{log}");
}

#[tokio::test]
async fn the_service_manager_is_notified_of_ready_status_watchdog_and_stopping() {
    let dir = fakes::fresh_dir("notify");
    let path = dir.join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let address = path.display().to_string();
    let environment = [("NOTIFY_SOCKET", address.as_str()), ("WATCHDOG_USEC", "300000")];
    let sidecar = Running::start_with(&dir.join("state"), &["--engine", "builtin"], &environment);
    notification(&socket, "READY=1").await;
    notification(&socket, "STATUS=ready").await;
    notification(&socket, "WATCHDOG=1").await;
    notification(&socket, "WATCHDOG=1").await;
    sidecar.signal("-TERM");
    notification(&socket, "STOPPING=1").await;
    assert_eq!(sidecar.end().await.0, Some(0));
}

#[tokio::test]
async fn a_second_signal_cancels_at_once_and_sighup_does_not_kill() {
    let sidecar = Running::start(&fakes::fresh_dir("twice"), &["--engine", "builtin"]);
    sidecar.ready().await;
    sidecar.signal("-HUP");
    sidecar.ready().await;
    let url = format!("{}/v1/images/generations", sidecar.url);
    let request = fakes::http().post(url).header("content-type", "application/json");
    let request =
        request.body(json!({"prompt": "a", "size": "64x64", "steps": 150, "n": 4}).to_string()).send();
    let (answer, ()) = tokio::join!(request, async {
        fakes::eventually("the job runs", async || sidecar.slots().await?.contains("1 of 4").then_some(()))
            .await;
        sidecar.signal("-TERM");
        fakes::eventually("it drains", async || {
            fakes::http().get(format!("{}/healthz", sidecar.url)).send().await.is_err().then_some(())
        })
        .await;
        sidecar.signal("-TERM");
    });
    assert!(answer.is_err(), "a 12 s job did not finish");
    assert_eq!(sidecar.end().await.0, Some(0));
}

#[tokio::test]
async fn after_kill_9_in_mid_job_the_next_start_cancels_the_orphan_and_nobody_elses_job() {
    let fake = FakeInvoke::start().await;
    fake.script(|script| script.hold = true);
    let (state, engine) = (fakes::fresh_dir("orphan"), fake.url());
    let flags = ["--engine", "invokeai", "--engine-url", &engine];
    let mut first = Running::start(&state, &flags);
    first.ready().await;
    let url = format!("{}/v1/images/generations", first.url);
    let request = fakes::http().post(url).header("content-type", "application/json");
    let request = request.body(json!({"prompt": "a", "size": "64x64"}).to_string()).send();
    let (answer, ()) = tokio::join!(request, async {
        fake.until(|items| items.iter().any(|item| item.status == ItemStatus::InProgress)).await;
        first.child.kill().expect("kill -9");
    });
    assert!(answer.is_err());
    let stranger = fake.foreign_job();
    assert_eq!(fake.items()[0].status, ItemStatus::InProgress, "the engine was not asked to cancel it");
    let second = Running::start(&state, &flags);
    second.ready().await;
    assert_eq!(fake.items()[0].status, ItemStatus::Canceled);
    fake.until(|items| items.iter().any(|item| item.id == stranger && item.status == ItemStatus::InProgress))
        .await;
}

#[tokio::test]
async fn when_descriptors_run_out_health_answers_and_nothing_spins() {
    let state = fakes::fresh_dir("descriptors");
    let sidecar = Running::start_limited(&state, &["--engine", "builtin"], 64);
    sidecar.ready().await;
    let address = sidecar.url.strip_prefix("http://").unwrap();
    let mut idle = Vec::new();
    for _ in 0..120 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..5 {
        let fresh = fakes::http().get(format!("{}/healthz", sidecar.url)).header("connection", "close");
        assert_eq!(fresh.send().await.unwrap().status(), 200);
    }
    let before = sidecar.processor_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = sidecar.processor_time().saturating_sub(before);
    assert!(spent < Duration::from_millis(500), "{spent:?} of a second");
}

/// The socket is passed as systemd does it: as descriptor 3, named by environment variables. It stays open while the service
/// is stopped.
#[tokio::test]
async fn a_socket_that_the_service_manager_holds_is_served_and_outlives_a_restart() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let start = |name: &str| {
        let state = fakes::fresh_dir(name).display().to_string();
        std::process::Command::new("sh")
            .args(["-c", "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null"])
            .arg(env!("CARGO_BIN_EXE_ada2-sidecar"))
            .args([
                "--engine",
                "builtin",
                "--gpu",
                "optional",
                "--listen",
                "203.0.113.1:1",
                "--state-dir",
                &state,
            ])
            .stdin(std::os::fd::OwnedFd::from(socket.try_clone().unwrap()))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut first = start("handed-1");
    let health = async || fakes::http().get(format!("{url}/healthz")).send().await.unwrap().status();
    assert_eq!(health().await, 200, "and --listen, which is not an address of this host, is not bound");
    first.kill().unwrap();
    first.wait().unwrap();
    // No service runs: the request waits in the socket and is not refused.
    let (answered, mut second) = tokio::join!(health(), async { start("handed-2") });
    assert_eq!(answered, 200);
    second.kill().unwrap();
    second.wait().unwrap();
}

const CANARY: &str = "c4nary-S3cret";

#[tokio::test]
async fn no_secret_is_printed_or_logged_whatever_is_wrong_with_it() {
    let dir = fakes::fresh_dir("secrets");
    let file = dir.join("config.yaml");
    std::fs::write(&file, "engine: builtin\n").unwrap();
    let path = file.display().to_string();
    let sidecar = Running::start_with(&dir.join("state"), &[], &[("ADA2_CONFIG", &path)]);
    sidecar.ready().await;
    let broken = [
        format!("engine: builtin\ntoken: \"{CANARY}\n"),
        format!("engine: builtin\ntoken: {CANARY}\u{fc}\nengine_url: http://me:{CANARY}@127.0.0.1:9090\n"),
        format!("engine: builtin\nallowed_origins: ['http://me:{CANARY}@ui/']\n"),
    ];
    for text in &broken {
        std::fs::write(&file, text).unwrap();
        let output = run(&["check-config", "--config", &path]);
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(78), "{printed}");
        assert!(!printed.contains(CANARY) && printed.contains("config.yaml: "), "{printed}");
        sidecar.signal("-HUP");
    }
    sidecar.ready().await;
    sidecar.signal("-TERM");
    let (code, log) = sidecar.end().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(CANARY), "{log}");
}

#[test]
fn a_token_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = crate::running::binary(&["check-config", "--engine", "builtin"]);
    command.env("ADA2_TOKEN", std::ffi::OsStr::from_bytes(b"schl\xfcssel"));
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "the service would be open: {printed}");
    assert!(printed.contains("environment ADA2_TOKEN: token: expected a token"), "{printed}");
}

#[test]
fn an_instance_file_that_is_a_link_is_an_error_and_its_target_stays_unchanged() {
    let state = fakes::fresh_dir("instance-link");
    let precious = state.join("precious");
    std::fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, state.join("instance")).unwrap();
    let state_dir = state.display().to_string();
    let mut child = crate::running::binary(&[
        "--engine",
        "builtin",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        &state_dir,
    ])
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    // A process that followed the link would serve for ever.
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{printed}");
    assert!(printed.contains("instance is a symbolic link to"), "{printed}");
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "precious");
}
