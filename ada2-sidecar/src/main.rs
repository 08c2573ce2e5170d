//! `ada2-sidecar`: command line → configuration → log → listeners → serve → exit code.

use std::{io::Write, process::ExitCode};

use ada2_sidecar::{Sockets, cli, commands, config, reload::ConfigSource, serve};
use listenfd::ListenFd;
use service::{
    descriptors,
    process::{self, ServeError, environment, variable_names},
    settings::EXIT_CONFIG,
    telemetry,
};

fn main() -> ExitCode {
    let matches = match cli::PROGRAM.parse_args(std::env::args_os()) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    if let Some(code) = commands::run_without_config(&matches, &environment, &variable_names()) {
        return code;
    }
    let loaded = match config::load_with_variables(&matches, &environment, &variable_names()) {
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
    let source =
        ConfigSource::new(move || config::load_for_reload(&matches, &environment, &variable_names()));
    match run(loaded.config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(config: config::Config, source: ConfigSource) -> Result<(), ServeError> {
    telemetry::start(config.log_format, &config.log_filter, None).map_err(ServeError::Start)?;
    descriptors::raise_limit();
    process::run(|lifecycle| async move {
        let mut listeners =
            ada2_sidecar::socket_activated(ListenFd::from_env()).map_err(ServeError::Start)?;
        let socket_activated = !listeners.is_empty();
        if socket_activated {
            ada2_sidecar::warn_of_overridden_listen(&config, &listeners);
        } else {
            listeners = ada2_sidecar::bind(&config.listen).await.map_err(ServeError::Start)?;
        }
        serve(Sockets { listeners, socket_activated }, config, source, lifecycle).await
    })
}
