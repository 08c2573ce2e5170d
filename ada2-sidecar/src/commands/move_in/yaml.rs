//! Sets keys in a YAML file line by line, so that comments and order stay. The result is parsed and compared: if it is not
//! as intended, the file stays unchanged, and the error says which lines to add by hand. Pure.

use serde_json::{Map, Value};
use service::settings::{scalar_text, yaml_value};

/// The text with these keys set.
pub(crate) fn set_keys(text: &str, settings: &[(String, String)]) -> Result<String, String> {
    let mut edited = text.to_owned();
    for (key, value) in settings {
        edited = set_key(&edited, key, value);
    }
    if only_sets(text, &edited, settings) {
        return Ok(edited);
    }
    let lines: Vec<_> = settings.iter().map(|(key, value)| format!("{key}: {}", scalar(value))).collect();
    Err(format!("it cannot be edited safely; add these lines by hand: {}", lines.join("; ")))
}

/// Whether `after` contains these settings, and otherwise equals `before`.
fn only_sets(before: &str, after: &str, settings: &[(String, String)]) -> bool {
    let (Some(before), Some(mut after)) = (mapping(before), mapping(after)) else { return false };
    for (key, value) in settings {
        if after.remove(key).as_ref().and_then(scalar_text).as_ref() != Some(value) {
            return false;
        }
    }
    let is_set = |key: &String| settings.iter().any(|(set, _)| set == key);
    before.into_iter().filter(|(key, _)| !is_set(key)).collect::<Map<_, _>>() == after
}

