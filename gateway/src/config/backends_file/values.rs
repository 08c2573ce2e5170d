//! Reading single values of the YAML: each with its key, so that a problem names it.

use reqwest::Url;
use serde_json::{Map, Value};
use service::settings::{Problem, nearest, scalar_text};

use super::{super::expand::expand_yaml, Walk};

impl Walk<'_> {
    pub(super) fn wrong(&mut self, key: &str, expected: &str) {
        self.problems.push(Problem::new(&self.source, key, expected));
    }

    /// Notes keys that are not ours.
    pub(super) fn strangers(&mut self, at: &str, map: &Map<String, Value>, ours: &[&str]) {
        for name in map.keys().filter(|name| !ours.contains(&name.as_str())) {
            self.stranger(at, name, ours);
        }
    }

    /// Notes one: where it looks like a misspelling of ours, by a line of its own.
    pub(super) fn stranger(&mut self, at: &str, name: &str, ours: &[&str]) {
        match nearest(name, ours.iter().copied()) {
            Some(meant) => {
                let told =
                    Problem::new(&self.source, format!("{at}{name}"), format!("did you mean {meant:?}?"));
                self.misspelt.push(told);
            }
            None => self.foreign.push(format!("{at}{name}")),
        }
    }

    /// A map of ours in a backend's, and in it nothing but these keys is.
    pub(super) fn section(
        &mut self,
        at: &str,
        map: &Map<String, Value>,
        name: &str,
        ours: &[&str],
    ) -> Map<String, Value> {
        let key = format!("{at}.{name}");
        let section = self.map(&key, map.get(name));
        self.strangers(&format!("{key}."), &section, ours);
        section
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

    /// A scalar as text, with references expanded. `None` where there is none, and where a problem was noted.
    pub(super) fn text(&mut self, key: &str, value: Option<&Value>) -> Option<String> {
        match value? {
            Value::String(text) => {
                let expanded = expand_yaml(text, self.variable);
                expanded.map_err(|why| self.wrong(key, &why)).ok()
            }
            Value::Array(_) | Value::Object(_) => {
                self.wrong(key, "expected one value");
                None
            }
            scalar => scalar_text(scalar),
        }
    }
}

/// What a base address must be; the text itself is not repeated, since people put passwords into it.
pub(in crate::config) const EXPECTED_URL: &str = "expected http://host:port or https://host:port, a path allowed, without user, password, query or fragment";

/// Reads a base address.
pub(in crate::config) fn base_url(text: &str) -> Option<Url> {
    let url: Url = text.trim().parse().ok()?;
    // A colon without a port would mean the scheme's own, which nobody who wrote it meant.
    let authority = text.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host()
        && !authority.trim_end().ends_with(':');
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}
