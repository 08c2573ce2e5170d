//! The subcommands: check the configuration, create tokens, show the authority, and query a running gateway.

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

/// A backend is not ready, or a check failed.
const EXIT_CHECK_FAILED: u8 = 1;

/// Looks up an environment variable.
type Environment = fn(&str) -> Option<String>;

/// Why a command failed.
#[derive(Debug)]
enum CommandError {
    /// The configuration is broken, or not readable by this user.
    Config(Vec<Problem>),
    /// With the next step.
    Message(String),
    Output(io::Error),
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the subcommand, if it is one of these. `names` are those of all environment variables.
pub fn run(matches: &ArgMatches, environment: Environment, names: &[String]) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let result = match name {
        "check-config" => check_config(matches, environment, names),
        "token" => token::run(matches, arguments, environment),
        "ca" => ca::run(matches, arguments, environment),
        "status" => status::run(arguments, environment),
        "verify" => verify::run(arguments, environment),
        "doctor" => doctor::run(arguments, environment, names),
        _ => return None,
    };
    Some(result.unwrap_or_else(|error| print_error(name, &error)))
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
    let warnings = loaded.warnings.iter().chain(&loaded.paths.warnings);
    let comments: Vec<_> = warnings.map(|warning| format!("# {warning}")).collect();
    writeln!(io::stdout(), "{}{}", loaded.effective, comments.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn print_error(name: &str, error: &CommandError) -> ExitCode {
    let (message, code) = match error {
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

fn exit_code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CHECK_FAILED) }
}
