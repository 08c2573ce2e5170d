//! Settings: flag over environment over file over default, from one table of keys per program. Reading collects
//! every problem, so that a broken configuration is mended in one go.

mod fixed;
mod secret_file;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgMatches};
use serde_json::Value;

pub use self::fixed::Fixed;
use super::secret::{redacted, redacted_address};

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

/// One setting.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "marks of a setting that are independent of each other")]
pub struct Key {
    /// The key in the file; with dashes for underscores, the flag.
    pub name: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The value if nothing gives one.
    pub default: Option<&'static str>,
    /// Never shown, and not a flag unless the contract wants it: command lines are public.
    pub secret: bool,
    /// Whether the file may hold a map under it, which is then read from its text.
    pub structured: bool,
    /// Whether it cannot change while the service runs.
    pub fixed: bool,
    /// Whether it is an address, which is never shown with user name, password or query.
    pub address: bool,
    /// The flag, where it is not made from the key.
    pub long: Option<&'static str>,
    /// What to set in its place, where it is going to be removed.
    pub replaced_by: Option<&'static str>,
    /// What it means, for `--help`.
    pub help: &'static str,
}

impl Key {
    /// A key without default.
    pub const fn new(name: &'static str, env: &'static str, help: &'static str) -> Self {
        Self {
            name,
            env,
            default: None,
            secret: false,
            structured: false,
            fixed: false,
            address: false,
            long: None,
            replaced_by: None,
            help,
        }
    }

    /// With this default.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// With this flag.
    #[must_use]
    pub const fn long(mut self, flag: &'static str) -> Self {
        self.long = Some(flag);
        self
    }

    /// Never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// An address, which people put passwords into.
    #[must_use]
    pub const fn address(mut self) -> Self {
        self.address = true;
        self
    }

    /// Read at start only.
    #[must_use]
    pub const fn fixed(mut self) -> Self {
        self.fixed = true;
        self
    }

    /// With a map in the file.
    #[must_use]
    pub const fn structured(mut self) -> Self {
        self.structured = true;
        self
    }

    /// Going to be removed in the next version, in favour of this.
    #[must_use]
    pub const fn replaced_by(mut self, other: &'static str) -> Self {
        self.replaced_by = Some(other);
        self
    }

    /// The flag, without the leading dashes.
    pub fn flag(&self) -> String {
        self.long.map_or_else(|| self.name.to_ascii_lowercase().replace('_', "-"), str::to_owned)
    }

    /// A value of it as it may be shown.
    fn shown(&self, value: &str) -> String {
        match value {
            "" => String::new(),
            _ if self.secret => "[redacted]".to_owned(),
            address if self.address => redacted_address(address),
            text => redacted(text),
        }
    }

    /// The command-line argument.
    pub fn arg(&self) -> Arg {
        let default = self.default.map_or_else(String::new, |default| format!(" [default: {default}]"));
        Arg::new(self.name)
            .long(self.flag())
            .value_name("VALUE")
            .global(true)
            .allow_hyphen_values(true)
            .help(format!("{} [env: {}]{default}", self.help, self.env))
            .hide(self.replaced_by.is_some())
    }
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
    /// The built-in value.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
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
            key.replaced_by.map(|other| {
                format!("{source}: {name}: read for this version only; set {other} in its place")
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

/// A value as a YAML scalar that can be pasted back.
fn yaml_scalar(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./,+".contains(letter);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { Value::from(text).to_string() }
}

/// A YAML file of settings: scalars, and lists of scalars (the same as comma-separated text).
#[derive(Debug, Default)]
pub struct YamlFile {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

impl YamlFile {
    /// Reads it. Unknown keys are problems that name the nearest known one.
    pub fn read(path: &Path, text: &str, keys: &[Key]) -> Result<Self, Vec<Problem>> {
        let wrong = |key: &str, expected: String| Problem::new(path.display(), key, expected);
        let value: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text)
                .map_err(|error| vec![wrong("(the whole file)", yaml_fault(&error))])?
        };
        let map = match value {
            Value::Null => serde_json::Map::new(),
            Value::Object(map) => map,
            _ => return Err(vec![wrong("(the whole file)", "expected `key: value` lines".to_owned())]),
        };
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, value) in map {
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                problems.push(wrong(&name, unknown_key(&name, keys.iter().map(|key| key.name))));
                continue;
            };
            if key.structured && value.is_object() {
                values.insert(name, value.to_string());
            } else if let Some(text) = flat(&value) {
                values.insert(name, text);
            } else if !value.is_null() {
                problems.push(wrong(&name, "expected one value or a list of values".to_owned()));
            }
        }
        if problems.is_empty() { Ok(Self { path: path.to_owned(), values }) } else { Err(problems) }
    }

    /// The folder that it lies in: what paths in it are relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The value of a key and its place.
    pub fn get(&self, key: &Key) -> Option<(String, Source)> {
        self.values.get(key.name).map(|value| (value.clone(), Source::File(self.path.clone())))
    }
}

/// What is wrong with a YAML text, and where. The library's own words quote the lines around it, and with them any token.
pub fn yaml_fault(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{DuplicateMappingKey, Eof, MultipleDocuments};
    let what = match error.without_snippet() {
        DuplicateMappingKey { .. } => "a key is given twice",
        Eof { .. } => "it ends too early",
        MultipleDocuments { .. } => "it holds more than one document (`---`)",
        _ => "it cannot be read: look at its indentation, quotes, brackets and colons",
    };
    match error.location() {
        Some(place) => format!("expected YAML: line {}, column {}: {what}", place.line(), place.column()),
        None => format!("expected YAML: {what}"),
    }
}

fn flat(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => {
            items.iter().map(flat).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        Value::Null | Value::Object(_) => None,
    }
}

/// `unknown key; did you mean …?`
pub fn unknown_key<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(name, known)
        .map_or_else(|| "unknown key".to_owned(), |known| format!("unknown key; did you mean {known:?}?"))
}

/// The known name that is most likely meant, if any is likely.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 5)
        .min()
        .map(|(_, known)| known)
}

/// The known names that are nearest, however far that is; the nearest first.
pub fn nearest_few<'a>(name: &str, known: impl Iterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let mut all: Vec<_> = known.map(|known| (strsim::damerau_levenshtein(name, known), known)).collect();
    all.sort_unstable();
    all.into_iter().take(count).map(|(_, known)| known).collect()
}

/// A number of bytes: `0`, `512MiB`, `8GiB`, `8G`; a bare number is bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A duration: `500ms`, `30s`, `5m`; a bare number is seconds. Zero is none.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number.trim().parse::<f64>().ok()? * scale;
    (seconds > 0.0 && seconds <= 31_536_000.0).then(|| Duration::from_secs_f64(seconds))
}

/// `true` and `false` as people write them.
pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Comma-separated values, each read by `parse`. Nothing is an empty list.
pub fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
