//! The fake InvokeAI as a program, for tests that need an engine in a process of its own:
//! `fake-invokeai --root DIR --port 9090 [--item-ms 20] [--fail TEXT] [--control]`.
//!
//! With `--control` it reads a command from each line of its standard input and answers each with a line of JSON:
//! `hang on|off`, `pause on|off`, `hold on|off`, `fail [TEXT]`, `image complete|cut|hollow|html`, `withhold on|off`,
//! `lose-answer on|off`, `drop-sockets` and `jobs`.

use std::{
    env::args,
    io::{Write, stdin, stdout},
    process::ExitCode,
    time::Duration,
};

use fakes::{
    engine::{EngineFailure, EngineJob, FakeEngine, ImageBytes},
    invokeai::FakeInvoke,
};
use serde_json::{Value, json};

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
    if arguments.iter().any(|argument| argument == "--control") {
        tokio::task::block_in_place(|| control(&fake));
    }
    std::future::pending::<()>().await;
    ExitCode::SUCCESS
}

/// Obeys until the input ends.
fn control(fake: &FakeInvoke) {
    let mut answers = stdout();
    for line in stdin().lines().map_while(Result::ok) {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = obey(fake, command, argument);
        if writeln!(answers, "{answer}").and_then(|()| answers.flush()).is_err() {
            return;
        }
    }
}

fn obey(fake: &FakeInvoke, command: &str, argument: &str) -> Value {
    let on = argument == "on";
    match command {
        "hang" => fake.change(|engine| engine.set_hung(on)),
        "pause" => fake.pause(on),
        "hold" => fake.change(|engine| engine.hold(on)),
        "fail" => {
            let failure = (!argument.is_empty()).then(|| EngineFailure::new("RuntimeError", argument));
            fake.change(|engine| engine.fail(failure));
        }
        "image" => fake.change(|engine| engine.serve_images(image_bytes(argument))),
        "withhold" if on => fake.change(FakeEngine::withhold_completions),
        "withhold" => fake.script(|script| script.swallow.clear()),
        "lose-answer" => fake.script(|script| script.lose_enqueue_answer = on),
        "drop-sockets" => fake.drop_sockets(),
        "jobs" => return jobs(fake),
        _ => return json!({"error": format!("unknown command {command}")}),
    }
    json!({"done": command})
}

fn image_bytes(name: &str) -> ImageBytes {
    match name {
        "cut" => ImageBytes::CutOff,
        "hollow" => ImageBytes::Hollow,
        "html" => ImageBytes::Html,
        _ => ImageBytes::Complete,
    }
}

/// How many jobs of a sidecar there were, and the ones that are not over.
fn jobs(fake: &FakeInvoke) -> Value {
    let ours: Vec<_> = fake.jobs().into_iter().filter(EngineJob::is_ours).collect();
    let open: Vec<_> = ours.iter().filter(|job| !job.is_over()).map(|job| &job.id).collect();
    json!({"jobs": ours.len(), "open": open})
}