fn mapping(text: &str) -> Option<Map<String, Value>> {
    match yaml_value(text).ok()? {
        Value::Null => Some(Map::new()),
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// Replaces the key's lines, else adds a line after a commented example of it, else at the end.
fn set_key(text: &str, key: &str, value: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    if let Some(at) = lines.iter().position(|line| is_key(line, key)) {
        let rest = lines[at + 1..].iter().take_while(|line| continues_value(line)).count();
        let comment = trailing_comment(lines[at]).map(|comment| format!(" {comment}")).unwrap_or_default();
        let line = format!("{key}: {}{comment}{end}", scalar(value));
        return [&lines[..at], &[line.as_str()], &lines[at + 1 + value_lines(&lines[at + 1..], rest)..]]
            .concat()
            .concat();
    }
    let line = format!("{key}: {}{end}", scalar(value));
    let example = lines.iter().rposition(|line| {
        line.strip_prefix('#').is_some_and(|line| is_key(line.trim_start_matches([' ', '#']), key))
    });
    let at = example.map_or(lines.len(), |at| at + 1);
    let before = lines[..at].concat();
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { end };
    [before.as_str(), gap, &line, &lines[at..].concat()].concat()
}

/// Without the comments and blank lines at the end, which belong to what follows.
fn value_lines(following: &[&str], rest: usize) -> usize {
    let is_about_next = |line: &&&str| line.trim().is_empty() || line.starts_with('#');
    rest - following[..rest].iter().rev().take_while(is_about_next).count()
}

fn is_key(line: &str, key: &str) -> bool {
    let quoted = [key.to_owned(), format!("\"{key}\""), format!("'{key}'")];
    quoted.iter().any(|key| {
        let rest =
            line.strip_prefix(key.as_str()).map(str::trim_start).and_then(|rest| rest.strip_prefix(':'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
    })
}

/// Whether a line continues the value above: indented lines, list items, blank lines and comments do.
fn continues_value(line: &str) -> bool {
    line.starts_with([' ', '\t', '#', '\n', '\r']) || line.starts_with("- ") || line.trim_end() == "-"
}

/// The comment at the end of a key's line. None if a `#` might be inside quotes.
fn trailing_comment(line: &str) -> Option<&str> {
    let value = line.split_once(':')?.1.trim();
    let rest = match value.chars().next()? {
        quote @ ('"' | '\'') => &value[1 + closing_quote(&value[1..], quote)?..],
        '#' => return Some(value),
        _ if value.contains(['"', '\'']) => return None,
        _ => value,
    };
    let at = rest.find(" #").or_else(|| rest.find("\t#"))?;
    Some(rest[at..].trim())
}

/// The position after the closing quote.
fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if c == '\\' && quote == '"' {
            chars.next();
        } else if c == quote {
            // In single quotes, two of them stand for one.
            if quote == '"' || !text[at + 1..].starts_with(quote) {
                return Some(at + 1);
            }
            chars.next();
        }
    }
    None
}

/// A YAML scalar with this text.
fn scalar(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./,+:".contains(c);
    let is_plain_scalar = value.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/')
        && value.chars().all(is_plain)
        && !value.ends_with(':');
    if is_plain_scalar { value.to_owned() } else { Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_are_set_and_all_other_lines_stay() {
        for (text, key, value, expected) in [
            ("", "gpu_id", "GPU-1", "gpu_id: GPU-1\n"),
            ("# a\n", "gpu_id", "GPU-1", "# a\ngpu_id: GPU-1\n"),
            ("gpu_id: 0     # index\nmax_n: 2\n", "gpu_id", "GPU-1", "gpu_id: GPU-1 # index\nmax_n: 2\n"),
            ("max_n: 2", "gpu_id", "GPU-1", "max_n: 2\ngpu_id: GPU-1\n"),
            (
                "# engine_url: http://a   # x\nmax_n: 2\n",
                "engine_url",
                "http://127.0.0.1:9090",
                "# engine_url: http://a   # x\nengine_url: http://127.0.0.1:9090\nmax_n: 2\n",
            ),
            (
                "allow_from:\n- 10.0.0.0/8\n  # inner\n- ::1/128\n\n# about n\nmax_n: 2\n",
                "allow_from",
                "127.0.0.0/8,::1/128",
                "allow_from: 127.0.0.0/8,::1/128\n\n# about n\nmax_n: 2\n",
            ),
            ("engine: \"a # b\" # c\r\n", "engine", "comfyui", "engine: comfyui # c\r\n"),
            (
                "presets:\n  engine: {model: x}\n",
                "engine",
                "comfyui",
                "presets:\n  engine: {model: x}\nengine: comfyui\n",
            ),
            ("'gpu' : optional\n", "gpu", "required", "gpu: required\n"),
            (
                "a: 1\n",
                "engine_output_dir",
                "/srv/my pictures",
                "a: 1\nengine_output_dir: \"/srv/my pictures\"\n",
            ),
        ] {
            let edited = set_keys(text, &settings(&[(key, value)]));
            assert_eq!(edited.as_deref(), Ok(expected), "{text:?}");
            assert_eq!(set_keys(expected, &settings(&[(key, value)])).as_deref(), Ok(expected), "once more");
        }
    }

    #[test]
    fn a_file_that_cannot_be_edited_safely_is_an_error() {
        for text in
            ["{engine: comfyui}\n", "a: 1\n...\n", "- a\n", "a: [1,\n", "a: |\n  gpu_id: 1\n---\nb: 1\n"]
        {
            let error = set_keys(text, &settings(&[("gpu_id", "GPU-1")])).unwrap_err();
            assert!(error.ends_with("by hand: gpu_id: GPU-1"), "{text:?}: {error}");
        }
    }

    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-zA-Z0-9_.:/,-]{1,20}",
            "[ -~]{1,20}",
            "[\\PC]{1,8}",
            Just("yes".to_owned()),
            Just("0012".to_owned())
        ]
    }

    /// A part of a file: a comment, a blank line, or an entry in one of the common forms.
    fn part(key: String) -> impl Strategy<Value = String> {
        let entry = move |(form, value, other): (u8, String, String)| {
            let (quoted, other) = (Value::from(value.as_str()), Value::from(other.as_str()));
            match form {
                0 => format!("{key}: {quoted}\n"),
                1 => format!("{key}: {quoted} # {key}: x\n"),
                2 => format!("{key}:\n  - {quoted}\n  # inner\n  - {other}\n"),
                3 => format!("{key}:\n- {quoted}\n- {other}\n"),
                4 => format!("{key}: [{quoted},\n  {other}]\n"),
                5 => format!("{key}:\n  inner: {quoted}\n\n  # x\n  gpu_id: {other}\n"),
                6 => format!("# {key}: {quoted}\n"),
                7 => format!("\n# a comment\n{key}: plain text   # why\n\n"),
                8 => format!("{key}: >-\n  folded\n  text\n"),
                _ => format!("\"{key}\" :  {quoted}\n"),
            }
        };
        (0..10_u8, value(), value()).prop_map(entry)
    }

    proptest! {
        #[test]
        fn only_the_given_key_changes_in_any_file(
            parts in ["engine", "engine_url", "gpu_id", "allow_from", "models", "other"]
                .map(|key| prop::option::of(part(key.to_owned()))),
            key in prop::sample::select(vec!["engine", "gpu_id", "allow_from", "new_key"]),
            value in value(),
        ) {
            let text: String = parts.into_iter().flatten().collect();
            prop_assume!(mapping(&text).is_some());
            let settings = [(key.to_owned(), value)];
            let edited = set_keys(&text, &settings).unwrap();
            prop_assert!(only_sets(&text, &edited, &settings));
            let comments = |text: &str| text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
            let remaining = comments(&edited);
            prop_assert!(comments(&text).iter().all(|comment| remaining.contains(comment)), "{text}\n->\n{edited}");
            prop_assert_eq!(set_keys(&edited, &settings).unwrap(), edited);
        }
    }
}
