//! What `main` of both programs does alike: environment, async runtime, exit codes.

use std::{fmt, future::Future, io, time::Duration};

use super::{
    lifecycle::{Lifecycle, WorkerExited},
    settings::{EXIT_CONFIG, Problem},
};

/// Anything but a broken configuration that ends the service, or a command that cannot do its work (`EX_SOFTWARE`).
pub const EXIT_SOFTWARE: u8 = 70;

/// How long blocking work may go on once the service has ended.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the service ended, or did not start.
#[derive(Debug)]
pub enum ServeError {
    /// The configuration is invalid, or names what cannot be had.
    Config(Vec<Problem>),
    /// A part could not be started, or an address not bound.
    Start(io::Error),
    /// A background task died.
    Worker(WorkerExited),
}

impl ServeError {
    /// The process's exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_CONFIG,
            Self::Start(_) | Self::Worker(_) => EXIT_SOFTWARE,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Start(error) => write!(f, "cannot start: {error}"),
            Self::Worker(exited) => write!(f, "{exited}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// An environment variable. One that is not UTF-8 counts as set: a token that cannot be read must not count as none.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that hands the environment to the configuration"
)]
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The names of all environment variables.
pub fn variable_names() -> Vec<String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
}

/// Runs a service that stops on signals, to its end.
pub fn run<F>(serve: impl FnOnce(Lifecycle) -> F) -> Result<(), ServeError>
where
    F: Future<Output = Result<(), ServeError>>,
{
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Start)?;
    let ended = runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.handle_signals().map_err(ServeError::Start)?;
        serve(lifecycle).await
    });
    // Without a limit this would wait for every thread that still decodes, or whose disk hangs.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    ended
}
