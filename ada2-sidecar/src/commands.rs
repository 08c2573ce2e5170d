//! The subcommands besides `serve`.

mod ack;
mod check_port;
mod client;
mod doctor;
mod host_readiness;
mod live_check;
mod move_in;
mod reload;
mod show;
mod systemd;
mod template;

use std::{io, process::ExitCode};

use clap::ArgMatches;

use crate::{
    config::{self, Config},
    graph_validation,
};

/// The service is not ready, or the command failed.
const EXIT_FAILURE: u8 = 1;

fn exit_code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}

/// Runs the subcommand, if it is one of those that must work with an invalid configuration. `names` are those of all
/// variables.
pub fn run_without_config(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let result = match name {
        "move-in" => move_in::move_in(arguments),
        "move-out" => move_in::move_out(arguments),
        "doctor" => doctor::doctor(matches, environment, names),
        "reload" => reload::reload(&config::admin_sockets(matches, environment)),
        "check-port" => match arguments.get_one::<String>("socket-unit") {
            Some(unit) => check_port::check_unit(unit),
            None => check_port::check_configured(config::read_listen_settings(matches, environment)),
        },
        "template" => template::propose(arguments)?,
        _ => return None,
    };
    Some(into_exit_code(name, result))
}

/// Runs the subcommand, if it is one of these.
pub fn run(matches: &ArgMatches, config: &Config) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let result = match name {
        "gpu" => show::gpu(arguments, config),
        "readyz" => show::readyz(arguments, config),
        "ack" => ack::ack(config),
        "template" => template::try_one(arguments, config)?,
        _ => return None,
    };
    Some(into_exit_code(name, result))
}

/// The templates' part of `check-config`, in comments after the configuration.
pub fn print_templates(config: &Config) {
    use std::io::Write;
    for line in graph_validation::describe_templates(&config.presets) {
        let _ = writeln!(io::stdout(), "# {line}");
    }
}

/// The second half of `check-config --live`.
pub fn check_live(config: &Config) -> ExitCode {
    into_exit_code("check-config", live_check::check(config))
}

fn into_exit_code(name: &str, result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        use std::io::Write;
        let _ = writeln!(io::stderr(), "ada2-sidecar {name}: {error}");
        ExitCode::from(EXIT_FAILURE)
    })
}
