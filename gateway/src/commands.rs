//! What the binary does besides serving: checks the configuration, makes tokens, shows its authority, and asks a running gateway how it is.

mod ask;
mod ca;
mod doctor;
mod status;
mod token;
mod verify;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use service::settings::{EXIT_CONFIG, Problem};

use crate::{EXIT_FAILED, config};

/// Something does not hold: a backend is not ready, or a check failed.
const EXIT_NO: u8 = 1;

/// Where variables come from.
type Environment = fn(&str) -> Option<String>;

/// Why a command could not do its work.
#[derive(Debug)]
enum Trouble {
    /// The configuration is broken, or not readable for who runs the command.
    Config(Vec<Problem>),
    /// In words, with the next step.
    Words(String),
    /// Its output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Trouble {
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
    Some(done.unwrap_or_else(|trouble| told(name, &trouble)))
}

fn check_config(
    matches: &ArgMatches,
    environment: Environment,
    names: &[String],
) -> Result<ExitCode, Trouble> {
    let loaded = config::load_among(matches, &environment, names).map_err(Trouble::Config)?;
    if !loaded.places.problems.is_empty() {
        return Err(Trouble::Config(loaded.places.problems));
    }
    let notes: Vec<_> =
        loaded.notes.iter().chain(&loaded.places.notes).map(|note| format!("# {note}")).collect();
    writeln!(io::stdout(), "{}{}", loaded.effective, notes.join("\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn told(name: &str, trouble: &Trouble) -> ExitCode {
    let (words, code) = match trouble {
        Trouble::Config(problems) => {
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            (lines.join("\n"), EXIT_CONFIG)
        }
        Trouble::Words(words) => (format!("gateway {name}: {words}"), EXIT_FAILED),
        Trouble::Output(error) => (format!("gateway {name}: {error}"), EXIT_FAILED),
    };
    let _ = writeln!(io::stderr(), "{words}");
    ExitCode::from(code)
}

/// Well or not.
fn verdict(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO) }
}
