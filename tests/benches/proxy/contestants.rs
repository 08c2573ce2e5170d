//! The contestants: the sidecar, nginx as users have it, nginx tuned; each in its own processes.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use e2e::sidecar::Sidecar;
use fakes::child::{Child, listening, processor_time, resident_kib};
use service::telemetry;

/// The first argument of the sidecar's process.
pub(crate) const NAME: &str = "sidecar";
/// The engine itself.
pub(crate) const DIRECT: &str = "direct";

/// As the users' file: a new connection to the engine for each request, everything buffered, an access log.
const USERS: &str = "
    location = /healthz { return 200 'ok\\n'; }
    location / {
        proxy_pass ENGINE;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection 'upgrade';
        client_max_body_size 0;
        proxy_read_timeout 600s;
    }";

/// Connections kept, requests not buffered but read in large pieces, larger buffers, no access log: what the sidecar only
/// counts.
const TUNED: &str = "
    location = /healthz { return 200 'ok\\n'; }
    location / {
        proxy_pass http://engine;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_request_buffering off;
        client_body_buffer_size 256k;
        proxy_buffers 16 64k;
        proxy_buffer_size 64k;
        proxy_busy_buffers_size 256k;
        proxy_max_temp_file_size 0;
        client_max_body_size 0;
        proxy_read_timeout 600s;
    }";

/// One of them.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    child: Child,
}

impl Contestant {
    pub(crate) fn url(&self) -> &str {
        &self.child.url
    }

    /// Of all its processes.
    pub(crate) fn processor_seconds(&self) -> f64 {
        self.processes().into_iter().map(processor_time).sum::<Duration>().as_secs_f64()
    }

    /// Resident memory of all its processes, as text.
    pub(crate) fn memory(&self) -> String {
        let kib: u64 = self.processes().into_iter().map(resident_kib).sum();
        format!("{} {:.1} MiB", self.name, kib as f64 / 1024.0)
    }

    /// To these cores, with all its threads.
    pub(crate) fn pin(&self, cores: &str) {
        self.processes().into_iter().for_each(|process| pin(process, cores));
    }

    fn processes(&self) -> Vec<u32> {
        let parent = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        std::iter::once(parent)
            .chain(children.split_whitespace().filter_map(|pid| pid.parse().ok()))
            .collect()
    }
}

impl Drop for Contestant {
    /// The children, too: a parent that is killed leaves them behind.
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status();
        }
    }
}

/// A process to these cores, with all its threads, by util-linux's `taskset`.
pub(crate) fn pin(process: u32, cores: &str) {
    let _ =
        Command::new("taskset").args(["-acp", cores, &process.to_string()]).stdout(Stdio::null()).status();
}

/// The sidecar first, last the engine without anybody before it. Without nginx these two are all.
pub(crate) fn all() -> Vec<Contestant> {
    let origin = Child::start(&[super::origin::NAME]);
    let engine = &*origin.url;
    let mut all = vec![Contestant { name: "ada2-sidecar", child: Child::start(&[NAME, engine]) }];
    if Command::new("nginx").arg("-v").stderr(Stdio::null()).status().is_ok() {
        all.push(nginx("nginx, users", engine, USERS, true));
        all.push(nginx("nginx, tuned", engine, TUNED, false));
    }
    all.push(Contestant { name: DIRECT, child: origin });
    all
}

/// The sidecar's process: logs to a file, as the service does to the journal.
#[tokio::main]
pub(crate) async fn serve(arguments: &[String]) {
    let dir = fakes::fresh_dir("proxied");
    telemetry::start(telemetry::LogFormat::Text, "info", Some(&dir.join("log")))
        .expect("the log can be opened");
    let sidecar = Sidecar::start_in(dir, &["--engine", "invokeai", "--engine-url", &arguments[0]]).await;
    listening(&sidecar.url).await;
}

fn nginx(name: &'static str, engine: &str, locations: &str, logs: bool) -> Contestant {
    let dir = fakes::fresh_dir("nginx");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let host = engine.trim_start_matches("http://");
    let locations = locations.replace("ENGINE", engine);
    let at = dir.display();
    let log = if logs { format!("{at}/access.log") } else { "off".to_owned() };
    let file = format!(
        "worker_processes auto; pid {at}/pid; error_log {at}/error.log; daemon off;
events {{ worker_connections 1024; }}
http {{
    access_log {log};
    sendfile on; tcp_nopush on; keepalive_requests 1000000000;
    client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream engine {{ server {host}; keepalive 64; keepalive_requests 1000000000; }}
    server {{ listen {free}; {locations} }}
}}"
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, file).expect("the directory can be written");
    let mut command = Command::new("nginx");
    let child = Child::of(command.arg("-c").arg(&path).stderr(Stdio::null()), format!("http://{free}"));
    wait_for(&free.to_string(), &dir);
    Contestant { name, child }
}

fn wait_for(address: &str, dir: &Path) {
    let until = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "nginx does not listen: see {}", dir.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}
