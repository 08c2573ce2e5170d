//! The man page, from the same tables as the help.

use clap::{Arg, Command};
use roff::{Inline, Roff, bold, italic, roman};

use super::{HelpEntry, Program};
use crate::settings::SettingSpec;

/// Commands for administrators.
const SECTION: &str = "8";

impl Program {
    /// The man page, in roff.
    pub fn man_page(&self) -> String {
        let mut page = Roff::new();
        let upper = self.name.to_uppercase();
        let plain = self.version.split(' ').next().unwrap_or_default();
        // An argument that is empty would be none.
        let date = if self.date.is_empty() { " " } else { self.date };
        let source = format!("{} {plain}", self.name);
        page.control("TH", [upper.as_str(), SECTION, date, &source, "System Administration"]);
        // Hyphenated names of settings cannot be searched for; stretched lines of them are hard to read.
        page.control("nh", []).control("ad", ["l"]);
        page.control("SH", ["NAME"]);
        page.text([roman(format!("{} - {}", self.name, self.about.trim_end_matches('.')))]);
        page.control("SH", ["SYNOPSIS"]);
        let file = (self.config_arg)();
        let mut usage = vec![bold(self.name), roman(" [")];
        usage.extend(option(&file));
        usage.extend([roman("] ["), italic("SETTING"), roman("]... ["), italic("COMMAND"), roman("]")]);
        page.text(usage);
        page.control("SH", ["DESCRIPTION"]);
        for paragraph in self.description {
            page.control("PP", []);
            page.text([roman(*paragraph)]);
        }
        self.options(&mut page, &file);
        page.control("SH", ["COMMANDS"]);
        for command in (self.commands)() {
            commands(&mut page, "", &command);
        }
        entries(&mut page, "FILES", self.files);
        page.control("SH", ["ENVIRONMENT"]);
        page.text([roman("Every setting can be given in the variable that is named with it. Besides:")]);
        list(&mut page, self.environment);
        entries(&mut page, "EXIT STATUS", self.exit_codes);
        page.control("SH", ["EXAMPLES"]);
        for (command, description) in self.examples.iter().chain(self.more_examples) {
            page.control("PP", []);
            page.text([roman(capitalize(description))]);
            page.control("PP", []);
            page.control("RS", ["4"]).control("nf", []);
            page.text([roman(*command)]);
            page.control("fi", []).control("RE", []);
        }
        entries(&mut page, "SEE ALSO", self.see_also);
        page.render()
    }

    fn options(&self, page: &mut Roff, file: &Arg) {
        page.control("SH", ["OPTIONS"]);
        page.text([roman(self.precedence)]);
        tagged_paragraph(page, option(file), &help(file));
        tagged_paragraph(page, vec![bold("-h"), roman(", "), bold("--help")], "Print a short help.");
        tagged_paragraph(page, vec![bold("--help-all")], "Print help with every setting.");
        tagged_paragraph(page, vec![bold("-V"), roman(", "), bold("--version")], "Print the version.");
        let settings = || self.keys.iter().filter(|key| key.deprecation.is_none());
        let mut groups: Vec<&str> = Vec::new();
        for key in settings() {
            if !groups.contains(&key.group) {
                groups.push(key.group);
            }
        }
        for group in groups {
            page.control("SS", [group]);
            for key in settings().filter(|key| key.group == group) {
                setting(page, key);
            }
        }
    }
}

fn setting(page: &mut Roff, key: &SettingSpec) {
    let head = if key.no_flag {
        vec![bold(key.env), roman(" (no option: command lines are public)")]
    } else {
        vec![bold(format!("--{}", key.flag())), roman(" "), italic(key.value_name)]
    };
    tagged_paragraph(page, head, &sentence(key.help));
    let mut names = Vec::new();
    if !key.no_flag {
        names.extend([roman("Environment: "), bold(key.env), roman(".")]);
    }
    if let Some(default) = key.default_text() {
        names.push(roman(format!("{}Default: {default}.", if names.is_empty() { "" } else { " " })));
    }
    if !names.is_empty() {
        page.control("br", []);
        page.text(names);
    }
}

/// A command with its own arguments, or the commands below it.
fn commands(page: &mut Roff, above: &str, command: &Command) {
    let name = format!("{above}{}", command.get_name());
    let mut inner = command.get_subcommands().peekable();
    if inner.peek().is_some() {
        inner.for_each(|inner| commands(page, &format!("{name} "), inner));
        return;
    }
    let mut head = vec![bold(name)];
    for argument in command.get_arguments() {
        head.push(roman(if argument.is_required_set() { " " } else { " [" }));
        head.extend(option(argument));
        head.push(roman(if argument.is_required_set() { "" } else { "]" }));
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let more = command.get_after_help().map_or_else(String::new, |more| format!(" {more}"));
    tagged_paragraph(page, head, &format!("{}{more}", sentence(&about)));
    let arguments: Vec<_> = command.get_arguments().collect();
    if arguments.is_empty() {
        return;
    }
    page.control("RS", []);
    for argument in arguments {
        tagged_paragraph(page, option(argument), &sentence(&help(argument)));
    }
    page.control("RE", []);
}

/// As it is typed.
fn option(argument: &Arg) -> Vec<Inline> {
    let takes = argument.get_action().takes_values();
    let names = argument.get_value_names().filter(|_| takes).unwrap_or_default();
    let value = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    match argument.get_long() {
        None => vec![italic(value)],
        Some(long) if value.is_empty() => vec![bold(format!("--{long}"))],
        Some(long) => vec![bold(format!("--{long}")), roman(" "), italic(value)],
    }
}

fn help(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

fn tagged_paragraph(page: &mut Roff, head: Vec<Inline>, text: &str) {
    page.control("TP", []);
    page.text(head);
    page.text([roman(text)]);
}

fn entries(page: &mut Roff, section: &str, entries: &[HelpEntry]) {
    page.control("SH", [section]);
    list(page, entries);
}

fn list(page: &mut Roff, entries: &[HelpEntry]) {
    for (term, description) in entries {
        tagged_paragraph(page, vec![bold(*term)], &capitalize(description));
    }
}

/// With its full stop.
fn sentence(text: &str) -> String {
    let end = if text.ends_with(['.', ':', '!', '?']) { "" } else { "." };
    format!("{text}{end}")
}

/// The same, with a capital letter.
fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|ch| ch.to_ascii_uppercase());
    first.into_iter().chain(sentence(chars.as_str()).chars()).collect()
}
