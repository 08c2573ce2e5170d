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
    pub fn read(&self, arguments: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, ExitCode> {
        let grammar = self.grammar();
        let matches = parse(grammar.clone(), arguments)?;
        match matches.subcommand() {
            Some(("help", asked)) => {
                let words = asked.get_many::<String>("command").into_iter().flatten();
                // A word that is no name is not read as an option.
                let words = words.filter(|word| !word.starts_with('-')).map(OsString::from);
                let asks = [OsString::from(self.name)].into_iter().chain(words).chain(["--help".into()]);
                parse(grammar, asks)
            }
            Some(("man", _)) => {
                let _ = io::stdout().write_all(self.manual().as_bytes());
                Err(ExitCode::SUCCESS)
            }
            _ => Ok(matches),
        }
    }
}

fn parse(grammar: Command, arguments: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, ExitCode> {
    grammar.try_get_matches_from(arguments).map_err(|told| {
        let _ = told.print();
        if told.use_stderr() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS }
    })
}
