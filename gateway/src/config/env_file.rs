//! The env file, in the syntax of python-dotenv: quotes, escapes, `export`, inline ` # comments`, `${NAME}`.
//! A plain `$` stays as it is. Errors name line and key, never the value.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use clap::ArgMatches;
use service::settings::{Problem, describe_read_error};

use super::{ENV_FILE, KEYS, expand::expand};

const TOO_LONG: &str = "expected at most 16 KiB once each ${NAME} is replaced";

/// The variables of an env file.
#[derive(Debug, Default)]
pub(super) struct EnvFile {
    /// By name; of duplicates, the last counts.
    pub(super) values: BTreeMap<String, String>,
    pub(super) errors: Vec<EnvLineError>,
}

/// An invalid line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EnvLineError {
    /// Counted from 1.
    pub(super) line: usize,
    /// The name before `=`, if there was one.
    pub(super) key: Option<String>,
    pub(super) expected: &'static str,
}

impl EnvFile {
    /// `${NAME}` is looked up in `environment`, then in the lines above.
    pub(super) fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut file = Self::default();
        let mut cursor = Cursor { rest: text.trim_start_matches('\u{feff}'), line: 1 };
        while !cursor.rest.is_empty() {
            let line = cursor.line;
            match parse_line(&mut cursor) {
                Ok(Some((key, value))) => {
                    let lookup = |name: &str| environment(name).or_else(|| file.values.get(name).cloned());
                    match expand(&value, &lookup) {
                        Some(value) => drop(file.values.insert(key, value)),
                        None => file.errors.push(EnvLineError { line, key: Some(key), expected: TOO_LONG }),
                    }
                }
                Ok(None) => {}
                Err((key, expected)) => {
                    file.errors.push(EnvLineError { line, key, expected });
                    cursor.take_line();
                }
            }
            cursor.take_while(char::is_whitespace);
        }
        file
    }
}

/// The env file as found.
#[derive(Debug)]
pub(crate) struct LoadedEnvFile {
    pub(crate) path: PathBuf,
    pub(super) file: EnvFile,
    /// Whether it exists and cannot be read.
    pub(crate) is_unreadable: bool,
}

impl LoadedEnvFile {
    /// An invalid line is a problem only if it sets one of our settings, or has no name.
    pub(super) fn read(
        matches: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let named = matches.try_get_one::<String>("env-file").ok().flatten();
        let path = PathBuf::from(named.map_or(ENV_FILE, String::as_str));
        let file = match fs::read_to_string(&path) {
            Ok(text) => EnvFile::parse(&text, environment),
            Err(error) if named.is_some() || error.kind() != io::ErrorKind::NotFound => {
                let message = format!("expected a file: {}", describe_read_error(&path, &error));
                problems.push(Problem::new("--env-file", path.display().to_string(), message));
                return Self { path, file: EnvFile::default(), is_unreadable: true };
            }
            Err(_) => EnvFile::default(),
        };
        let ours =
            |key: &Option<String>| key.as_deref().is_none_or(|name| KEYS.iter().any(|key| key.env == name));
        for error in file.errors.iter().filter(|error| ours(&error.key)) {
            let source = format!("{}:{}", path.display(), error.line);
            problems.push(Problem::new(source, error.key.as_deref().unwrap_or("(no name)"), error.expected));
        }
        Self { path, file, is_unreadable: false }
    }

    pub(super) fn value(&self, name: &str) -> Option<String> {
        self.file.values.get(name).cloned()
    }
}

struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Cursor<'a> {
    fn take_while(&mut self, accept: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|ch| !accept(ch)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) -> bool {
        !self.take_while(|ch| ch == ' ' || ch == '\t').is_empty()
    }

    fn take_line(&mut self) -> &'a str {
        self.take_while(|ch| ch != '\n' && ch != '\r')
    }

    fn at_line_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with(['\n', '\r'])
    }
}

type ParsedLine = Result<Option<(String, String)>, (Option<String>, &'static str)>;

fn parse_line(cursor: &mut Cursor<'_>) -> ParsedLine {
    cursor.take_while(char::is_whitespace);
    if cursor.rest.starts_with('#') || cursor.at_line_end() {
        cursor.take_line();
        return Ok(None);
    }
    if cursor.rest.strip_prefix("export").is_some_and(|rest| rest.starts_with([' ', '\t'])) {
        cursor.take("export".len());
        cursor.skip_blanks();
    }
    let key = cursor.take_while(|ch| !ch.is_whitespace() && ch != '=' && ch != '#').trim_matches('\'');
    cursor.skip_blanks();
    if key.is_empty() {
        return Err((None, "expected NAME=value"));
    }
    if !cursor.rest.starts_with('=') {
        // For python-dotenv, a name alone is a variable without a value, which is as good as none.
        let alone = cursor.at_line_end() || cursor.rest.starts_with('#');
        cursor.take_line();
        return if alone { Ok(None) } else { Err((Some(key.to_owned()), "expected `=` after the name")) };
    }
    cursor.take(1);
    let spaced = cursor.skip_blanks();
    let value = match cursor.rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let value =
                parse_quoted(cursor, quote).ok_or((Some(key.to_owned()), "expected a closing quote"))?;
            cursor.skip_blanks();
            if !(cursor.at_line_end() || cursor.rest.starts_with('#')) {
                return Err((Some(key.to_owned()), "expected nothing but a comment after the closing quote"));
            }
            cursor.take_line();
            value
        }
        Some('#') if spaced => {
            cursor.take_line();
            String::new()
        }
        _ => strip_comment(cursor.take_line()).to_owned(),
    };
    Ok(Some((key.to_owned(), value)))
}

