//! Changing single members of an object in its text, so that every other byte stays as it came.

use std::ops::Range;

use super::JsonObject;

/// Where the members of interest lie in a text that is kept elsewhere.
#[derive(Debug)]
pub struct ObjectLayout {
    start: usize,
    len: usize,
    /// Name, the whole, the value.
    members: Vec<(&'static str, Range<usize>, Range<usize>)>,
}

impl JsonObject<'_> {
    /// The same without the text.
    pub fn layout(&self) -> ObjectLayout {
        let members = self.members.iter();
        let members = members.map(|member| (member.name, member.span.clone(), member.value_span.clone()));
        ObjectLayout { start: self.start, len: self.len, members: members.collect() }
    }
}

impl ObjectLayout {
    /// What to replace in the text, in its order, so that these members have these values, which are JSON, or are not
    /// there.
    pub fn edits(&self, text: &[u8], values: &[(&str, Option<String>)]) -> Vec<(Range<usize>, String)> {
        let (mut edits, mut removed, mut added) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in values {
            let mut given = self.members.iter().filter(|(known, ..)| known == name);
            match (given.next_back(), value) {
                (Some((_, _, at)), Some(value)) if is_same_value(&text[at.clone()], value) => {}
                (Some((_, _, at)), Some(value)) => edits.push((at.clone(), value.clone())),
                (Some((_, whole, _)), None) => removed.push(whole.clone()),
                (None, Some(value)) => added.push(format!("\"{name}\":{value}")),
                (None, None) => {}
            }
            // Where it is given twice, only the last counted.
            removed.extend(given.map(|(_, whole, _)| whole.clone()));
        }
        if !added.is_empty() {
            let comma = if self.len > removed.len() { "," } else { "" };
            edits.push((self.start..self.start, added.join(",") + comma));
        }
        edits.extend(self.removal_ranges(text, removed).into_iter().map(|gap| (gap, String::new())));
        edits.sort_by_key(|(range, _)| (range.start, range.end));
        edits
    }

    /// The text after [`Self::edits`].
    pub fn apply(&self, text: &[u8], values: &[(&str, Option<String>)]) -> Vec<u8> {
        let (mut edited, mut at) = (Vec::with_capacity(text.len()), 0);
        for (range, new) in self.edits(text, values) {
            edited.extend_from_slice(&text[at..range.start]);
            edited.extend_from_slice(new.as_bytes());
            at = range.end;
        }
        edited.extend_from_slice(&text[at..]);
        edited
    }

    /// What goes with members that go: the comma before each, and behind those that came first the one behind them.
    fn removal_ranges(&self, text: &[u8], mut removed: Vec<Range<usize>>) -> Vec<Range<usize>> {
        removed.sort_by_key(|whole| whole.start);
        let mut first = self.start;
        for whole in &mut removed {
            if whole.start == first {
                first = whole.end;
                let behind = text[whole.end..].iter().position(|byte| !byte.is_ascii_whitespace());
                let comma = behind.map(|behind| whole.end + behind).filter(|at| text[*at] == b',');
                if let Some(comma) = comma {
                    whole.end = comma + 1;
                }
            }
        }
        for at in 1..removed.len() {
            removed[at].start = removed[at].start.max(removed[at - 1].end);
        }
        removed
    }
}

/// Whether a member says this already, in whatever writing.
fn is_same_value(given: &[u8], value: &str) -> bool {
    let text = |json: &[u8]| serde_json::from_slice::<String>(json).ok();
    given == value.as_bytes() || text(value.as_bytes()).is_some_and(|value| text(given) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::{super::Duplicates, *};

    fn edited(text: &str, values: &[(&str, Option<&str>)]) -> String {
        let layout = JsonObject::parse_with(text, &["a", "b", "c"], Duplicates::KeepLast).unwrap().layout();
        let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.map(str::to_owned))).collect();
        String::from_utf8(layout.apply(text.as_bytes(), &values)).unwrap()
    }

    #[test]
    fn members_are_changed_added_and_taken_away_and_nothing_else() {
        for (text, values, expected) in [
            (r#"{ "x":1.0 , "a" : 1 }"#, &[("a", Some("2"))][..], r#"{ "x":1.0 , "a" : 2 }"#),
            (r#"{"\u0061":"\u0062"}"#, &[("a", Some("\"b\""))], r#"{"\u0061":"\u0062"}"#),
            (r#"{"a":1}"#, &[("b", Some("2")), ("c", Some("3"))], r#"{"b":2,"c":3,"a":1}"#),
            ("{ }", &[("b", Some("2")), ("a", None)], r#"{"b":2 }"#),
            (r#"{"a":1}"#, &[("a", None), ("b", Some("2"))], r#"{"b":2}"#),
            (r#"{ "a":1 , "x":0}"#, &[("a", None)], r#"{ "x":0}"#),
            (r#"{"x":0, "a":1 ,"y":0}"#, &[("a", None)], r#"{"x":0 ,"y":0}"#),
            (r#"{"x":0, "a":1 }"#, &[("a", None)], r#"{"x":0 }"#),
            (r#"{"a":1, "b":2 , "x":0}"#, &[("b", None), ("a", None)], r#"{ "x":0}"#),
            (r#"{"a":1, "x":0, "b":2}"#, &[("b", None), ("a", None)], r#"{ "x":0}"#),
            (r#"{"a":1,"b":2,"c":3}"#, &[("a", None), ("b", None), ("c", None)], "{}"),
            (r#"{"a":1,"x":0,"a":2,"a":3}"#, &[("a", Some("4"))], r#"{"x":0,"a":4}"#),
            (r#"{"a":1,"a":2}"#, &[("a", None), ("b", Some("3"))], r#"{"b":3}"#),
            (r#"{"a":1,"b":2}"#, &[("a", None), ("b", Some("3")), ("c", Some("4"))], r#"{"c":4,"b":3}"#),
        ] {
            assert_eq!(edited(text, values), expected, "{text} {values:?}");
        }
    }
}
