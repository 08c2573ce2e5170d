//! Settings: flag over environment over file over default, from one table of keys per program. Reading collects
//! every problem, so that a broken configuration is fixed in one go.

mod deprecation;
mod environment;
mod key;
mod read_errors;
mod restart_settings;
mod scalars;
mod secret_file;
mod table;
mod values;
mod yaml;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use clap::ArgMatches;

use self::yaml::{yaml_error_message, yaml_scalar};
pub use self::{
    deprecation::Deprecation,
    environment::EnvVars,
    key::{HELP_WIDTH, SettingSpec},
    read_errors::{describe_read_error, without_consequential},
    restart_settings::RestartSettings,
    scalars::{scalar_text, yaml_value},
    table::{FieldValue, Parser},
    values::{
        boolean, bytes, duration, duration_in, limit_bytes, list, nearest, nearest_n, nearest_variable,
        number, unknown_key, whole_number, whole_number_in,
    },
    yaml::{WHOLE_FILE, YamlFile},
};
use super::secret::redact;

/// A broken configuration (`EX_CONFIG`); service managers must not restart on it.
pub const EXIT_CONFIG: u8 = 78;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingSource {
    /// `--flag`.
    Flag(String),
    /// A variable of the process.
    Environment(&'static str),
    /// A file.
    File(PathBuf),
    /// A credential of this name that systemd passes to the service (`LoadCredential=`).
    Credential(&'static str),
    /// The built-in value.
    Default,
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Credential(name) => write!(f, "systemd credential {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong with the configuration. Made by [`Problem::new`] alone, which shows no secret of what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file, flag or variable.
    pub source: String,
    /// The key.
    pub key: String,
    /// What was expected.
    pub expected: String,
}

impl Problem {
    /// A problem, on one line.
    pub fn new(source: impl fmt::Display, key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            source: redacted_line(&source.to_string()),
            key: redacted_line(&key.into()),
            expected: redacted_line(&expected.into()),
        }
    }
}

/// Text from a configuration for a terminal, a log or an answer: no secret, no control characters.
fn redacted_line(text: &str) -> String {
    let redacted = redact(text);
    if !redacted.contains(char::is_control) {
        return redacted;
    }
    let escaped = |ch: char| ch.is_control().then(|| ch.escape_default().to_string());
    redacted.chars().map(|ch| escaped(ch).unwrap_or_else(|| ch.to_string())).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source, self.key, self.expected)
    }
}

/// The values of all keys as given, and the problems found while reading them.
#[derive(Debug)]
pub struct Settings {
    keys: &'static [SettingSpec],
    values: BTreeMap<&'static str, (String, SettingSource)>,
    /// Values of the file that another source overrides.
    overridden: BTreeMap<&'static str, (String, SettingSource)>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

impl Settings {
    /// Takes each key from the first source that has it. `file` maps a key to its value and source.
    pub fn resolve(
        keys: &'static [SettingSpec],
        flags: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        file: &dyn Fn(&SettingSpec) -> Option<(String, SettingSource)>,
    ) -> Self {
        let (mut values, mut overridden) = (BTreeMap::new(), BTreeMap::new());
        for key in keys {
            let flag = flags.try_get_one::<String>(key.name).ok().flatten();
            let given = flag
                .map(|value| (value.clone(), SettingSource::Flag(key.flag())))
                .or_else(|| environment(key.env).map(|value| (value, SettingSource::Environment(key.env))));
            let in_file = file(key);
            if let (Some((given, _)), Some(other)) = (&given, &in_file)
                && matches!(other.1, SettingSource::File(_))
                && given.trim() != other.0.trim()
            {
                overridden.insert(key.name, other.clone());
            }
            let default = || key.default.map(|value| (value.to_owned(), SettingSource::Default));
            if let Some(value) = given.or(in_file).or_else(default) {
                values.insert(key.name, value);
            }
        }
        Self { keys, values, overridden, problems: Vec::new() }
    }

    /// The value as typed.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// Where the value came from.
    pub fn source(&self, name: &str) -> SettingSource {
        self.values.get(name).map_or(SettingSource::Default, |(_, source)| source.clone())
    }

    /// Reads a key that has a value. `None` means a problem, which is noted.
    pub fn required<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.optional(name, expected, parse) {
            Some(Some(value)) => Some(value),
            Some(None) => {
                self.add_problem(name, format!("expected {expected}, found nothing"));
                None
            }
            None => None,
        }
    }

    /// Reads a key that may have no value: `Some(None)` then. `None` means a problem, which is noted.
    pub fn optional<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        let Some((text, _)) = self.values.get(name) else { return Some(None) };
        let parsed = parse(text);
        if parsed.is_none() {
            let found = match self.keys.iter().find(|key| key.name == name) {
                Some(key) if key.secret => "something else".to_owned(),
                Some(key) => format!("{:?}", key.display_value(text)),
                None => format!("{text:?}"),
            };
            self.add_problem(name, format!("expected {expected}, found {found}"));
        }
        parsed.map(Some)
    }

    /// Notes a problem with a key.
    pub fn add_problem(&mut self, name: &str, expected: impl Into<String>) {
        self.problems.push(Problem::new(self.source(name), name, expected));
    }

    /// A line for each value of the file that a flag or a variable overrides.
    pub fn overridden(&self) -> Vec<String> {
        let line = |key: &SettingSpec| {
            let (value, file) = self.overridden.get(key.name)?;
            let (given, by) = self.values.get(key.name)?;
            let (value, given) = if key.secret || key.structured {
                ("this".to_owned(), "otherwise".to_owned())
            } else {
                (format!("{:?}", key.display_value(value)), format!("{:?}", key.display_value(given)))
            };
            let advice = match by {
                SettingSource::Environment(_) => {
                    "; remove it there (the service's plist or unit, or the shell), or here"
                }
                _ => "",
            };
            Some(format!("{file}: {}: {value} has no effect: {by} says {given}{advice}", key.name))
        };
        self.keys.iter().filter_map(line).collect()
    }

    /// The effective configuration, a line a key with its source; secrets redacted.
    pub fn effective(&self) -> String {
        let line = |key: &SettingSpec| {
            let (value, source) = match self.values.get(key.name) {
                Some((value, source)) => (key.display_value(value), source.to_string()),
                None => (String::new(), "not set".to_owned()),
            };
            format!("{}: {}  # {source}\n", key.name, yaml_scalar(&value))
        };
        self.keys.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests;
