//! What is counted and what it talks to, each in a process of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use e2e::{gateway::Gateway, sidecar::Sidecar};
use fakes::{
    child::listening,
    invokeai::FakeInvoke,
    plain_http::{self, Connection, Message, serve as answer_with},
};
use service::telemetry::{self, LogFormat};

/// First arguments of this program.
pub(crate) const ENGINE: &str = "engine";
pub(crate) const BACKEND: &str = "backend";
pub(crate) const SIDECAR: &str = "sidecar";
pub(crate) const SAMPLER: &str = "sampler";
pub(crate) const GATEWAY: &str = "gateway";

const IMAGE_BYTES: usize = 64 << 10;
/// Of the number in an image: base64 digits.
const DIGITS: usize = 16;

/// A process of this program.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Engine,
    Backend,
    Sidecar,
    Sampler,
    Gateway,
}

pub(crate) fn by_name(name: &str) -> Option<Role> {
    Some(match name {
        ENGINE => Role::Engine,
        BACKEND => Role::Backend,
        SIDECAR => Role::Sidecar,
        SAMPLER => Role::Sampler,
        GATEWAY => Role::Gateway,
        _ => return None,
    })
}

/// Serves until it is killed. One thread: with several, chance decides which one wakes which.
pub(crate) fn run(role: Role, arguments: &[String]) {
    plain_http::runtime().block_on(async {
        match role {
            Role::Engine => {
                let engine = FakeInvoke::start().await;
                listening(&engine.url()).await;
            }
            Role::Backend => {
                let images = Arc::new(ImageAnswers::new());
                answer_with(move |request, connection| {
                    answer_with_image(request, connection, images.clone())
                })
                .await;
            }
            Role::Sidecar => sidecar(&["--engine", "invokeai", "--engine-url", &arguments[0]]).await,
            Role::Sampler => {
                sidecar(&["--engine", "builtin", "--gpu", "required", "--nvml-lib", &arguments[0]]).await;
            }
            Role::Gateway => gateway(&arguments[0]).await,
        }
    });
}

async fn sidecar(flags: &[&str]) {
    let sidecar = Sidecar::start_in(logged("sidecar"), flags).await;
    sidecar.until_ready().await;
    listening(&sidecar.url).await;
}

async fn gateway(backend: &str) {
    let yaml = format!(
        "backends:\n  gpu_heavy:\n    base_url: {backend}\n    supported_capabilities: [images]\n    \
         concurrency_limits: {{images: 16}}\n"
    );
    let gateway = Gateway::start_in(logged("gateway"), &yaml, &[]).await;
    gateway.until_ready("gpu_heavy", true).await;
    listening(&gateway.url).await;
}

/// A folder with a log in it, as both programs have one in use.
fn logged(name: &str) -> PathBuf {
    let dir = fakes::fresh_dir(name);
    telemetry::start(LogFormat::Text, "info", Some(&dir.join("log"))).expect("a writable log");
    dir
}

/// Another image each time, as an engine gives: its base64 has a number in its middle, far behind the head of the pixels.
async fn answer_with_image(
    request: Message,
    mut connection: Connection,
    images: Arc<ImageAnswers>,
) -> Connection {
    if !request.head.starts_with("POST") {
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        return connection;
    }
    let number = format!("{:0DIGITS$x}", images.next.fetch_add(1, Ordering::Relaxed));
    connection.send(&[&*images.before, number.as_bytes(), &images.after].concat()).await;
    connection
}

/// A response with an image, around the number.
struct ImageAnswers {
    before: Vec<u8>,
    after: Vec<u8>,
    next: AtomicU64,
}

impl ImageAnswers {
    fn new() -> Self {
        let base64 = base64_simd::STANDARD.encode_to_string(fakes::large_images::png_of(IMAGE_BYTES));
        let body = format!(
            r#"{{"created":1736697234,"data":[{{"b64_json":"{base64}","seed":7}}],"size":"1024x1024"}}"#
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let response = (head + &body).into_bytes();
        let (before, after) = response.split_at(response.len() / 2);
        Self { before: before.to_vec(), after: after[DIGITS..].to_vec(), next: AtomicU64::new(1) }
    }
}
