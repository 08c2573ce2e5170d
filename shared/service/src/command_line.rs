//! The command line that both programs have: settings in groups, a short help and a whole one, a man page.

mod manual;
mod reading;

use clap::{Arg, ArgAction, Command};

use super::settings::{Key, OWN_LINE};

/// What a line of help may take.
const WIDTH: usize = 100;

/// Behind the arguments of a subcommand.
const LAST: usize = 1_000;

/// The widest column of things in a list.
const MOST_THING: usize = 52;

/// A thing and what it means, such as an exit code.
pub type Entry = (&'static str, &'static str);

/// What a program says of itself, in its help and in its man page.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// As it is called.
    pub name: &'static str,
    /// With the commit.
    pub version: &'static str,
    /// The date of the commit, or nothing.
    pub date: &'static str,
    /// One line.
    pub about: &'static str,
    /// Paragraphs of the man page.
    pub description: &'static [&'static str],
    /// The settings, each with its group.
    pub keys: &'static [Key],
    /// The option that names the file of settings.
    pub file: fn() -> Arg,
    /// The subcommands. What comes behind the options in the help of one (`after_help`) tells more about it.
    pub commands: fn() -> Vec<Command>,
    /// Where settings come from, and which place wins.
    pub precedence: &'static str,
    /// Commands to begin with, for the short help.
    pub examples: &'static [Entry],
    /// Further commands.
    pub more_examples: &'static [Entry],
    /// Codes and what they mean.
    pub exit_codes: &'static [Entry],
    /// Files and what they hold.
    pub files: &'static [Entry],
    /// Variables that are no settings.
    pub environment: &'static [Entry],
    /// Other pages, each with what it tells.
    pub see_also: &'static [Entry],
}

impl Program {
    /// The grammar.
    pub fn grammar(&self) -> Command {
        let settings = || self.keys.iter().filter(|key| !key.flagless).map(|key| self.setting(key));
        let hidden: Vec<Arg> = settings().map(|setting| setting.hide(true)).collect();
        Command::new(self.name)
            .version(self.version)
            .about(self.about)
            .max_term_width(WIDTH)
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .disable_version_flag(true)
            .arg((self.file)().global(true).display_order(LAST))
            .args(help_and_version())
            .args(settings())
            .subcommands((self.commands)().into_iter().map(|command| self.finished(command, &hidden)))
            .subcommand(help_command())
            .subcommand(Command::new("man").about("Print the man page").hide(true))
            .after_help(self.short_end())
            .after_long_help(self.long_end())
    }

    /// The setting with what it means: in the short help beside it, as wide as its group there leaves room for.
    fn setting(&self, key: &Key) -> Arg {
        let group = self.keys.iter().filter(|other| other.common && other.group == key.group);
        let flag =
            group.map(|key| format!("      --{} <{}>  ", key.flag(), key.value).len()).max().unwrap_or(0);
        // Where flags are this long, their meanings go to lines of their own.
        let beside = if flag > WIDTH * 2 / 5 { OWN_LINE } else { WIDTH - flag };
        key.arg().help(key.described(beside)).long_help(key.described(OWN_LINE))
    }

    /// The subcommand with the settings, which it takes and its help does not list, and the way to the help that does.
    fn finished(&self, command: Command, hidden: &[Arg]) -> Command {
        let inner: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        let more = command.get_after_help().map_or_else(String::new, |more| format!("{more}\n\n"));
        let end = format!("{more}Settings, examples and exit codes: {} --help", self.name);
        inner
            .iter()
            .fold(command, |command, name| command.mut_subcommand(name, |inner| self.finished(inner, hidden)))
            .args(hidden)
            .after_help(end)
    }

    fn short_end(&self) -> String {
        let (name, examples) = (self.name, examples(self.examples));
        format!("{examples}\n\n{}\n{}\n{name} --help-all shows every setting.", self.precedence, self.codes())
    }

    fn long_end(&self) -> String {
        let flagless: Vec<Entry> =
            self.keys.iter().filter(|key| key.flagless).map(|key| (key.env, key.help)).collect();
        let secrets = if flagless.is_empty() {
            String::new()
        } else {
            format!("Secrets, in the environment or the file only:\n{}\n\n", listed(&flagless))
        };
        let examples = examples(&[self.examples, self.more_examples].concat());
        format!("{secrets}{examples}\n\n{}\n{}", self.precedence, self.codes())
    }

    fn codes(&self) -> String {
        let codes: Vec<_> =
            self.exit_codes.iter().map(|(code, meaning)| format!("{code} {meaning}")).collect();
        format!("Exit codes: {}.", codes.join(", "))
    }
}

/// A command, and below it what it does.
fn examples(entries: &[Entry]) -> String {
    format!("Examples:\n{}", listed(entries))
}

/// Things in one column and meanings in another. What is too wide, or takes two lines, has its meaning on the next line.
fn listed(entries: &[Entry]) -> String {
    let width = |thing: &str| if thing.contains('\n') { usize::MAX } else { thing.chars().count() };
    let holds = |column: &usize| {
        let mut beside = entries.iter().filter(|(thing, _)| width(thing) <= *column);
        beside.all(|(_, meaning)| column + 4 + meaning.chars().count() <= WIDTH)
    };
    let widths = entries.iter().map(|(thing, _)| width(thing)).filter(|width| *width <= MOST_THING);
    let column = widths.filter(holds).max().unwrap_or(4);
    let line = |(thing, meaning): &Entry| {
        let gap = match column.checked_sub(width(thing)) {
            Some(rest) => " ".repeat(rest + 2),
            None => "\n      ".to_owned(),
        };
        format!("  {thing}{gap}{meaning}")
    };
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn help_and_version() -> [Arg; 3] {
    let flag = |name: &'static str| Arg::new(name).long(name).display_order(LAST);
    [
        flag("help").short('h').global(true).action(ArgAction::HelpShort).help("Print help"),
        flag("help-all").action(ArgAction::HelpLong).help("Print help with every setting"),
        flag("version").short('V').action(ArgAction::Version).help("Print version"),
    ]
}

fn help_command() -> Command {
    let command = Arg::new("command").value_name("COMMAND").num_args(0..).help("The command to explain");
    Command::new("help").about("Print help, or the help of a command").arg(command)
}

#[cfg(test)]
mod tests;
