//! Parsers of common values, and suggestions for misspelled names.

use std::time::Duration;

/// `unknown key; did you mean …?`
pub fn unknown_key<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(
        || "unknown key".to_owned(),
        |candidate| format!("unknown key; did you mean {candidate:?}?"),
    )
}

/// The known name that is likely meant, if any. Case, and dashes for underscores, make no difference.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let name = folded(name);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&name, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The variable that a name is likely to stand for. Strict: among other programs' names a false guess is noise.
pub fn nearest_variable<'a>(name: &str, ours: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    ours.map(|ours| (strsim::damerau_levenshtein(&name, ours), ours))
        .filter(|(distance, ours)| *distance <= 2.max(ours.len() / 8))
        .min()
        .map(|(_, ours)| ours)
}

/// The nearest known names, however far away; the nearest first.
pub fn nearest_n<'a>(name: &str, candidates: impl Iterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let mut all: Vec<_> =
        candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate)).collect();
    all.sort_unstable();
    all.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}

/// A number of bytes: `0`, `512MiB`, `8GiB`, `8G`; a bare number is bytes.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|ch: char| !(ch.is_ascii_digit() || ch == '_')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return None,
    };
    digits(number)?.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A number of bytes as a limit; 0 is none.
pub fn limit_bytes(text: &str) -> Option<Option<u64>> {
    bytes(text).map(|limit| Some(limit).filter(|limit| *limit > 0))
}

/// A whole number as people write it in YAML: `4194304`, `4_194_304`, `0x10`, `0o17`.
pub fn whole_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)];
    let written = radix.iter().find_map(|(prefix, radix)| Some((text.strip_prefix(prefix)?, *radix)));
    let (number, radix) = written.unwrap_or((text, 10));
    u64::from_str_radix(&digits(number)?, radix).ok()
}

/// A whole number from `LOW` to `HIGH`.
pub fn whole_number_in<T: TryFrom<u64>, const LOW: u64, const HIGH: u64>(text: &str) -> Option<T> {
    whole_number(text).filter(|number| (LOW..=HIGH).contains(number))?.try_into().ok()
}

/// A number as people write it in YAML: `7.5`, `7.50`, `1e3`.
pub fn number(text: &str) -> Option<f64> {
    digits(text.trim())?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Without the underscores between digits; they stand nowhere else.
fn digits(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let between = |at: usize| {
        let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_hexdigit);
        is_digit(at.checked_sub(1)) && is_digit(at.checked_add(1))
    };
    text.match_indices('_').all(|(at, _)| between(at)).then(|| text.replace('_', ""))
}

/// A duration: `500ms`, `30s`, `5m`; a bare number is seconds. Zero is none.
pub fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let split = text.find(|ch: char| ch.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let seconds = number.trim().parse::<f64>().ok()? * scale;
    (seconds > 0.0 && seconds <= 31_536_000.0).then(|| Duration::from_secs_f64(seconds))
}

/// A duration from `LOW` to `HIGH` milliseconds.
pub fn duration_in<const LOW: u64, const HIGH: u64>(text: &str) -> Option<Duration> {
    let range = Duration::from_millis(LOW)..=Duration::from_millis(HIGH);
    duration(text).filter(|duration| range.contains(duration))
}

/// `true` and `false` as people write them.
pub fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Comma-separated values, each read by `parse`. Nothing is an empty list.
pub fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, expected) in [
            ("4194304", Some(4_194_304)),
            ("4_194_304", Some(4_194_304)),
            (" 0012 ", Some(12)),
            ("0x1F", Some(31)),
            ("0o17", Some(15)),
            ("0b11", Some(3)),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("-1", None),
            ("1.0", None),
            ("", None),
        ] {
            assert_eq!(whole_number(text), expected, "{text}");
        }
        for (text, expected) in [
            ("7.50", Some(7.5)),
            ("1e3", Some(1000.0)),
            ("1_000.5", Some(1000.5)),
            ("nan", None),
            ("x", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(bytes("4_096KiB").or(bytes("_1")), Some(4 << 20));
    }

    #[test]
    fn a_name_in_capitals_or_with_dashes_is_near() {
        let candidates = || ["liveness", "bearer_env"].into_iter();
        for (name, expected) in
            [("LIVNESS", "liveness"), ("bearer-env", "bearer_env"), ("Liveness", "liveness")]
        {
            assert_eq!(nearest(name, candidates()), Some(expected));
        }
        assert_eq!(nearest("timeout", candidates()), None);
    }
}
