//! Settings: flag over environment over file over default, from one table of keys per program. Reading collects
//! every problem, so that a broken configuration is fixed in one go.

mod fixed;
mod key;
mod secret_file;
mod values;
mod yaml;

use std::{collections::BTreeMap, fmt, path::PathBuf, process::ExitCode};

use clap::ArgMatches;

use self::yaml::yaml_scalar;
pub use self::{
    fixed::Fixed,
    key::{Key, Outdated},
    values::{bytes, duration, list, nearest, nearest_few, truth, unknown_key},
    yaml::{YamlFile, yaml_fault},
};
use super::secret::redacted;

/// A broken configuration (`EX_CONFIG`); service managers must not restart on it.
pub const EXIT_CONFIG: u8 = 78;

/// Reads the command line. Help and version are printed and end well; a mistake is printed and ends with 78, as any
/// other mistake in the configuration does.
pub fn command_line(grammar: clap::Command) -> Result<ArgMatches, ExitCode> {
    grammar.try_get_matches().map_err(|told| {
        let _ = told.print();
        if told.use_stderr() { ExitCode::from(EXIT_CONFIG) } else { ExitCode::SUCCESS }
    })
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
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

impl fmt::Display for Source {
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
            source: one_line(&source.to_string()),
            key: one_line(&key.into()),
            expected: one_line(&expected.into()),
        }
    }
}

/// Text from a configuration for a terminal, a log or an answer: no secret, no control characters.
fn one_line(text: &str) -> String {
    let shown = redacted(text);
    if !shown.contains(char::is_control) {
        return shown;
    }
    let escaped = |letter: char| letter.is_control().then(|| letter.escape_default().to_string());
    shown.chars().map(|letter| escaped(letter).unwrap_or_else(|| letter.to_string())).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source, self.key, self.expected)
    }
}

/// The values of all keys as typed, and the problems found while reading them.
#[derive(Debug)]
pub struct Settings {
    keys: &'static [Key],
    values: BTreeMap<&'static str, (String, Source)>,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
}

impl Settings {
    /// Takes each key from the first place that has it. `file` maps a key to its value and place.
    pub fn gather(
        keys: &'static [Key],
        flags: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        file: &dyn Fn(&Key) -> Option<(String, Source)>,
    ) -> Self {
        let find = |key: &Key| {
            let flag = flags.try_get_one::<String>(key.name).ok().flatten();
            flag.map(|value| (value.clone(), Source::Flag(key.flag())))
                .or_else(|| environment(key.env).map(|value| (value, Source::Environment(key.env))))
                .or_else(|| file(key))
                .or_else(|| key.default.map(|value| (value.to_owned(), Source::Default)))
        };
        let values = keys.iter().filter_map(|key| Some((key.name, find(key)?))).collect();
        Self { keys, values, problems: Vec::new() }
    }

    /// The value as typed.
    pub fn raw(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// Where the value came from.
    pub fn source(&self, name: &str) -> Source {
        self.values.get(name).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Reads a key that has a value. `None` means a problem, which is noted.
    pub fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.optional(name, expected, parse) {
            Some(Some(value)) => Some(value),
            Some(None) => {
                self.complain(name, format!("expected {expected}, found nothing"));
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
                Some(key) => format!("{:?}", key.shown(text)),
                None => format!("{text:?}"),
            };
            self.complain(name, format!("expected {expected}, found {found}"));
        }
        parsed.map(Some)
    }

    /// Notes a problem with a key.
    pub fn complain(&mut self, name: &str, expected: impl Into<String>) {
        self.problems.push(Problem::new(self.source(name), name, expected));
    }

    /// What is set and going to be removed, each with what takes its place.
    pub fn outdated(&self) -> Vec<String> {
        let set = |key: &&Key| !matches!(self.source(key.name), Source::Default);
        let line = |key: &Key| {
            let (name, source) = (key.name, self.source(key.name));
            key.outdated.map(|outdated| {
                let advice = match outdated {
                    Outdated::ReplacedBy(other) => format!("set {other} in its place"),
                    Outdated::Removed(why) => format!("remove it: {why}"),
                };
                format!("{source}: {name}: read for this version only; {advice}")
            })
        };
        self.keys.iter().filter(set).filter_map(line).collect()
    }

    /// The effective configuration, a line a key with its source; secrets redacted.
    pub fn effective(&self) -> String {
        let line = |key: &Key| {
            let (value, source) = match self.values.get(key.name) {
                Some((value, source)) => (key.shown(value), source.to_string()),
                None => (String::new(), "not set".to_owned()),
            };
            format!("{}: {}  # {source}\n", key.name, yaml_scalar(&value))
        };
        self.keys.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::*;
    use crate::service::secret::redacted_address;

    const KEYS: &[Key] = &[
        Key::new("max_inflight", "T_MAX", "limit").or("4"),
        Key::new("token", "T_TOKEN", "token").secret(),
        Key::new("listen", "T_LISTEN", "address").or("0.0.0.0:1"),
    ];

    fn gather(flags: &[&str], env: &[(&str, &str)], file: &str) -> Settings {
        let command = clap::Command::new("t").args(KEYS.iter().map(Key::arg));
        let flags = command.get_matches_from([&["t"], flags].concat());
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let file = YamlFile::read(Path::new("f.yaml"), file, KEYS).unwrap();
        Settings::gather(KEYS, &flags, &env, &|key| file.get(key))
    }

    #[test]
    fn flag_over_environment_over_file_over_default() {
        let count =
            |settings: &mut Settings| settings.take("max_inflight", "a number", |text| text.parse().ok());
        assert_eq!(
            count(&mut gather(&["--max-inflight", "1"], &[("T_MAX", "2")], "max_inflight: 3")),
            Some(1)
        );
        assert_eq!(count(&mut gather(&[], &[("T_MAX", "2")], "max_inflight: 3")), Some(2));
        assert_eq!(count(&mut gather(&[], &[], "max_inflight: 3")), Some(3));
        assert_eq!(count(&mut gather(&[], &[], "")), Some(4u32));
    }

    #[test]
    fn every_problem_is_collected_and_no_secret_shown() {
        let mut settings = gather(&["--listen", "x"], &[("T_MAX", "many"), ("T_TOKEN", "hush")], "");
        let number = settings.take("max_inflight", "a number", |text| text.parse::<u32>().ok());
        assert_eq!(number, None);
        let _ = settings.take::<()>("listen", "an address", |_| None);
        let _ = settings.optional::<()>("token", "16 letters", |_| None);
        let lines: Vec<_> = settings.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "environment T_MAX: max_inflight: expected a number, found \"many\"",
                "--listen: listen: expected an address, found \"x\"",
                "environment T_TOKEN: token: expected 16 letters, found something else",
            ]
        );
        assert!(!settings.effective().contains("hush"));
    }

