//! Parses the output of `nginx -T`: every file of the configuration, as nginx reads it.

use std::path::{Path, PathBuf};

const HEADER: &str = "# configuration file ";
/// Real configurations nest a handful of blocks.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    pub(crate) path: PathBuf,
    pub(crate) directives: Vec<Directive>,
}

/// One directive: `listen 7860;`, or `server { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Directive {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", String::as_str)
    }

    /// The directives of this name in its block.
    pub(crate) fn children<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.block.iter().flatten().filter(move |directive| directive.name == name)
    }
}

/// The error names file and line.
pub(crate) fn parse_dump(text: &str) -> Result<Vec<ConfigFile>, String> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix(HEADER).and_then(|rest| rest.strip_suffix(':')), files.last_mut()) {
            (Some(path), _) => files.push((path.into(), String::new())),
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    files.into_iter().map(|(path, text)| parse_file(&path, &text)).collect()
}

fn parse_file(path: &Path, text: &str) -> Result<ConfigFile, String> {
    let mut parser = Parser { rest: text, line: 1 };
    let directives =
        parser.directives(0).map_err(|error| format!("{}:{}: {error}", path.display(), parser.line))?;
    Ok(ConfigFile { path: path.to_owned(), directives })
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

impl Parser<'_> {
    /// Up to the end of the block, or of the file.
    fn directives(&mut self, depth: usize) -> Result<Vec<Directive>, String> {
        if depth > MAX_DEPTH {
            return Err("blocks are nested too deeply".to_owned());
        }
        let mut all = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut line = self.line;
        while let Some(token) = self.token()? {
            match token {
                Token::Word(word) => {
                    if words.is_empty() {
                        line = self.line;
                    }
                    words.push(word);
                }
                Token::End if words.is_empty() => {}
                Token::End => all.push(directive(line, &mut words, None)),
                Token::Open => {
                    let is_lua = words.first().is_some_and(|name| name.ends_with("_by_lua_block"));
                    let block = if is_lua { self.skip_block()? } else { self.directives(depth + 1)? };
                    all.push(directive(line, &mut words, Some(block)));
                }
                Token::Close if words.is_empty() && depth > 0 => return Ok(all),
                Token::Close => return Err("unexpected }".to_owned()),
            }
        }
        if depth > 0 || !words.is_empty() {
            return Err("the file ends in the middle of a directive".to_owned());
        }
        Ok(all)
    }

    fn next_char(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn token(&mut self) -> Result<Option<Token>, String> {
        loop {
            match self.rest.chars().next() {
                None => return Ok(None),
                Some('#') => while self.next_char().is_some_and(|c| c != '\n') {},
                Some(c) if c.is_whitespace() => {
                    self.next_char();
                }
                Some(';') => {
                    self.next_char();
                    return Ok(Some(Token::End));
                }
                Some('{') => {
                    self.next_char();
                    return Ok(Some(Token::Open));
                }
                Some('}') => {
                    self.next_char();
                    return Ok(Some(Token::Close));
                }
                Some(quote @ ('"' | '\'')) => {
                    self.next_char();
                    return self.quoted(quote).map(Some);
                }
                Some(_) => return Ok(Some(self.word())),
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Token, String> {
        let mut word = String::new();
        while let Some(c) = self.next_char() {
            match c {
                '\\' => word.extend(self.next_char()),
                c if c == quote => return Ok(Token::Word(word)),
                c => word.push(c),
            }
        }
        Err("an unterminated quote".to_owned())
    }

    /// A `{` directly after a `$` belongs to the word: `${name}`.
    fn word(&mut self) -> Token {
        let mut word = String::new();
        let mut variable = false;
        while let Some(c) = self.rest.chars().next() {
            let ends = match c {
                '{' if word.ends_with('$') => {
                    variable = true;
                    false
                }
                '}' if variable => {
                    variable = false;
                    false
                }
                ';' | '{' | '}' => true,
                c => c.is_whitespace(),
            };
            if ends {
                break;
            }
            self.next_char();
            if c == '\\' {
                word.extend(self.next_char());
            } else {
                word.push(c);
            }
        }
        Token::Word(word)
    }

    /// In a block of Lua only the braces count.
    fn skip_block(&mut self) -> Result<Vec<Directive>, String> {
        let mut open = 1;
        while let Some(c) = self.next_char() {
            open += i32::from(c == '{') - i32::from(c == '}');
            if open == 0 {
                return Ok(Vec::new());
            }
        }
        Err("an unterminated block".to_owned())
    }
}

fn directive(line: usize, words: &mut Vec<String>, block: Option<Vec<Directive>>) -> Directive {
    let mut words = std::mem::take(words).into_iter();
    let name = words.next().unwrap_or_default();
    Directive { line, name, arguments: words.collect(), block }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_blocks_quotes_and_comments_are_parsed() {
        let text = "nginx: test is successful\n\
            # configuration file /etc/nginx/nginx.conf:\nhttp { # a } in a comment\n    include sites/*;\n}\n\n\
            # configuration file /etc/nginx/sites/a:\nserver {\n  listen 7860 default_server;\n\
            \x20 set $x \"a;}\\\"b\"; set $y ${x}z;\n  content_by_lua_block { if a then b = { 1 } end }\n}\n";
        let files = parse_dump(text).unwrap();
        assert_eq!(files.len(), 2);
        let server = &files[1].directives[0];
        assert_eq!((server.name.as_str(), server.line), ("server", 1));
        let listen = server.children("listen").next().unwrap();
        assert_eq!((listen.line, listen.argument(0), listen.argument(1)), (2, "7860", "default_server"));
        let set: Vec<_> = server.children("set").map(|set| set.argument(1)).collect();
        assert_eq!(set, ["a;}\"b", "${x}z"]);
        assert_eq!(server.children("content_by_lua_block").count(), 1);
        assert_eq!(files[0].directives[0].children("include").next().unwrap().line, 2);
    }

    #[test]
    fn an_error_names_file_and_line() {
        for (text, expected) in [
            ("server {\n listen 1;\n", "/a:3: the file ends"),
            ("}\n", "/a:1: unexpected }"),
            ("a 'b\n", "/a:2: an unterminated quote"),
            ("listen 1", "/a:2: the file ends in the middle"),
        ] {
            let error = parse_dump(&format!("# configuration file /a:\n{text}")).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let deep = format!("# configuration file /a:\n{}", "a {".repeat(100_000));
        assert!(parse_dump(&deep).unwrap_err().contains("nested too deeply"));
    }
}
