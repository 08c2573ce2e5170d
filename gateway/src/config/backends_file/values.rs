//! Reads single values, each with its key for the problem report.

use reqwest::Url;
use serde_json::{Map, Value};
use service::settings::{Problem, nearest, scalar_text};

use super::{super::expand::expand_yaml, BackendsParser};

impl BackendsParser<'_> {
    pub(super) fn report(&mut self, key: &str, expected: &str) {
        self.problems.push(Problem::new(&self.source, key, expected));
    }

    pub(super) fn report_unknown_keys(&mut self, at: &str, map: &Map<String, Value>, known_keys: &[&str]) {
        for name in map.keys().filter(|name| !known_keys.contains(&name.as_str())) {
            self.report_unknown_key(at, name, known_keys);
        }
    }

    /// Reports a likely misspelling on a line of its own, other unknown keys on one line together.
    pub(super) fn report_unknown_key(&mut self, at: &str, name: &str, known_keys: &[&str]) {
        match nearest(name, known_keys.iter().copied()) {
            Some(suggestion) => {
                let problem = Problem::new(
                    &self.source,
                    format!("{at}{name}"),
                    format!("did you mean {suggestion:?}?"),
                );
                self.misspelled.push(problem);
            }
            None => self.unknown.push(format!("{at}{name}")),
        }
    }

    /// A nested map that may have these keys only.
    pub(super) fn section(
        &mut self,
        at: &str,
        map: &Map<String, Value>,
        name: &str,
        known_keys: &[&str],
    ) -> Map<String, Value> {
        let key = format!("{at}.{name}");
        let section = self.map(&key, map.get(name));
        self.report_unknown_keys(&format!("{key}."), &section, known_keys);
        section
    }

    /// A path on the origin of the base URL.
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
            self.report(key, "expected a path such as /readyz");
        }
        url
    }

    pub(super) fn map(&mut self, key: &str, value: Option<&Value>) -> Map<String, Value> {
        match value {
            Some(Value::Object(map)) => map.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(_) => {
                self.report(key, "expected `name: value` pairs");
                Map::new()
            }
        }
    }

    /// A scalar as text, with references expanded. `None` if it is missing, or on a problem.
    pub(super) fn text(&mut self, key: &str, value: Option<&Value>) -> Option<String> {
        match value? {
            Value::String(text) => {
                let expanded = expand_yaml(text, self.variable);
                expanded.map_err(|why| self.report(key, &why)).ok()
            }
            Value::Array(_) | Value::Object(_) => {
                self.report(key, "expected one value");
                None
            }
            scalar => scalar_text(scalar),
        }
    }
}

/// What a base URL must be. Messages never quote the URL: people put passwords into it.
pub(in crate::config) const EXPECTED_URL: &str = "expected http://host:port or https://host:port, a path allowed, without user, password, query or fragment";

pub(in crate::config) fn base_url(text: &str) -> Option<Url> {
    let url: Url = text.trim().parse().ok()?;
    // The URL library takes a colon without a port for the default port, which is hardly what was meant.
    let authority = text.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or_default());
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.has_host()
        && !authority.trim_end().ends_with(':');
    (plain && matches!(url.scheme(), "http" | "https")).then_some(url)
}
