//! The env file, in the syntax of python-dotenv: quotes, escapes, `export`, inline ` # comments`, `${NAME}`.
//! A plain `$` stays as it is. What cannot be read is named by line and key, never by value.

use std::collections::BTreeMap;

use super::expand::expand;

/// The variables of an env file.
#[derive(Debug, Default)]
pub(super) struct EnvFile {
    /// Name to value; of several lines the last counts.
    pub(super) values: BTreeMap<String, String>,
    /// The lines that could not be read.
    pub(super) faults: Vec<LineFault>,
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineFault {
    /// Counted from 1.
    pub(super) line: usize,
    /// The name before `=`, if there was one.
    pub(super) key: Option<String>,
    /// What was expected.
    pub(super) expected: &'static str,
}

impl EnvFile {
    /// Reads it. `${NAME}` is looked up in `environment`, then in the lines above.
    pub(super) fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut file = Self::default();
        let mut cursor = Cursor { rest: text.trim_start_matches('\u{feff}'), line: 1 };
        while !cursor.rest.is_empty() {
            let line = cursor.line;
            match binding(&mut cursor) {
                Ok(Some((key, value))) => {
                    let value =
                        expand(&value, &|name| environment(name).or_else(|| file.values.get(name).cloned()));
                    file.values.insert(key, value);
                }
                Ok(None) => {}
                Err((key, expected)) => {
                    file.faults.push(LineFault { line, key, expected });
                    cursor.line_end();
                }
            }
            cursor.eat(char::is_whitespace);
        }
        file
    }
}

struct Cursor<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Cursor<'a> {
    /// Takes the letters that `wanted` accepts.
    fn eat(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !wanted(letter)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn blanks(&mut self) -> bool {
        !self.eat(|letter| letter == ' ' || letter == '\t').is_empty()
    }

    fn line_end(&mut self) -> &'a str {
        self.eat(|letter| letter != '\n' && letter != '\r')
    }

    fn at_line_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with(['\n', '\r'])
    }
}

type Binding = Result<Option<(String, String)>, (Option<String>, &'static str)>;

fn binding(cursor: &mut Cursor<'_>) -> Binding {
    cursor.eat(char::is_whitespace);
    if cursor.rest.starts_with('#') || cursor.at_line_end() {
        cursor.line_end();
        return Ok(None);
    }
    if cursor.rest.strip_prefix("export").is_some_and(|rest| rest.starts_with([' ', '\t'])) {
        cursor.take("export".len());
        cursor.blanks();
    }
    let key =
        cursor.eat(|letter| !letter.is_whitespace() && letter != '=' && letter != '#').trim_matches('\'');
    cursor.blanks();
    if key.is_empty() {
        return Err((None, "expected NAME=value"));
    }
    if !cursor.rest.starts_with('=') {
        // A name alone: python-dotenv reads it as a variable without value, which is none.
        let alone = cursor.at_line_end() || cursor.rest.starts_with('#');
        cursor.line_end();
        return if alone { Ok(None) } else { Err((Some(key.to_owned()), "expected `=` after the name")) };
    }
    cursor.take(1);
    let spaced = cursor.blanks();
    let value = match cursor.rest.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let value = quoted(cursor, quote).ok_or((Some(key.to_owned()), "expected a closing quote"))?;
            cursor.blanks();
            if !(cursor.at_line_end() || cursor.rest.starts_with('#')) {
                return Err((Some(key.to_owned()), "expected nothing but a comment after the closing quote"));
            }
            cursor.line_end();
            value
        }
        Some('#') if spaced => {
            cursor.line_end();
            String::new()
        }
        _ => plain(cursor.line_end()).to_owned(),
    };
    Ok(Some((key.to_owned(), value)))
}

/// Up to the closing quote, which may lie on a later line. Takes nothing if there is none.
fn quoted(cursor: &mut Cursor<'_>, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut letters = cursor.rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == quote {
            cursor.take(at + 1);
            return Some(value);
        }
        if letter != '\\' {
            value.push(letter);
            continue;
        }
        let (_, escaped) = letters.next()?;
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
fn plain(text: &str) -> &str {
    let comment = text
        .char_indices()
        .zip(text.chars().skip(1))
        .find(|((_, letter), next)| letter.is_whitespace() && *next == '#')
        .map_or(text.len(), |((at, _), _)| at);
    text[..comment].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(line: &str) -> Option<String> {
        let file = EnvFile::parse(line, &|name| (name == "HOST").then(|| "ada2".to_owned()));
        assert_eq!(file.faults, [], "{line}");
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
    fn a_fault_names_line_and_key_and_never_the_value() {
        let file = EnvFile::parse("A=1\nTOKEN=\"hush hush\nB=2\n=x\nC 'hush'\nD='a' hush\nE=5", &|_| None);
        let fault =
            |line, key: Option<&str>, expected| LineFault { line, key: key.map(str::to_owned), expected };
        assert_eq!(
            file.faults,
            [
                fault(2, Some("TOKEN"), "expected a closing quote"),
                fault(4, None, "expected NAME=value"),
                fault(5, Some("C"), "expected `=` after the name"),
                fault(6, Some("D"), "expected nothing but a comment after the closing quote"),
            ]
        );
        assert!(!format!("{:?}", file.faults).contains("hush"));
        assert_eq!(file.values.len(), 3, "the other lines count: {:?}", file.values);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[K='\"\\\\# \n\r${}:a-]{0,40}") {
            let _ = EnvFile::parse(&text, &|_| None);
        }
    }
}
