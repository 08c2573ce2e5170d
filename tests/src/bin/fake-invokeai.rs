//! The fake InvokeAI as a program, for what needs an engine in a process of its own: `fake-invokeai [127.0.0.1:9090]`.

use e2e::invokeai::FakeInvoke;

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9090".to_owned());
    let _running = FakeInvoke::start_at(address.parse().expect("an address and a port")).await;
    std::future::pending::<()>().await;
}
