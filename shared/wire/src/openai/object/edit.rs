//! Changes single members of an object in its text; every other byte stays as it is.

use std::ops::Range;

use super::JsonObject;

/// The positions of the members of interest, without the text.
#[derive(Debug)]
pub struct ObjectLayout {
    start: usize,
    len: usize,
    /// Name, position of the member, position of the value.
    members: Vec<(&'static str, Range<usize>, Range<usize>)>,
}

impl JsonObject<'_> {
    /// The positions without the text.
    pub fn layout(&self) -> ObjectLayout {
        let members = self.members.iter();
        let members = members.map(|member| (member.name, member.span.clone(), member.value_span.clone()));
        ObjectLayout { start: self.start, len: self.len, members: members.collect() }
    }
}

impl ObjectLayout {
    /// The replacements in the text, in order, that set these members to these JSON values, or remove them.
    pub fn edits(&self, text: &[u8], values: &[(&str, Option<String>)]) -> Vec<(Range<usize>, String)> {
        let (mut edits, mut removed, mut added) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in values {
            let mut matching = self.members.iter().filter(|(other, ..)| other == name);
            match (matching.next_back(), value) {
                (Some((_, _, at)), Some(value)) if is_same_value(&text[at.clone()], value) => {}
                (Some((_, _, at)), Some(value)) => edits.push((at.clone(), value.clone())),
                (Some((_, span, _)), None) => removed.push(span.clone()),
                (None, Some(value)) => added.push(format!("\"{name}\":{value}")),
                (None, None) => {}
            }
            // Of duplicates only the last counted.
            removed.extend(matching.map(|(_, span, _)| span.clone()));
        }
        if !added.is_empty() {
            let comma = if self.len > removed.len() { "," } else { "" };
            edits.push((self.start..self.start, added.join(",") + comma));
        }
        edits.extend(self.removal_ranges(text, removed).into_iter().map(|gap| (gap, String::new())));
        edits.sort_by_key(|(range, _)| (range.start, range.end));
        edits
    }

    /// The text with [`Self::edits`] applied.
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

    /// The ranges to remove: each member with the comma before it, leading ones with the comma after them.
    fn removal_ranges(&self, text: &[u8], mut removed: Vec<Range<usize>>) -> Vec<Range<usize>> {
        removed.sort_by_key(|span| span.start);
        let mut first = self.start;
        for span in &mut removed {
            if span.start == first {
                first = span.end;
                let next = text[span.end..].iter().position(|byte| !byte.is_ascii_whitespace());
                let comma = next.map(|offset| span.end + offset).filter(|at| text[*at] == b',');
                if let Some(comma) = comma {
                    span.end = comma + 1;
                }
            }
        }
        for at in 1..removed.len() {
            removed[at].start = removed[at].start.max(removed[at - 1].end);
        }
        removed
    }
}

/// Whether a member has this value already, in any notation.
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
    fn members_are_changed_added_and_removed_and_nothing_else() {
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
