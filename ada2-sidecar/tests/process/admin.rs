//! The administration socket: reloads with their result, and the addresses of the running service.

use std::process::Child;

use crate::running::{Running, binary, run, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reports_every_problem_and_fails() {
    let dir = fakes::fresh_dir("admin-reload");
    let (file, state) = (dir.join("config.yaml"), dir.join("state"));
    let (config, state_dir) = (file.display().to_string(), state.display().to_string());
    std::fs::write(&file, "max_n: 2\n").unwrap();
    let sidecar = Running::start(&state, &["--engine", "builtin", "--config", &config]);
    sidecar.ready().await;
    let reload = |yaml: &str| {
        std::fs::write(&file, yaml).unwrap();
        run(&["reload", "--state-dir", &state_dir])
    };
    let output = reload("max_n: 3\n");
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), "configuration reloaded\n"));
    // The command itself cannot read its settings from this file.
    let output = reload("max_n: many\nmax_inflight: 0\n");
    let printed = text(&output);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for part in ["max_n: expected a whole number", "max_inflight: expected", "the one before stays in force"]
    {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let output = reload("engine_unit: other.service\n");
    assert!(
        output.status.code() == Some(1) && text(&output).contains("restart to apply"),
        "{}",
        text(&output)
    );
    assert_eq!(reload("max_n: 1\n").status.code(), Some(0), "fixed");
    sidecar.signal("-TERM");
    assert_eq!(sidecar.end().await.0, Some(0));
    let output = reload("max_n: 1\n");
    let printed = text(&output);
    assert!(output.status.code() == Some(1) && printed.contains("no sidecar listens at"), "{printed}");
    assert!(printed.contains("admin.sock") && printed.contains("--state-dir"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_finds_the_service_by_its_file_and_answers_after_the_new_verdict() {
    let dir = fakes::fresh_dir("admin-file");
    let (file, state) = (dir.join("config.yaml"), dir.join("state"));
    let config = file.display().to_string();
    let write = |slots: usize| {
        let yaml = format!("state_dir: {}\nmax_inflight: {slots}\n", state.display());
        std::fs::write(&file, yaml).unwrap();
    };
    write(4);
    let sidecar = Running::start(&state, &["--engine", "builtin", "--config", &config]);
    sidecar.ready().await;
    for slots in [1, 2, 3, 1, 2, 3] {
        write(slots);
        let output = run(&["reload", "--config", &config]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let slot = fakes::http().get(format!("{}/readyz/slots", sidecar.url)).send().await.unwrap();
        let printed = slot.text().await.unwrap();
        assert!(printed.contains(&format!("0 of {slots}")), "the new configuration is in force: {printed}");
    }
    // An invalid file still identifies the service, which answers with the problem.
    std::fs::write(&file, format!("state_dir: {}\nmax_nn: 3\n", state.display())).unwrap();
    let output = run(&["reload", "--config", &config]);
    assert!(
        output.status.code() == Some(1) && text(&output).contains("max_nn: unknown key"),
        "{}",
        text(&output)
    );
}

/// Killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The socket is passed as systemd does it: as descriptor 3, named by environment variables.
#[tokio::test(flavor = "multi_thread")]
async fn readyz_asks_where_the_socket_unit_listens_and_the_log_warns_that_listen_has_no_effect() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let runtime = fakes::fresh_dir("moved");
    let sidecar = std::process::Command::new("sh")
        .args(["-c", "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\" 3<&0 </dev/null"])
        .arg(env!("CARGO_BIN_EXE_ada2-sidecar"))
        .args(["--engine", "builtin", "--gpu", "optional", "--listen", "127.0.0.1:9"])
        .env("RUNTIME_DIRECTORY", &runtime)
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stderr(std::fs::File::create(runtime.join("log")).unwrap())
        .spawn()
        .unwrap();
    let _sidecar = Killed(sidecar);
    let ask = || {
        let mut command = binary(&["readyz", "--state-dir", "/no/such/folder"]);
        // As another process of the same unit would see it; a user has the default directory.
        command.env("RUNTIME_DIRECTORY", &runtime).env("ADA2_LISTEN", "127.0.0.1:9").output().unwrap()
    };
    let printed = fakes::eventually("it answers", async || {
        let output = ask();
        (output.status.code() == Some(0)).then(|| text(&output))
    })
    .await;
    assert!(printed.starts_with(&format!("asked the sidecar at {address}\n")), "{printed}");
    assert!(printed.ends_with("readyz check passed\n"), "{printed}");
    let log = std::fs::read_to_string(runtime.join("log")).unwrap();
    assert!(log.contains("listen (--listen) has no effect") && log.contains("ListenStream="), "{log}");
}
