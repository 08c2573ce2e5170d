//! `gateway`: parse → configuration → log → open → bind → serve → exit code.

use std::{io::Write, process::ExitCode};

use gateway::{Gateway, ServeError, cli, config};
use shared::service::{
    lifecycle::Lifecycle,
    settings::{EXIT_CONFIG, Problem, command_line},
    telemetry,
};

/// Anything else that ends the service (`EX_SOFTWARE`).
const EXIT_FAILED: u8 = 70;

fn main() -> ExitCode {
    let matches = match command_line(cli::command()) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that hands the environment to the configuration"
    )]
    let loaded = config::load(&matches, &|name| std::env::var(name).ok());
    let ended = match (loaded, matches.subcommand_name()) {
        (Err(problems), _) => Err(ServeError::Config(problems)),
        (Ok(loaded), Some("check-config")) => {
            let notes: Vec<_> = loaded.notes.iter().map(|note| format!("# {note}")).collect();
            let _ = writeln!(std::io::stdout(), "{}{}", loaded.effective, notes.join("\n"));
            Ok(())
        }
        (Ok(loaded), _) => run(loaded),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the terminal or the service manager, even where the log goes elsewhere.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(if matches!(error, ServeError::Config(_)) { EXIT_CONFIG } else { EXIT_FAILED })
        }
    }
}

fn run(loaded: config::Loaded) -> Result<(), ServeError> {
    let config = loaded.config;
    let file = config.log.file.clone();
    telemetry::start(config.log.format, "info", file.as_deref()).map_err(|error| {
        let path = file.unwrap_or_default().display().to_string();
        ServeError::Config(vec![Problem::new(
            "GATEWAY_LOG_FILE",
            path,
            format!("expected a writable file: {error}"),
        )])
    })?;
    loaded.notes.iter().for_each(|note| tracing::warn!("{note}"));
    let gateway = Gateway::open(config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Start)?;
    runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.obey_signals().map_err(ServeError::Start)?;
        let listeners = gateway.bind().await?;
        gateway.serve(listeners, lifecycle).await
    })
}