    #[test]
    fn neither_a_problem_nor_what_is_printed_shows_a_password() {
        const ADDRESS: &[Key] = &[Key::new("url", "T_URL", "").address(), Key::new("dir", "T_DIR", "")];
        for given in
            ["http://me:hush@x", "me:hush@x:1", "http://me:hu sh@x", "http://x/?k=hush", "http://x/#hush"]
        {
            let flags = clap::Command::new("t").get_matches_from(["t"]);
            let env = |_: &str| Some(given.to_owned());
            let mut settings = Settings::gather(ADDRESS, &flags, &env, &|_| None);
            let _ = settings.optional::<()>("url", "an address", |_| None);
            settings.complain("dir", format!("expected another place than\n{:?}", redacted_address(given)));
            let shown = settings.effective().lines().next().unwrap().to_owned();
            for line in settings.problems.iter().map(ToString::to_string).chain([shown]) {
                assert!(!line.contains("sh") && !line.contains('\n'), "{line}");
            }
        }
    }

    #[test]
    fn a_broken_file_is_told_by_its_place_and_never_quoted() {
        for (text, place) in [
            ("listen: x\ntoken: \"hush", "line 2"),
            ("token: hush\n  listen: [", "line"),
            ("token: hush\ntoken: hush", "given twice"),
            ("token: {hush: [hush}", "line 1"),
            ("token: hush\n---\ntoken: hush", "more than one document"),
            ("token: *hush", "line 1"),
            ("token: !hush hush\n\tlisten: x", "line"),
        ] {
            let problems = YamlFile::read(Path::new("f.yaml"), text, KEYS).unwrap_err();
            let said = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
            assert_eq!(said.len(), 1, "{text:?}: {said:?}");
            assert!(said[0].contains(place) && !said[0].contains("hush"), "{text:?}: {said:?}");
        }
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let problems = YamlFile::read(Path::new("f.yaml"), "max_inflght: 3\nzebra: 1", KEYS).unwrap_err();
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "f.yaml: max_inflght: unknown key; did you mean \"max_inflight\"?",
                "f.yaml: zebra: unknown key"
            ]
        );
        assert!(YamlFile::read(Path::new("f"), "- a\n- b", KEYS).is_err());
        assert!(YamlFile::read(Path::new("f"), "listen: {a: 1}", KEYS).is_err());
        assert!(YamlFile::read(Path::new("f"), "listen: [\nx", KEYS).is_err());
    }

    #[test]
    fn lists_and_scalars_are_one_text() {
        let settings = gather(&[], &[], "listen: ['127.0.0.1:1', '[::1]:2']\nmax_inflight: 7");
        assert_eq!(settings.raw("listen"), Some("127.0.0.1:1,[::1]:2"));
        assert_eq!(settings.raw("max_inflight"), Some("7"));
    }

    #[test]
    fn units() {
        assert_eq!(bytes("8GiB"), Some(8 << 30));
        assert_eq!(bytes("512 MiB"), Some(512 << 20));
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("1.5GiB").or(bytes("-1")).or(bytes("GiB")), None);
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("270"), Some(Duration::from_secs(270)));
        assert_eq!(duration("0").or(duration("-1s")).or(duration("1 day")).or(duration("NaN")), None);
    }
}
