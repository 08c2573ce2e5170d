//! Starts the program with its own files, and sends requests to it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

pub(super) const TOKEN: &str = "process-token-0123";

/// A new directory with an empty env file.
pub(super) fn temp_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("gateway-process-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(".env"), "").unwrap();
    dir
}

/// On a free port.
pub(super) fn gateway(dir: &std::path::Path, arguments: &[&str]) -> Command {
    on_port("0", dir, arguments)
}

pub(super) fn on_port(port: &str, dir: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command
        .env_clear()
        .arg("--env-file")
        .arg(dir.join(".env"))
        .arg("--ui-image-dir")
        .arg(dir.join("images"))
        .arg("--gateway-data-dir")
        .arg(dir)
        .args(["--gateway-tls", "off", "--gateway-port", port, "--images-backend", "mock"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must end by itself.
pub(super) fn run(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = child.try_wait().unwrap().is_some();
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    assert!(ended, "the process does not exit: {}", text(&output.stderr));
    output
}

pub(super) fn stderr(child: &mut Child) -> BufReader<Box<dyn Read>> {
    BufReader::new(Box::new(child.stderr.take().unwrap()))
}

/// A running gateway, with its address from its log.
pub(super) struct Running {
    pub(super) child: Child,
    /// Its log up to the line with its address.
    pub(super) first_lines: String,
    pub(super) log: BufReader<Box<dyn Read>>,
    pub(super) address: String,
}

impl Running {
    pub(super) fn start(command: Command) -> Self {
        Self::start_with(command, Some(TOKEN))
    }

    pub(super) fn start_with(mut command: Command, token: Option<&str>) -> Self {
        let mut child = command.envs(token.map(|token| ("GATEWAY_BEARER_TOKEN", token))).spawn().unwrap();
        let mut log = stderr(&mut child);
        let (mut first_lines, mut line) = (String::new(), String::new());
        let address = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "the gateway exited before it listened");
            first_lines += &line;
            if let Some((_, rest)) = line.split_once("://127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        Self { child, first_lines, log, address }
    }

    /// For a gateway whose log cannot be read.
    pub(super) fn until_it_listens(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < deadline, "the gateway does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{head}\r\nHost: ai2\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        text(&answer)
    }

    /// The same with a token and a JSON body.
    pub(super) fn request_with(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{head}\r\nHost: ai2\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        text(&answer)
    }

    pub(super) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for the process to exit; returns the exit code and the rest of the log.
    pub(super) fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    /// Ends the process even if the test fails.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
