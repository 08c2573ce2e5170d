//! `ada2-sidecar`: parse → configuration → log → bind → serve → exit code.

use std::{io::Write, process::ExitCode, time::Duration};

use ada2_sidecar::{Sockets, cli, commands, config, reload::ConfigSource, serve};
use listenfd::ListenFd;
use service::{descriptors, lifecycle::Lifecycle, settings::EXIT_CONFIG, telemetry};

/// Anything else that ends the service (`EX_SOFTWARE`).
const EXIT_FAILED: u8 = 70;

/// What blocking work still gets once the service has ended.
const LAST: Duration = Duration::from_secs(1);

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
    if let Some(code) = commands::run_without_config(&matches, &environment, &names()) {
        return code;
    }
    let loaded = match config::load_with_variables(&matches, &environment, &names()) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in problems {
                let _ = writeln!(std::io::stderr(), "{problem}");
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    if let Some(("check-config", arguments)) = matches.subcommand() {
        let _ = write!(std::io::stdout(), "{}", loaded.effective);
        commands::print_templates(&loaded.config);
        for warning in &loaded.config.warnings {
            let _ = writeln!(std::io::stderr(), "warning: {warning}");
        }
        return if arguments.get_flag("live") {
            commands::check_live(&loaded.config)
        } else {
            ExitCode::SUCCESS
        };
    }
    if let Some(code) = commands::run(&matches, &loaded.config) {
        return code;
    }
    let source = ConfigSource::new(move || config::load_for_reload(&matches, &environment, &names()));
    match run(loaded.config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run(config: config::Config, source: ConfigSource) -> Result<(), Box<dyn std::error::Error>> {
    telemetry::start(config.log_format, &config.log_filter, None)?;
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.handle_signals()?;
        let mut listeners = ada2_sidecar::socket_activated(ListenFd::from_env())?;
        let kept_open = !listeners.is_empty();
        if kept_open {
            ada2_sidecar::warn_of_overridden_listen(&config, &listeners);
        } else {
            listeners = ada2_sidecar::bind(&config.listen).await?;
        }
        Ok(serve(Sockets { listeners, kept_open }, config, source, lifecycle).await?)
    });
    // Without a limit this would wait for every thread that still decodes or reads a disk.
    runtime.shutdown_timeout(LAST);
    ended
}
