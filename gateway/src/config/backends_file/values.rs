//! Reading single values of the YAML: each with its key, so that a problem names it.

use reqwest::Url;
use serde_json::{Map, Value};
use shared::service::settings::{Problem, nearest};

use super::{super::expand::expand, Walk};

impl Walk<'_> {
    pub(super) fn wrong(&mut self, key: &str, expected: &str) {
        self.problems.push(Problem::new(&self.source, key, expected));
    }

    /// Notes keys that are not ours; those that look like a misspelling of ours by a line of their own.
    pub(super) fn strangers(
        &mut self,
        at: &str,
        map: &Map<String, Value>,
        ours: &[&str],
        notes: &mut Vec<String>,
    ) {
        for name in map.keys().filter(|name| !ours.contains(&name.as_str())) {
            match nearest(name, ours.iter().copied()) {
                Some(meant) => notes.push(format!("{}: {at}{name}: did you mean {meant:?}?", self.source)),
                None => self.foreign.push(format!("{at}{name}")),
            }
        }
    }

    /// A path on the origin of the base address.
    pub(super) fn path(
        &mut self,
        key: &str,
        value: Option<&Value>,
        default: &str,
        base_url: &Url,
    ) -> Option<Url> {
        let path = self.text(key, value).unwrap_or_else(|| default.to_owned());
        let url = path.starts_with('/').then(|| base_url.join(&path).ok()).flatten();
        let url = url.filter(|url| url.origin() == base_url.origin());
        if url.is_none() {
            self.wrong(key, "expected a path such as /readyz");
        }
        url
    }

    pub(super) fn map(&mut self, key: &str, value: Option<&Value>) -> Map<String, Value> {
        match value {
            Some(Value::Object(map)) => map.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(_) => {
                self.wrong(key, "expected `name: value` pairs");
                Map::new()
            }
        }
    }

    /// A scalar as text, with references expanded. `None` where there is none.
    pub(super) fn text(&mut self, key: &str, value: Option<&Value>) -> Option<String> {
        match value? {
            Value::String(text) => Some(expand(text, self.variable)),
            scalar @ (Value::Bool(_) | Value::Number(_)) => Some(scalar.to_string()),
            Value::Null => None,
            Value::Array(_) | Value::Object(_) => {
                self.wrong(key, "expected one value");
                None
            }
        }
    }
}

/// What a base address must be; the text itself is not repeated, since people put passwords into it.
pub(in crate::config) const EXPECTED_URL: &str = "expected http://host:port or https://host:port, a path allowed, without user, password, query or fragment";

/// Reads a base address.
pub(in crate::config) fn base_url(text: &str) -> Option<Url> {
    let url: Url = text.trim().parse().ok()?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host();
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}
