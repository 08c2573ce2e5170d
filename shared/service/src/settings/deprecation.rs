//! Settings that the next version no longer reads, and the line that takes the place of each.

use super::{SettingSource, SettingSpec, Settings};

/// What to do instead of giving a deprecated setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deprecation {
    /// Give this entry in a setting that holds a list.
    ReplacedBy {
        /// The setting.
        list: &'static str,
        /// The entry.
        entry: &'static str,
    },
    /// Nothing, and why.
    Removed(&'static str),
}

impl Settings {
    /// A warning for each deprecated setting that is given, with the line to write instead.
    pub fn deprecated(&self) -> Vec<String> {
        let warning = |key: &SettingSpec| {
            let advice = match key.deprecation? {
                _ if self.raw(key.name).map(str::trim) == key.default => {
                    "remove it: it is the default".to_owned()
                }
                Deprecation::ReplacedBy { list, entry } => {
                    let entries: Vec<_> = std::iter::once(entry).chain(self.entries(list)).collect();
                    format!("set {list}: {} in its place", entries.join(","))
                }
                Deprecation::Removed(why) => format!("remove it: {why}"),
            };
            Some(format!("{}: {}: read for this version only; {advice}", self.source(key.name), key.name))
        };
        self.given().filter_map(warning).collect()
    }

    /// Reports each setting that is given beside an entry of a list that takes its place.
    pub fn report_conflicts(&mut self) {
        let conflicts: Vec<_> = self
            .given()
            .filter_map(|key| Some((key.name, key.conflict?)))
            .filter(|(_, (list, entry))| self.entries(list).any(|other| other == *entry))
            .collect();
        for (name, (list, entry)) in conflicts {
            let source = self.source(list);
            self.add_problem(
                name,
                format!("expected nothing beside {list}: {entry} ({source}); remove {name}"),
            );
        }
    }

    fn given(&self) -> impl Iterator<Item = &'static SettingSpec> {
        self.keys.iter().filter(|key| self.source(key.name) != SettingSource::Default)
    }

    fn entries(&self, list: &str) -> impl Iterator<Item = &str> {
        self.raw(list).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    const KEYS: &[SettingSpec] = &[
        SettingSpec::new("old", "T_OLD", "").with_default("gate").replaced_by("list", "entry"),
        SettingSpec::new("older", "T_OLDER", "").removed("it does nothing").conflicts_with("list", "other"),
        SettingSpec::new("list", "T_LIST", ""),
    ];

    fn settings(given: &[(&str, &str)]) -> Settings {
        let flags = Command::new("t").get_matches_from(["t"]);
        let environment = |name: &str| {
            given.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::resolve(KEYS, &flags, &environment, &|_| None)
    }

    #[test]
    fn a_deprecation_warning_shows_the_replacement() {
        assert_eq!(settings(&[]).deprecated(), [""; 0]);
        for (given, advice) in [
            (&[("T_OLD", "warn")][..], "set list: entry in its place"),
            (&[("T_OLD", "warn"), ("T_LIST", "a, b")], "set list: entry,a,b in its place"),
            (&[("T_OLD", " gate")], "remove it: it is the default"),
        ] {
            let expected = format!("environment T_OLD: old: read for this version only; {advice}");
            assert_eq!(settings(given).deprecated(), [expected]);
        }
        let expected = "environment T_OLDER: older: read for this version only; remove it: it does nothing";
        assert_eq!(settings(&[("T_OLDER", "x")]).deprecated(), [expected]);
    }

    #[test]
    fn a_deprecated_setting_beside_its_replacement_is_a_problem() {
        let problems = |given: &[(&str, &str)]| {
            let mut settings = settings(given);
            settings.report_conflicts();
            settings.problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(problems(&[("T_OLD", "warn"), ("T_OLDER", "x"), ("T_LIST", "a")]), [""; 0]);
        assert_eq!(problems(&[("T_LIST", "entry,other")]), [""; 0]);
        assert_eq!(
            problems(&[("T_OLD", "warn"), ("T_OLDER", "x"), ("T_LIST", "other , entry")]),
            [
                "environment T_OLD: old: expected nothing beside list: entry (environment T_LIST); remove old",
                "environment T_OLDER: older: expected nothing beside list: other (environment T_LIST); remove older",
            ]
        );
    }
}
