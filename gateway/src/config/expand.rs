//! `${NAME}` and `${NAME:-default}` in values, as python-dotenv and the existing YAML use them. `$NAME` is no such
//! thing: tokens contain dollar signs.

/// Replaces every reference. A name that nothing defines is empty.
pub(super) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        expanded.push_str(before);
        let Some(end) = reference.find('}') else {
            rest = reference;
            break;
        };
        let inside = &reference[2..end];
        let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
        let found = lookup(name).filter(|value| !value.is_empty());
        expanded.push_str(found.as_deref().unwrap_or(default));
        rest = &reference[end + 1..];
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn only_braced_names_are_replaced() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B}", ""),
            ("${B:-d}", "d"),
            ("${A:-d}", "1"),
            ("$A ${", "$A ${"),
            ("${A", "${A"),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
    }
}
