//! `${NAME}` in values. The env file has python-dotenv's rules, where a name that nothing defines is empty; the backends'
//! YAML has the shell's, and there such a name is an error. `$NAME` is no reference: tokens contain dollar signs.

/// What `${NAME}` means, if anything defines it.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// As in the env file: `${NAME}` and `${NAME:-default}`; whatever is none stays as it is.
pub(super) fn expand(text: &str, lookup: Lookup<'_>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside, after)) = next_reference(rest) {
        let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
        let found = lookup(name).filter(|value| !value.is_empty());
        expanded.extend([before, found.as_deref().unwrap_or(default)]);
        rest = after;
    }
    expanded + rest
}

/// As in the YAML: `${NAME}`, `${NAME-default}` (unless it is set) and `${NAME:-default}` (unless it is set and not empty). An
/// undefined name that is the whole value is empty; inside a longer value it is an error.
pub(super) fn expand_yaml(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside, after)) = next_reference(rest) {
        let alone = before.is_empty() && after.is_empty() && rest.len() == text.len();
        let value = resolve(inside, lookup)?;
        if value.is_none() && !alone {
            return Err(format!(
                "expected {inside} to be defined, in the environment or in the env file; or give a default: \
                 ${{{inside}:-…}}"
            ));
        }
        expanded.extend([before, value.as_deref().unwrap_or_default()]);
        rest = after;
    }
    if rest.contains("${") {
        return Err("expected `}` behind `${` and a name".to_owned());
    }
    Ok(expanded + rest)
}

/// The value of what stands between the braces; `None` where nothing defines it.
fn resolve(inside: &str, lookup: Lookup<'_>) -> Result<Option<String>, String> {
    let end = inside.find(|ch: char| !(ch.is_ascii_alphanumeric() || ch == '_'));
    let (name, operator) = inside.split_at(end.unwrap_or(inside.len()));
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) || operator.contains("${") {
        return Err(EXPECTED.to_owned());
    }
    let found = lookup(name);
    if let Some(default) = operator.strip_prefix(":-") {
        return Ok(found.filter(|value| !value.is_empty()).or_else(|| Some(default.to_owned())));
    }
    match (operator, operator.strip_prefix('-')) {
        ("", _) => Ok(found),
        (_, Some(default)) => Ok(found.or_else(|| Some(default.to_owned()))),
        (_, None) => Err(EXPECTED.to_owned()),
    }
}

const EXPECTED: &str = "expected ${NAME}, ${NAME-default} or ${NAME:-default}, without a further ${ in it";

/// What stands before the first reference, in it, and behind it.
fn next_reference(text: &str) -> Option<(&str, &str, &str)> {
    let (before, reference) = text.split_once("${")?;
    let (inside, after) = reference.split_once('}')?;
    Some((before, inside, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn in_the_env_file_only_braced_names_are_replaced() {
        for (text, expected) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B}", ""),
            ("${B:-d}", "d"),
            ("${A:-d}", "1"),
            ("${EMPTY:-d}", "d"),
            ("$A ${", "$A ${"),
            ("${A", "${A"),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
    }

    #[test]
    fn in_the_yaml_defaults_are_the_shells_and_an_undefined_name_in_a_longer_value_is_named() {
        for (text, expected) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B}", ""),
            ("${B-}", ""),
            ("x${B-}y", "xy"),
            ("x${EMPTY}", "x"),
            ("${B-d}${B:-d}", "dd"),
            ("${A-d}${A:-d}", "11"),
            ("${EMPTY-d}.${EMPTY:-d}", ".d"),
            ("http://a:${PORT-10240}/v1", "http://a:10240/v1"),
            ("${URL:-http://[::1]:80}", "http://[::1]:80"),
            ("${B:--1}", "-1"),
            ("$A", "$A"),
            ("a$}", "a$}"),
        ] {
            assert_eq!(expand_yaml(text, &lookup).as_deref(), Ok(expected), "{text}");
        }
        for text in ["x${B}", "${B}x", "${A}${B}", "${B}${A}", " ${B}"] {
            assert!(
                expand_yaml(text, &lookup).unwrap_err().starts_with("expected B to be defined"),
                "{text}"
            );
        }
        for text in ["${A", "x${", "${A}${B"] {
            assert!(expand_yaml(text, &lookup).unwrap_err().contains("expected `}`"), "{text}");
        }
        for text in ["${}", "${A B}", "${1}", "${A:?no}", "${A:+x}", "${B:-${A}}", "${A:}"] {
            assert!(expand_yaml(text, &lookup).unwrap_err().contains("expected ${NAME}"), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[A${}:-]{0,24}") {
            let _ = (expand(&text, &lookup), expand_yaml(&text, &lookup));
        }
    }
}
