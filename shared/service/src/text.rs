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
}
