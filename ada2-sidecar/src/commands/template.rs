//! `ada2-sidecar template`: from a workflow to a template that works.

mod attempt;
mod proposal;

use std::{io, process::ExitCode};

use clap::ArgMatches;

use crate::config::Config;

/// Runs the subcommand, if it is `propose`, which needs no configuration.
pub(super) fn propose(arguments: &ArgMatches) -> Option<io::Result<ExitCode>> {
    let ("propose", arguments) = arguments.subcommand()? else { return None };
    Some(proposal::propose(arguments))
}

/// Runs the subcommand, if it is `try`.
pub(super) fn try_one(arguments: &ArgMatches, config: &Config) -> Option<io::Result<ExitCode>> {
    let ("try", arguments) = arguments.subcommand()? else { return None };
    Some(attempt::attempt(arguments, config))
}
