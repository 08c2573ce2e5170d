//! What the binary does besides serving: moves in and out, finds out what is wrong, shows the card and the readiness in a
//! terminal, acknowledges what is latched, reloads the running service, says who holds its port, and has the engine look at
//! the graphs.

mod ack;
mod check_port;
mod doctor;
mod live;
mod move_in;
mod reload;
mod show;

use std::{io, process::ExitCode};

use clap::ArgMatches;

use crate::{
    config::{self, Config},
    vetting,
};

/// Something does not hold: the service is not ready, or the command could not do its work.
const EXIT_NO: u8 = 1;

/// Runs the subcommand, if it is one of those that a broken configuration must not keep from working. `names` are those of
/// all variables.
pub fn without_configuration(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let done = match name {
        "move-in" => move_in::move_in(arguments),
        "move-out" => move_in::move_out(arguments),
        "doctor" => doctor::doctor(matches, environment, names),
        "reload" => reload::reload(&config::admin_sockets(matches, environment)),
        "check-port" => match arguments.get_one::<String>("socket-unit") {
            Some(unit) => check_port::unit(unit),
            None => check_port::configured(config::listen_alone(matches, environment)),
        },
        _ => return None,
    };
    Some(ended(name, done))
}

/// Runs the subcommand, if it is one of these.
pub fn run(matches: &ArgMatches, config: &Config) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let done = match name {
        "gpu" => show::gpu(arguments, config),
        "readyz" => show::readyz(arguments, config),
        "ack" => ack::ack(config),
        _ => return None,
    };
    Some(ended(name, done))
}

/// The templates' part of `check-config`, in comments behind the configuration.
pub fn describe_templates(config: &Config) {
    use std::io::Write;
    for line in vetting::described(&config.presets) {
        let _ = writeln!(io::stdout(), "# {line}");
    }
}

/// The second half of `check-config --live`.
pub fn check_live(config: &Config) -> ExitCode {
    ended("check-config", live::check(config))
}

fn ended(name: &str, done: io::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        use std::io::Write;
        let _ = writeln!(io::stderr(), "ada2-sidecar {name}: {error}");
        ExitCode::from(EXIT_NO)
    })
}
