//! The command line that both programs have: settings in groups, a short and a full help, a man page.

mod arguments;
mod man_page;

use clap::{Arg, ArgAction, Command};

use super::settings::{HELP_WIDTH, SettingSpec};

/// What a line of help may take.
const WIDTH: usize = 100;

/// Behind the arguments of a subcommand.
const DISPLAY_LAST: usize = 1_000;

/// The widest column of things in a list.
const MAX_FIRST_COLUMN: usize = 52;

/// A thing and what it means, such as an exit code.
pub type HelpEntry = (&'static str, &'static str);

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
    pub keys: &'static [SettingSpec],
    /// The option that names the file of settings.
    pub config_arg: fn() -> Arg,
    /// The subcommands; `after_help` of one stands behind its options and in the man page.
    pub commands: fn() -> Vec<Command>,
    /// Where settings come from, and which place wins.
    pub precedence: &'static str,
    /// Commands to begin with, for the short help.
    pub examples: &'static [HelpEntry],
    /// Further commands.
    pub more_examples: &'static [HelpEntry],
    /// Codes and what they mean.
    pub exit_codes: &'static [HelpEntry],
    /// Files and what they hold.
    pub files: &'static [HelpEntry],
    /// Variables that are no settings.
    pub environment: &'static [HelpEntry],
    /// Other pages, each with what it describes.
    pub see_also: &'static [HelpEntry],
}

impl Program {
    /// The grammar.
    pub fn command(&self) -> Command {
        let settings = || self.keys.iter().filter(|key| !key.no_flag).map(|key| self.setting_arg(key));
        let hidden: Vec<Arg> = settings().map(|setting| setting.hide(true)).collect();
        Command::new(self.name)
            .version(self.version)
            .about(self.about)
            .max_term_width(WIDTH)
            .disable_help_flag(true)
            .disable_help_subcommand(true)
            .disable_version_flag(true)
            .arg((self.config_arg)().global(true).display_order(DISPLAY_LAST))
            .args(help_and_version())
            .args(settings())
            .subcommands((self.commands)().into_iter().map(|command| self.with_settings(command, &hidden)))
            .subcommand(help_command())
            .subcommand(Command::new("man").about("Print the man page").hide(true))
            .after_help(self.short_after_help())
            .after_long_help(self.long_after_help())
    }

    /// The setting with what it means: in the short help beside it, as wide as its group there leaves room for.
    fn setting_arg(&self, key: &SettingSpec) -> Arg {
        let group = self.keys.iter().filter(|other| other.common && other.group == key.group);
        let flag = group
            .map(|key| format!("      --{} <{}>  ", key.flag(), key.value_name).len())
            .max()
            .unwrap_or(0);
        // Where flags are this long, their meanings go to lines of their own.
        let beside = if flag > WIDTH * 2 / 5 { HELP_WIDTH } else { WIDTH - flag };
        key.arg().help(key.help_text(beside)).long_help(key.help_text(HELP_WIDTH))
    }

    /// The subcommand with the settings, which it takes and its help does not list, and the way to the help that does.
    fn with_settings(&self, command: Command, hidden: &[Arg]) -> Command {
        let inner: Vec<String> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        let more = command.get_after_help().map_or_else(String::new, |more| format!("{more}\n\n"));
        let end = format!("{more}Settings, examples and exit codes: {} --help", self.name);
        inner
            .iter()
            .fold(command, |command, name| {
                command.mut_subcommand(name, |inner| self.with_settings(inner, hidden))
            })
            .args(hidden)
            .after_help(end)
    }

    fn short_after_help(&self) -> String {
        let (name, examples) = (self.name, examples(self.examples));
        format!(
            "{examples}\n\n{}\n{}\n{name} --help-all shows every setting.",
            self.precedence,
            self.exit_codes_line()
        )
    }

    fn long_after_help(&self) -> String {
        let flagless: Vec<HelpEntry> =
            self.keys.iter().filter(|key| key.no_flag).map(|key| (key.env, key.help)).collect();
        let secrets = if flagless.is_empty() {
            String::new()
        } else {
            format!("Secrets, in the environment or the file only:\n{}\n\n", two_columns(&flagless))
        };
        let examples = examples(&[self.examples, self.more_examples].concat());
        format!("{secrets}{examples}\n\n{}\n{}", self.precedence, self.exit_codes_line())
    }

    fn exit_codes_line(&self) -> String {
        let codes: Vec<_> =
            self.exit_codes.iter().map(|(code, description)| format!("{code} {description}")).collect();
        format!("Exit codes: {}.", codes.join(", "))
    }
}

/// A command, and below it what it does.
fn examples(entries: &[HelpEntry]) -> String {
    format!("Examples:\n{}", two_columns(entries))
}

/// Things in one column and meanings in another. What is too wide, or takes two lines, has its meaning on the next line.
fn two_columns(entries: &[HelpEntry]) -> String {
    let width = |term: &str| if term.contains('\n') { usize::MAX } else { term.chars().count() };
    let fits = |column: &usize| {
        let mut beside = entries.iter().filter(|(thing, _)| width(thing) <= *column);
        beside.all(|(_, description)| column + 4 + description.chars().count() <= WIDTH)
    };
    let widths = entries.iter().map(|(thing, _)| width(thing)).filter(|width| *width <= MAX_FIRST_COLUMN);
    let column = widths.filter(fits).max().unwrap_or(4);
    let line = |(term, description): &HelpEntry| {
        let gap = match column.checked_sub(width(term)) {
            Some(rest) => " ".repeat(rest + 2),
            None => "\n      ".to_owned(),
        };
        format!("  {term}{gap}{description}")
    };
    entries.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn help_and_version() -> [Arg; 3] {
    let flag = |name: &'static str| Arg::new(name).long(name).display_order(DISPLAY_LAST);
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
