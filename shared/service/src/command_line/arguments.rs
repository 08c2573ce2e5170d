//! From arguments to matches. Help, version and man page are printed here.

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::{ArgMatches, Command};

use super::Program;
use crate::settings::EXIT_CONFIG;

impl Program {
    /// Reads the command line; the first argument is the program. Help, version and man page are printed and end well; a
    /// mistake is printed and ends with 78, as any other mistake in the configuration does.
    pub fn parse_args(&self, arguments: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, ExitCode> {
        let command = self.command();
        let matches = parse(command.clone(), arguments)?;
        match matches.subcommand() {
            Some(("help", help_matches)) => {
                let names = help_matches.get_many::<String>("command").into_iter().flatten();
                // An argument that is not a name is not read as an option.
                let names = names.filter(|name| !name.starts_with('-')).map(OsString::from);
                let help_args = [OsString::from(self.name)].into_iter().chain(names).chain(["--help".into()]);
                parse(command, help_args)
            }
            Some(("man", _)) => {
                let _ = io::stdout().write_all(self.man_page().as_bytes());
                Err(ExitCode::SUCCESS)
            }
            _ => Ok(matches),
        }
    }
}

fn parse(command: Command, arguments: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, ExitCode> {
    command.try_get_matches_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS }
    })
}
