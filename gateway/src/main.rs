//! `gateway`: command line → configuration → log → store → listeners → serve → exit code.

use std::{io::Write, process::ExitCode};

use clap::ArgMatches;
use gateway::{Gateway, cli, commands, config, serving::reload::ConfigSource};
use service::{
    descriptors,
    process::{self, ServeError, environment, variable_names},
};

fn main() -> ExitCode {
    let matches = match cli::PROGRAM.parse_args(std::env::args_os()) {
        Ok(matches) => matches,
        Err(exit) => return exit,
    };
    if let Some(code) = commands::run(&matches, environment, &variable_names()) {
        return code;
    }
    match serve(matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // To the terminal or the service manager, even if the log goes to a file.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Signals are handled before anything is read: none may end the process without a word while a large store is opened.
fn serve(matches: ArgMatches) -> Result<(), ServeError> {
    descriptors::raise_limit();
    process::run(|lifecycle| async move {
        let gateway = start(matches)?;
        let listeners = gateway.bind().await?;
        gateway.serve(listeners, lifecycle).await
    })
}

fn start(matches: ArgMatches) -> Result<Gateway, ServeError> {
    let loaded =
        config::load_with_variables(&matches, &environment, &variable_names()).map_err(ServeError::Config)?;
    let source =
        ConfigSource::new(move || config::load_with_variables(&matches, &environment, &variable_names()));
    Ok(Gateway::start(loaded)?.with_config_source(source))
}
