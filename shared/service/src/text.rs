//! Foreign text in headers, log lines, errors and terminals: truncated, without control characters.

use std::borrow::Cow;

/// The first `chars` characters, borrowed.
pub fn prefix(text: &str, chars: usize) -> &str {
    text.char_indices().nth(chars).map_or(text, |(end, _)| &text[..end])
}

/// The first `chars` characters, with an ellipsis if there are more.
pub fn ellipsize(text: &str, chars: usize) -> Cow<'_, str> {
    let cut = prefix(text, chars);
    if cut.len() < text.len() { Cow::Owned(format!("{cut}\u{2026}")) } else { Cow::Borrowed(text) }
}

/// At most `chars` characters on one line, without control characters.
pub fn one_line(text: &str, chars: usize) -> String {
    text.chars().filter(|char| !char.is_control()).take(chars).collect()
}

/// For a terminal: unprintable characters, line breaks among them, are escaped.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\'' | '\\' => line.push(char),
            _ => line.extend(char.escape_debug()),
        }
    }
    line
}

/// As one shell argument, quoted if necessary.
pub fn shell_quoted(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', "'\\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_not_bytes() {
        assert_eq!(
            (prefix("\u{e9}\u{e9}\u{e9}", 2), prefix("ab", 2), prefix("", 2)),
            ("\u{e9}\u{e9}", "ab", "")
        );
        assert_eq!((&*ellipsize("abc", 2), &*ellipsize("abc", 3)), ("ab\u{2026}", "abc"));
        assert_eq!(one_line("a\r\n\u{1b}[1mb", 4), "a[1m");
    }

    #[test]
    fn unprintable_characters_are_escaped() {
        assert_eq!(
            printable("it's \"a\\b\"\n\u{1b}[2J\u{202e}\u{e9}"),
            "it's \"a\\b\"\\n\\u{1b}[2J\\u{202e}\u{e9}"
        );
    }

    #[test]
    fn shell_quoting_is_left_out_only_for_safe_characters() {
        for (text, quoted) in
            [("/var/lib/a-b_c.pem", "/var/lib/a-b_c.pem"), ("/a b/it's", "'/a b/it'\\''s'"), ("", "''")]
        {
            assert_eq!(shell_quoted(text), quoted);
        }
    }
}