/// Up to the closing quote, which may be on a later line. Takes nothing if it is missing.
fn parse_quoted(cursor: &mut Cursor<'_>, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut chars = cursor.rest.char_indices().skip(1);
    while let Some((at, ch)) = chars.next() {
        if ch == quote {
            cursor.take(at + 1);
            return Some(value);
        }
        if ch != '\\' {
            value.push(ch);
            continue;
        }
        let (_, escaped) = chars.next()?;
        match (quote, escaped) {
            (_, '\\' | '\'') | ('"', '"') => value.push(escaped),
            ('"', 'n') => value.push('\n'),
            ('"', 't') => value.push('\t'),
            ('"', 'r') => value.push('\r'),
            _ => value.extend(['\\', escaped]),
        }
    }
    None
}

/// An unquoted value ends at white space followed by `#`.
fn strip_comment(text: &str) -> &str {
    let comment = text
        .char_indices()
        .zip(text.chars().skip(1))
        .find(|((_, ch), next)| ch.is_whitespace() && *next == '#')
        .map_or(text.len(), |((at, _), _)| at);
    text[..comment].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Option<String> {
        let file = EnvFile::parse(line, &|name| (name == "HOST").then(|| "ada2".to_owned()));
        assert_eq!(file.errors, [], "{line}");
        file.values.get("K").cloned()
    }

    #[test]
    fn lines_are_read_as_python_dotenv_reads_them() {
        for (line, expected) in [
            ("K=v", "v"),
            ("  export K = v  ", "v"),
            ("K=v # comment", "v"),
            ("K=v#not a comment", "v#not a comment"),
            ("K=#v", "#v"),
            ("K= # comment", ""),
            ("K=", ""),
            ("K=ab$cd", "ab$cd"),
            ("K=$HOST", "$HOST"),
            ("K=http://${HOST}:1", "http://ada2:1"),
            ("K=${NONE:-x}${NONE}", "x"),
            ("K='a # b' # c", "a # b"),
            ("K=\"a\\n\\\"b\\\" \\x\"", "a\n\"b\" \\x"),
            ("K='a\\'b\\n'", "a'b\\n"),
            ("K=\"two\nlines\"", "two\nlines"),
            ("K=a=b", "a=b"),
            ("\u{feff}K=v\r\n", "v"),
            ("'K'=v", "v"),
            ("K=1\nK=2", "2"),
            ("# K=1\n\n\t\nK=2\nOTHER", "2"),
            ("A=x\nK=${A}y", "xy"),
        ] {
            assert_eq!(value(line).as_deref(), Some(expected), "{line:?}");
        }
        assert_eq!(value("K"), None);
    }

    #[test]
    fn an_error_names_line_and_key_and_never_the_value() {
        let file = EnvFile::parse("A=1\nTOKEN=\"hush hush\nB=2\n=x\nC 'hush'\nD='a' hush\nE=5", &|_| None);
        let error =
            |line, key: Option<&str>, expected| EnvLineError { line, key: key.map(str::to_owned), expected };
        assert_eq!(
            file.errors,
            [
                error(2, Some("TOKEN"), "expected a closing quote"),
                error(4, None, "expected NAME=value"),
                error(5, Some("C"), "expected `=` after the name"),
                error(6, Some("D"), "expected nothing but a comment after the closing quote"),
            ]
        );
        assert!(!format!("{:?}", file.errors).contains("hush"));
        assert_eq!(file.values.len(), 3, "the other lines count: {:?}", file.values);
    }

    #[test]
    fn lines_that_double_each_other_end_at_a_limit() {
        let doubling = format!("A=0123456789{}\nB=b", "\nA=${A}${A}".repeat(100));
        let file = EnvFile::parse(&doubling, &|_| None);
        let errors: Vec<_> = file.errors.iter().map(|error| (error.line, error.expected)).collect();
        assert_eq!(errors[0], (12, TOO_LONG));
        assert_eq!((file.values["A"].len(), file.values["B"].as_str()), (10 << 10, "b"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[K='\"\\\\# \n\r${}:a-]{0,40}") {
            let _ = EnvFile::parse(&text, &|_| None);
        }
    }
}
