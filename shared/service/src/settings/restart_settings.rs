//! Settings that cannot change while the service runs. A reload that changes one is refused and names it.

use std::collections::BTreeMap;

use super::{Problem, SettingSource, Settings};

/// The keys that are read at start only, with their values as typed and where these came from.
#[derive(Debug, Clone, Default)]
pub struct RestartSettings(BTreeMap<&'static str, (String, SettingSource)>);

impl RestartSettings {
    /// One problem for each key that is another in `new`.
    pub fn changes(&self, new: &Self) -> Vec<Problem> {
        let keys = self.0.keys().chain(new.0.keys().filter(|key| !self.0.contains_key(*key)));
        keys.filter_map(|key| change(key, self.0.get(key), new.0.get(key))).collect()
    }
}

type RestartValue = (String, SettingSource);

fn change(key: &str, old: Option<&RestartValue>, new: Option<&RestartValue>) -> Option<Problem> {
    let text = |value: Option<&RestartValue>| value.map(|(text, _)| text.trim().to_owned());
    if text(old) == text(new) {
        return None;
    }
    let quoted = |value| text(value).map_or_else(|| "nothing".to_owned(), |text| format!("{text:?}"));
    let source = new.map_or(SettingSource::Default, |(_, source)| source.clone());
    let expected = format!(
        "expected {} as at start, found {}; it cannot change while the service runs: restart to apply",
        quoted(old),
        quoted(new)
    );
    Some(Problem::new(source, key, expected))
}

impl Settings {
    /// What a reload must not change. Not secrets: a message shows the values.
    pub fn restart_settings(&self) -> RestartSettings {
        let fixed = self.keys.iter().filter(|key| key.requires_restart && !key.secret);
        RestartSettings(
            fixed.filter_map(|key| Some((key.name, self.values.get(key.name)?.clone()))).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(values: &[(&'static str, &str)]) -> RestartSettings {
        let value = |text: &str| (text.to_owned(), SettingSource::Environment("T"));
        RestartSettings(values.iter().map(|(key, text)| (*key, value(text))).collect())
    }

    #[test]
    fn every_changed_key_is_named() {
        let old = fixed(&[("port", "1"), ("dir", "/a"), ("gone", "x")]);
        assert_eq!(old.changes(&fixed(&[("port", "1 "), ("dir", "/a"), ("gone", "x")])), []);
        let lines: Vec<_> = old
            .changes(&fixed(&[("port", "2"), ("dir", "/a"), ("new", "y")]))
            .iter()
            .map(|problem| problem.to_string().split_once(';').unwrap().0.to_owned())
            .collect();
        assert_eq!(
            lines,
            [
                "default: gone: expected \"x\" as at start, found nothing",
                "environment T: port: expected \"1\" as at start, found \"2\"",
                "environment T: new: expected nothing as at start, found \"y\"",
            ]
        );
    }
}
