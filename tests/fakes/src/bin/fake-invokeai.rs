//! The fake InvokeAI as a program, for tests that need an engine in a systemd unit:
//! `fake-invokeai --root DIR --port 9090 [--item-ms 20] [--fail TEXT]`.

use std::{env::args, process::ExitCode, time::Duration};

use fakes::{engine::EngineFailure, invokeai::FakeInvoke};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = args().collect();
    let value = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1);
    let Some(port) = value("--port").and_then(|port| port.parse().ok()) else {
        return ExitCode::FAILURE;
    };
    let fake = FakeInvoke::start_at(port).await;
    fake.script(|script| {
        if let Some(time) = value("--item-ms").and_then(|time| time.parse().ok()) {
            script.item = Duration::from_millis(time);
        }
        script.fail = value("--fail").map(|text| EngineFailure::new("RuntimeError", text));
    });
    std::future::pending::<()>().await;
    ExitCode::SUCCESS
}
