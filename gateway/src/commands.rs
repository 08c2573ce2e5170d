//! What the binary does besides serving: checks the configuration, makes tokens, shows its authority, and asks a running gateway how it is.

mod ca;
mod doctor;
mod status;
mod target;
mod token;
mod verify;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use service::{
    process::EXIT_SOFTWARE,
    settings::{EXIT_CONFIG, Problem},
};

use crate::config;

/// Something does not hold: a backend is not ready, or a check failed.
const EXIT_CHECK_FAILED: u8 = 1;

/// Where variables come from.
type Environment = fn(&str) -> Option<String>;

/// Why a command could not do its work.
#[derive(Debug)]
enum CommandError {
    /// The configuration is broken, or not readable for who runs the command.
    Config(Vec<Problem>),
    /// In words, with the next step.
    Message(String),
    /// Its output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the subcommand, if it is one of these. `names` are those of all variables.
pub fn run(matches: &ArgMatches, environment: Environment, names: &[String]) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let done = match name {
        "check-config" => check_config(matches, environment, names),
        "token" => token::run(arguments, environment),
        "ca" => ca::run(matches, arguments, environment),
        "status" => status::run(arguments, environment),
        "verify" => verify::run(arguments, environment),
        "doctor" => doctor::run(arguments, environment, names),
        _ => return None,
    };
    Some(done.unwrap_or_else(|error| print_error(name, &error)))
}

fn check_config(
    matches: &ArgMatches,
    environment: Environment,
    names: &[String],
) -> Result<ExitCode, CommandError> {
    let loaded = config::load_with_variables(matches, &environment, names).map_err(CommandError::Config)?;
    if !loaded.paths.problems.is_empty() {
        return Err(CommandError::Config(loaded.paths.problems));
    }
    let notes: Vec<_> =
        loaded.warnings.iter().chain(&loaded.paths.warnings).map(|note| format!("# {note}")).collect();
    writeln!(io::stdout(), "{}{}", loaded.effective, notes.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn print_error(name: &str, trouble: &CommandError) -> ExitCode {
    let (message, code) = match trouble {
        CommandError::Config(problems) => {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            (lines.join("\n"), EXIT_CONFIG)
        }
        CommandError::Message(message) => (format!("gateway {name}: {message}"), EXIT_SOFTWARE),
        CommandError::Output(error) => (format!("gateway {name}: {error}"), EXIT_SOFTWARE),
    };
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(code)
}

/// Well or not.
fn exit_code(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHECK_FAILED) }
}
