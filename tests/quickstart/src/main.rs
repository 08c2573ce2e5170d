//! The README's first command. Says what it does, builds both programs, runs them on the embedded default (builtin
//! engine, GPU optional), has the gateway check itself with a first image, says what to try next, and stays up until
//! Ctrl-C.

mod programs;

use std::{
    error::Error,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use self::programs::Programs;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// From the start of both programs to the first image.
const START_TIME: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("quickstart: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register(signal, stop.clone())?;
    }
    let target = target_dir()?;
    build(&target)?;
    let started = Instant::now();
    let mut programs = Programs::new(&target)?;
    let outcome = first_image(&mut programs, started, &stop);
    if outcome.is_ok() {
        say(&programs.what_to_try());
        wait(&mut programs, &stop);
    }
    programs.stop();
    outcome
}

/// This program lies in `target/PROFILE`, wherever the target directory is.
fn target_dir() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).ok_or("cannot find the target directory")?;
    Ok(target.to_owned())
}

/// `cargo build --release` of both, with cargo's own progress.
fn build(target: &Path) -> Outcome<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let built = |name| target.join("release").join(name).exists();
    if built("gateway") && built("ada2-sidecar") {
        say("Building what has changed in ada2-sidecar and gateway …");
    } else {
        say(
            "Building ada2-sidecar and gateway, optimised. The first time that is over 200 crates: 5 minutes on \
             two cores, 2 on eight. Later starts take seconds.",
        );
    }
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "-p", "ada2-sidecar", "-p", "gateway"]).current_dir(&root);
    // What `cargo run` sets for this program; build scripts that read it would build again, and again after the
    // next `cargo build`.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err("the build failed; cargo says why above".into()) }
}

/// Starts both and has `gateway verify` check everything, including an image.
fn first_image(programs: &mut Programs, started: Instant, stop: &AtomicBool) -> Outcome<()> {
    programs.start()?;
    loop {
        let check = programs.verify()?;
        if check.status.success() {
            io::stdout().write_all(&check.stdout)?;
            say(&format!("\nFirst image {:.1} s after the start.", started.elapsed().as_secs_f64()));
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Err("stopped".into());
        }
        let logs = programs.dir().display().to_string();
        if let Some(ended) = programs.ended() {
            return Err(format!("{ended}; its log is in {logs}").into());
        }
        if started.elapsed() > START_TIME {
            io::stdout().write_all(&check.stdout)?;
            io::stdout().write_all(&check.stderr)?;
            return Err(format!("no image within {} s; logs are in {logs}", START_TIME.as_secs()).into());
        }
        sleep(POLL);
    }
}

/// Until Ctrl-C, or until one of them ends.
fn wait(programs: &mut Programs, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(ended) = programs.ended() {
            say(&format!("{ended}; stopping"));
            return;
        }
        sleep(POLL);
    }
}

fn say(text: &str) {
    let mut out = io::stdout();
    // The reader is gone: the message has no recipient.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
