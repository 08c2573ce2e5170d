//! The administration socket: a reload that tells what came of it, and where the running service listens.

use std::process::{Child, Output};

use crate::running::{Running, binary, run};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_every_problem_and_fails_as_a_broken_file_does() {
    let folder = fakes::fresh_folder("admin-reload");
    let (file, state) = (folder.join("config.yaml"), folder.join("state"));
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
    // A file that this very command could not read its own settings from.
    let output = reload("max_n: many\nmax_inflight: 0\n");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["max_n: expected a whole number", "max_inflight: expected", "the one before stays in force"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    let output = reload("engine_unit: other.service\n");
    assert!(
        output.status.code() == Some(1) && text(&output).contains("restart to apply"),
        "{}",
        text(&output)
    );
    assert_eq!(reload("max_n: 1\n").status.code(), Some(0), "mended");
    sidecar.signal("-TERM");
    assert_eq!(sidecar.end().await.0, Some(0));
    let output = reload("max_n: 1\n");
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("no sidecar listens at"), "{said}");
    assert!(said.contains("admin.sock") && said.contains("--state-dir"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_finds_the_service_by_its_file_and_the_verdict_follows_before_the_answer() {
    let folder = fakes::fresh_folder("admin-file");
    let (file, state) = (folder.join("config.yaml"), folder.join("state"));
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
        let said = slot.text().await.unwrap();
        assert!(
            said.contains(&format!("0 of {slots}")),
            "the verdict that is in force is the new one: {said}"
        );
    }
    // A file that is unsound still names the service, whose answer has the problem.
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

/// As systemd hands over a socket: open as descriptor 3, told of by environment.
#[tokio::test(flavor = "multi_thread")]
async fn readyz_asks_where_a_socket_unit_moved_the_service_and_the_log_says_that_listen_has_no_effect() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let runtime = fakes::fresh_folder("moved");
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
        // What another process of the same unit would see; people meet the usual place.
        command.env("RUNTIME_DIRECTORY", &runtime).env("ADA2_LISTEN", "127.0.0.1:9").output().unwrap()
    };
    let said = fakes::eventually("it answers", async || {
        let output = ask();
        (output.status.code() == Some(0)).then(|| text(&output))
    })
    .await;
    assert!(said.starts_with(&format!("asked the sidecar at {address}\n")), "{said}");
    assert!(said.ends_with("readyz check passed\n"), "{said}");
    let log = std::fs::read_to_string(runtime.join("log")).unwrap();
    assert!(log.contains("listen (--listen) has no effect") && log.contains("ListenStream="), "{log}");
}
