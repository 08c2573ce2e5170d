//! `${NAME}` in values. The env file has python-dotenv's rules, where an undefined name is empty; the backends
//! file has the shell's, where it is an error. `$NAME` is not a reference: tokens contain dollar signs.

/// The value of a name, if it is defined.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Bytes of a value in which names were replaced. Each line of an env file could double the one before.
pub(super) const MAX_EXPANDED: usize = 16 << 10;

/// As in the env file: `${NAME}` and `${NAME:-default}`; all other text stays as it is. `None` if it would become longer
/// than [`MAX_EXPANDED`].
pub(super) fn expand(text: &str, lookup: Lookup<'_>) -> Option<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside, after)) = next_reference(rest) {
        let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
        let found = lookup(name).filter(|value| !value.is_empty());
        expanded.extend([before, found.as_deref().unwrap_or(default)]);
        rest = after;
        if expanded.len() > MAX_EXPANDED {
            return None;
        }
    }
    Some(expanded + rest)
}

/// As in the backends file: `${NAME}`, `${NAME-default}` (unless it is set) and `${NAME:-default}` (unless it is set and not empty). An
/// undefined name is empty if the value consists of nothing else; otherwise it is an error.
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
        return Err("expected `}` after `${` and a name".to_owned());
    }
    Ok(expanded + rest)
}

/// The value of a reference, given without its braces; `None` if the name is undefined.
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

const EXPECTED: &str = "expected ${NAME}, ${NAME-default} or ${NAME:-default}, without a nested ${";

/// The text before, inside and after the first reference.
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
            assert_eq!(expand(text, &lookup).as_deref(), Some(expected), "{text}");
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
