//! The binary, run as a service manager runs it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tokio::net::UnixDatagram;

pub(crate) fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ada2-sidecar"));
    command.args(arguments).env_clear();
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    binary(arguments).output().expect("the binary starts")
}

/// Standard output, then standard error.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The next notification to the service manager that contains `expected`.
pub(crate) async fn notification(manager: &UnixDatagram, expected: &str) -> String {
    let mut message = [0; 4096];
    loop {
        let length = tokio::time::timeout(Duration::from_secs(20), manager.recv(&mut message)).await;
        let length = length.expect(expected).expect("a datagram");
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        if message.contains(expected) {
            return message;
        }
    }
}

/// A running sidecar; killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) url: String,
    /// Its log up to the line that says where it listens.
    pub(crate) first_lines: String,
    log: Option<BufReader<std::process::ChildStderr>>,
}

impl Running {
    /// Starts it on a free port, which it logs.
    pub(crate) fn start(state: &Path, arguments: &[&str]) -> Self {
        Self::start_with(state, arguments, &[])
    }

    pub(crate) fn start_with(state: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = binary(&[]);
        command.envs(environment.iter().copied());
        Self::spawn(command, state, arguments)
    }

    /// With a limit of open files.
    pub(crate) fn start_limited(state: &Path, arguments: &[&str], descriptors: u32) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_ada2-sidecar")).env_clear();
        Self::spawn(command, state, arguments)
    }

    fn spawn(mut command: Command, state: &Path, arguments: &[&str]) -> Self {
        let state = state.display().to_string();
        let common =
            ["--listen", "127.0.0.1:0", "--gpu", "optional", "--log-format", "json", "--state-dir", &state];
        command.args(common).args(arguments).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let (mut first_lines, mut line) = (String::new(), String::new());
        while !line.contains("\"listen\"") {
            line.clear();
            assert!(log.read_line(&mut line).expect("a log") > 0, "it ended before it listened");
            first_lines += &line;
        }
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON lines");
        Self {
            child,
            url: line["listen"].as_str().expect("an address").to_owned(),
            first_lines,
            log: Some(log),
        }
    }

    /// The processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("proc(5)");
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|field| field.parse::<u64>().expect("proc(5)")).sum();
        Duration::from_millis(ticks * 10) // a hundred a second, on every Linux that is built today
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill is everywhere").success());
    }

    pub(crate) async fn ready(&self) {
        fakes::eventually("ready", async || {
            let answer = fakes::http().get(format!("{}/readyz", self.url)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// The check `slots` of `/readyz`.
    pub(crate) async fn slots(&self) -> Option<String> {
        let answer = fakes::http().get(format!("{}/readyz/slots", self.url)).send().await.ok()?;
        answer.text().await.ok()
    }

    /// Waits for its end; returns the exit code and the rest of the log.
    pub(crate) async fn end(mut self) -> (Option<i32>, String) {
        let mut log = self.log.take().expect("taken once");
        let mut child =
            std::mem::replace(&mut self.child, Command::new("true").spawn().expect("true is everywhere"));
        tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut log, &mut rest).expect("a log");
            (child.wait().expect("it can be waited for").code(), rest)
        })
        .await
        .expect("the wait ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
