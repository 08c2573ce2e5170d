//! Misspelled settings among the variables of the process. The environment holds variables of other programs, too: only what is near one of ours, or has our prefix, is told.

use super::{Problem, SettingSpec, nearest_variable};

/// The names of all variables of the process, and which of them are read.
#[derive(Clone, Copy)]
pub struct EnvVars<'a> {
    /// All of them.
    pub names: &'a [String],
    /// The settings.
    pub keys: &'a [SettingSpec],
    /// Whether something besides the settings reads one.
    pub is_read: &'a dyn Fn(&str) -> bool,
}

impl<'a> EnvVars<'a> {
    /// Those that look like a misspelling of a setting.
    pub fn misspelled(self) -> Vec<Problem> {
        let problem = |name: &str| {
            let suggestion = self.suggestion(name)?;
            Some(Problem::new(
                "environment",
                escaped(name),
                format!("is not a setting; did you mean {suggestion}?"),
            ))
        };
        self.unknown_names().into_iter().filter_map(problem).collect()
    }

    /// One line for the others that have this prefix.
    pub fn unused_with_prefix(self, prefix: &str) -> Option<String> {
        let other = |name: &&str| name.starts_with(prefix) && self.suggestion(name).is_none();
        let others: Vec<_> = self.unknown_names().into_iter().filter(other).map(escaped).collect();
        (!others.is_empty()).then(|| format!("environment: unknown settings, ignored: {}", others.join(", ")))
    }

    fn unknown_names(self) -> Vec<&'a str> {
        let is_ours = |name: &str| self.keys.iter().any(|key| key.env == name) || (self.is_read)(name);
        let mut names: Vec<_> = self.names.iter().map(String::as_str).filter(|name| !is_ours(name)).collect();
        names.sort_unstable();
        names
    }

    fn suggestion(self, name: &str) -> Option<&'a str> {
        nearest_variable(name, self.keys.iter().map(|key| key.env))
    }
}

impl std::fmt::Debug for EnvVars<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names).finish()
    }
}

fn escaped(name: &str) -> String {
    name.escape_debug().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_or_prefixed_names_are_reported() {
        let keys =
            [SettingSpec::new("port", "GATEWAY_PORT", ""), SettingSpec::new("max", "MAX_REQUEST_BYTES", "")];
        let lints_of = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let variables = EnvVars { names: &names, keys: &keys, is_read: &|name| name == "GATEWAY_HOME" };
            let misspelled: Vec<_> = variables.misspelled().iter().map(ToString::to_string).collect();
            (misspelled, variables.unused_with_prefix("GATEWAY_"))
        };
        let misspelled = [
            "environment: GATEWAY_PROT: is not a setting; did you mean GATEWAY_PORT?",
            "environment: MAX_REQEST_BYTES: is not a setting; did you mean MAX_REQUEST_BYTES?",
        ];
        assert_eq!(
            lints_of(&["PATH", "MAX_REQEST_BYTES", "GATEWAY_PROT", "GATEWAY_PORT", "GATEWAY_HOME"]),
            (misspelled.map(str::to_owned).to_vec(), None)
        );
        let others = "environment: unknown settings, ignored: GATEWAY_AGE, GATEWAY_COLOUR_OF_DOOR";
        assert_eq!(
            lints_of(&["GATEWAY_COLOUR_OF_DOOR", "HOME", "GATEWAY_AGE"]),
            (vec![], Some(others.to_owned()))
        );
        assert_eq!(lints_of(&["HOME", "PORT", "USER", "MAX_BYTES"]), (vec![], None));
    }
}
