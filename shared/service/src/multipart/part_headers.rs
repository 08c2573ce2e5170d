//! The head of a part, whose `Content-Disposition` has the part's name.

const MAX_LINES: usize = 32;

/// The part's name and its file name, if it has one; `None` if the head is malformed or ambiguous.
pub(super) fn parse(head: &[u8]) -> Option<(String, Option<String>)> {
    let head = str::from_utf8(head).ok()?;
    let mut names: Vec<&str> = Vec::new();
    let mut disposition = None;
    for line in head.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        let is_token = !name.is_empty() && name.bytes().all(is_token);
        let is_duplicate = names.iter().any(|other| other.eq_ignore_ascii_case(name));
        if !is_token || is_duplicate || value.contains(['\r', '\n', '\0']) || names.len() == MAX_LINES {
            return None;
        }
        names.push(name);
        if name.eq_ignore_ascii_case("content-disposition") {
            disposition = Some(value);
        }
    }
    parameters(disposition?)
}

/// Parses `form-data; name="a"; filename="b"`.
fn parameters(disposition: &str) -> Option<(String, Option<String>)> {
    let (kind, mut rest) = disposition.split_once(';')?;
    if !kind.trim_matches([' ', '\t']).eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut file_name) = (None, None);
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some((name.filter(|name: &String| !name.is_empty())?, file_name));
        }
        let (key, value) = rest.split_once('=')?;
        let value = value.trim_start();
        let (parsed, after) = parameter(value)?;
        let raw = &value[..value.len() - after.len()];
        match key.trim_end().to_ascii_lowercase().as_str() {
            "name" if name.is_some() || has_ambiguous_escape(raw) => return None,
            "name" => name = Some(parsed),
            // Other parsers would decode or join these into the name.
            key if key.starts_with("name*") => return None,
            "filename" => file_name = Some(parsed),
            // Not allowed in forms; nothing depends on it, so its encoding stays.
            "filename*" => file_name = file_name.or(Some(parsed)),
            _ => {}
        }
        rest = after;
    }
}

/// A value, quoted or not, and the rest of the text.
fn parameter(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
        return Some((value.trim_end().to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, ch)) = chars.next() {
        match ch {
            '"' => return Some((value, &quoted[at + 1..])).filter(|(_, rest)| is_value_end(rest)),
            // Only a quote is escaped: browsers write any other backslash as it is.
            '\\' if quoted[at + 1..].starts_with('"') => value.extend(chars.next().map(|(_, quote)| quote)),
            ch => value.push(ch),
        }
    }
    None
}

/// Whether a backslash stands before anything but a quote: some parsers drop it, others do not. Allowed in file names, which
/// nothing depends on: some browsers send whole paths.
fn has_ambiguous_escape(raw: &str) -> bool {
    let within = raw.strip_prefix('"').map(|rest| rest.replace("\\\"", ""));
    within.as_deref().unwrap_or(raw).contains('\\')
}

/// Whether the rest of the text may follow a quoted value.
fn is_value_end(rest: &str) -> bool {
    let rest = rest.trim_start_matches([' ', '\t']);
    rest.is_empty() || rest.starts_with(';')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
