//! The program as its supervisor sees it: exit codes, signals, what it prints.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const TOKEN: &str = "process-token-0123";

/// A folder that nobody else uses, with an empty env file in it.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("gateway-process-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(".env"), "").unwrap();
    folder
}

/// On a free port.
fn gateway(folder: &std::path::Path, arguments: &[&str]) -> Command {
    on_port("0", folder, arguments)
}

fn on_port(port: &str, folder: &std::path::Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command
        .env_clear()
        .arg("--env-file")
        .arg(folder.join(".env"))
        .arg("--ui-image-dir")
        .arg(folder.join("pictures"))
        .arg("--gateway-data-dir")
        .arg(folder)
        .args(["--gateway-tls", "off", "--gateway-port", port, "--images-backend", "mock"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

fn stderr(child: &mut Child) -> BufReader<Box<dyn Read>> {
    BufReader::new(Box::new(child.stderr.take().unwrap()))
}

/// A running gateway and where it listens, read from its own start line.
struct Running {
    child: Child,
    log: BufReader<Box<dyn Read>>,
    address: String,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.env("GATEWAY_BEARER_TOKEN", TOKEN).spawn().unwrap();
        let mut log = stderr(&mut child);
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended before it listened");
            if let Some((_, rest)) = line.split_once("http://127.0.0.1:") {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break format!("127.0.0.1:{port}");
            }
        };
        Self { child, log, address }
    }

    /// For one whose log does not say so.
    fn until_it_listens(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn request(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "{head}\r\nHost: ai2\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        text(&answer)
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end; gives the exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn a_sound_configuration_is_printed_without_its_secrets() {
    let folder = folder("sound");
    let mut command = gateway(&folder, &["check-config"]);
    command.env("GATEWAY_BEARER_TOKENS", "alice=0123456789abcdef");
    let output = run(command);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(printed.contains("GATEWAY_PORT: 0  # --gateway-port"), "{printed}");
    assert!(printed.contains("  gpu_heavy:\n    base_url: http://ada2:7860/"), "{printed}");
    assert!(!printed.contains("0123456789abcdef"), "{printed}");
    assert!(!folder.join("pictures").exists(), "checking touches nothing");
}

#[test]
fn every_problem_is_on_a_line_of_its_own_and_both_commands_exit_78() {
    let folder = folder("broken");
    for command in ["check-config", "serve"] {
        let output =
            run(gateway(&folder, &["--images-max-pixels", "lots", "--ip-allowlist", "nowhere", command]));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(said.contains(
            "--images-max-pixels: IMAGES_MAX_PIXELS: expected a number of pixels above 0, found \"lots\""
        ));
        assert!(said.contains("--ip-allowlist: IP_ALLOWLIST: expected"), "{said}");
        assert!(said.contains("GATEWAY_BEARER_TOKEN: expected a token"), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn version_and_help_are_for_people() {
    let folder = folder("help");
    let version = run(gateway(&folder, &["--version"]));
    assert_eq!(text(&version.stdout).trim(), format!("gateway {}", env!("CARGO_PKG_VERSION")));
    let help = text(&run(gateway(&folder, &["--help"])).stdout);
    for part in ["check-config", "GATEWAY_BEARER_TOKEN", "Examples:", "--backends", "Exit codes"] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn it_serves_on_a_free_port_drains_on_sigterm_and_exits_0() {
    let folder = folder("serve");
    let running = Running::start(gateway(&folder, &[]));
    assert!(running.request("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200 OK"));
    let refused = running.request("GET /v1/models HTTP/1.1");
    assert!(refused.starts_with("HTTP/1.1 401 Unauthorized"), "{refused}");
    let body = r#"{"prompt":"a red cat","size":"64x64"}"#;
    let length = body.len();
    let mut stream = TcpStream::connect(&running.address).unwrap();
    write!(
        stream,
        "POST /v1/images/generations HTTP/1.1\r\nHost: ai2\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut made = Vec::new();
    stream.read_to_end(&mut made).unwrap();
    assert!(text(&made).contains("/ui/images/"), "{}", text(&made));
    let address = running.address.clone();
    running.signal("-TERM");
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(TcpStream::connect(address).is_err());
    let line = log.lines().find(|line| line.contains("/v1/images/generations")).expect("the access log");
    for part in
        ["request", "route_kind=\"images\"", "backend=\"mock\"", "status=200", "caller=\"token\"", "ms="]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_second_process_on_the_same_store_exits_78_and_names_the_first() {
    let folder = folder("second");
    let first = Running::start(gateway(&folder, &[]));
    let mut second = gateway(&folder, &[]);
    second.env("GATEWAY_BEARER_TOKEN", TOKEN);
    let output = run(second);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("UI_IMAGE_DIR") && said.contains(&format!("process {}", first.child.id())),
        "{said}"
    );
    first.signal("-INT");
    assert_eq!(first.end().0, Some(0));
}

#[test]
fn a_store_that_cannot_be_written_exits_78_with_the_remedy() {
    let folder = folder("unwritable");
    std::fs::write(folder.join("file"), "").unwrap();
    let path = folder.join("file/pictures");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(folder.join(".env"));
    command.arg("--ui-image-dir").arg(&path).args(["--gateway-tls", "off", "--gateway-port", "0"]);
    let output = run(command);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for part in ["UI_IMAGE_DIR", &path.display().to_string(), "is owned by uid", "sudo chown"] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[test]
fn an_address_for_metrics_that_is_none_exits_78_and_one_that_is_taken_70() {
    let folder = folder("metrics");
    let listen = |address: &str| {
        let mut command = gateway(&folder, &["--gateway-metrics-listen", address]);
        command.env("GATEWAY_BEARER_TOKEN", TOKEN);
        let output = run(command);
        (output.status.code(), text(&output.stderr))
    };
    for bad in ["8801", "localhost", "127.0.0.1", ":8801"] {
        let (code, said) = listen(bad);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("GATEWAY_METRICS_LISTEN: expected an IP address with a port"), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = listen(&taken.local_addr().unwrap().to_string());
    assert_eq!(code, Some(70), "{said}");
    assert!(
        said.contains("cannot listen on 127.0.0.1:") && said.contains("GATEWAY_METRICS_LISTEN"),
        "{said}"
    );
}

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

#[test]
fn an_address_that_is_taken_exits_70_and_names_the_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = folder("taken");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(folder.join(".env"));
    command.arg("--ui-image-dir").arg(folder.join("pictures")).args([
        "--gateway-tls",
        "off",
        "--gateway-port",
        &port,
    ]);
    let output = run(command);
    assert_eq!(output.status.code(), Some(70));
    assert!(text(&output.stderr).contains("GATEWAY_PORT"), "{}", text(&output.stderr));
}
