//! `gateway`: parse → configuration → log → open → bind → serve → exit code.

use std::{io::Write, process::ExitCode, time::Duration};

use clap::ArgMatches;
use gateway::{Gateway, ServeError, cli, commands, config, serving::reload::ConfigSource};
use service::{descriptors, lifecycle::Lifecycle};

/// What blocking work still gets once the service has ended.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that hands the environment to the configuration"
)]
fn environment(name: &str) -> Option<String> {
    // What is no UTF-8 is there all the same: a token that nobody could read must not count as none.
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Of all variables.
fn names() -> Vec<String> {
    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
}

fn main() -> ExitCode {
    let matches = match cli::PROGRAM.parse_args(std::env::args_os()) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    if let Some(code) = commands::run(&matches, environment, &names()) {
        return code;
    }
    match serve(matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the terminal or the service manager, even where the log goes elsewhere.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(matches: ArgMatches) -> Result<(), ServeError> {
    let loaded = config::load_with_variables(&matches, &environment, &names()).map_err(ServeError::Config)?;
    descriptors::raise_limit();
    let source = ConfigSource::new(move || config::load_with_variables(&matches, &environment, &names()));
    let gateway = Gateway::start(loaded)?.with_config_source(source);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Start)?;
    let ended = runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.handle_signals().map_err(ServeError::Start)?;
        let listeners = gateway.bind().await?;
        gateway.serve(listeners, lifecycle).await
    });
    // Without a limit this would wait for every thread that still decodes, or whose disk hangs.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    ended
}
