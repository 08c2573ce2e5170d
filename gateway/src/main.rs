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

fn serve(matches: ArgMatches) -> Result<(), ServeError> {
    let loaded =
        config::load_with_variables(&matches, &environment, &variable_names()).map_err(ServeError::Config)?;
    descriptors::raise_limit();
    let source =
        ConfigSource::new(move || config::load_with_variables(&matches, &environment, &variable_names()));
    let gateway = Gateway::start(loaded)?.with_config_source(source);
    process::run(|lifecycle| async move {
        let listeners = gateway.bind().await?;
        gateway.serve(listeners, lifecycle).await
    })
}
