//! What the binary does besides serving: shows the card and the readiness in a terminal, and acknowledges what is latched.

mod ack;
mod show;

use std::process::ExitCode;

use clap::ArgMatches;

use crate::config::Config;

/// Something does not hold: the service is not ready, or the command could not do its work.
const EXIT_NO: u8 = 1;

/// Runs the subcommand, if it is one of these.
pub fn run(matches: &ArgMatches, config: &Config) -> Option<ExitCode> {
    let (name, arguments) = matches.subcommand()?;
    let done = match name {
        "gpu" => show::gpu(arguments, config),
        "readyz" => show::readyz(arguments, config),
        "ack" => ack::ack(config),
        _ => return None,
    };
    Some(done.unwrap_or_else(|error| {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "ada2-sidecar {name}: {error}");
        ExitCode::from(EXIT_NO)
    }))
}
