//! A gateway under comparison, in its own process and directory.

use std::{
    fs,
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};

use e2e::gateway::TOKEN;
use fakes::child::{self, Child};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// Between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_micros(500);
/// For a start.
const TIMEOUT: Duration = Duration::from_mins(1);

pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) child: Child,
    /// From its process's start to its first answer.
    pub(super) start_up: Duration,
    /// Removed with it; the backend has none.
    dir: Option<TempDir>,
}

impl Contestant {
    pub(super) fn backend() -> Self {
        let child = Child::start(&["backend"]);
        Self { name: "direct".to_owned(), child, start_up: Duration::ZERO, dir: None }
    }

    /// Starts it by its script, with this many slots for each class of requests. Returns once it answers.
    pub(super) async fn start(script: &str, name: &str, upstream: &str, slots: usize) -> Self {
        let dir = tempfile::tempdir().expect("a writable directory");
        let free =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let mut command = Command::new(script);
        command.arg(name).env("PORT", free.port().to_string()).env("UPSTREAM", upstream);
        command.env("WORK_DIR", dir.path()).env("SLOTS", slots.to_string()).env("TOKEN", TOKEN);
        let start = Instant::now();
        let child = Child::of(&mut command, format!("http://{free}"));
        while !answers(&free.to_string()).await {
            assert!(start.elapsed() < TIMEOUT, "{name} does not answer: {}", log(&dir));
            sleep(RETRY_INTERVAL).await;
        }
        Self { name: name.to_owned(), child, start_up: start.elapsed(), dir: Some(dir) }
    }

    /// Removes the images that it has, so that the next turn writes to memory that the machine has already: where memory
    /// comes from a hypervisor, a page that was never touched costs more than all that a gateway does with it.
    pub(super) fn clear(&self) {
        let Some(dir) = &self.dir else { return };
        let Ok(images) = fs::read_dir(dir.path().join("pictures")) else { return };
        for image in images.filter_map(Result::ok) {
            // What it locks or has in hand stays.
            if image.path().extension().is_some_and(|extension| extension == "png" || extension == "json") {
                fs::remove_file(image.path()).expect("an image that nobody else removes");
            }
        }
    }

    pub(super) fn resident_mib(&self) -> f64 {
        child::resident_kib(self.child.id()) as f64 / 1024.0
    }
}

/// Any complete response head will do.
async fn answers(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    let sent = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
    sent.is_ok() && stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0)
}

fn log(dir: &TempDir) -> String {
    fs::read_to_string(dir.path().join("log")).unwrap_or_default()
}
