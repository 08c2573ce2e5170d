//! Units as `systemctl show` tells them.

use std::{collections::BTreeMap, fs, path::Path};

use super::subprocess;

pub(super) const SERVICE: &str = "ada2-sidecar.service";
pub(super) const SOCKET: &str = "ada2-sidecar.socket";
/// There while systemd is the service manager (`sd_booted`).
const SYSTEMD_RUNTIME_DIR: &str = "/run/systemd/system";

/// One unit's properties.
#[derive(Debug, Clone, Default)]
pub(super) struct SystemdUnit {
    pub(super) name: String,
    properties: BTreeMap<String, String>,
}

impl SystemdUnit {
    /// None where there is no systemd to ask, or it does not answer.
    pub(super) fn query(name: &str) -> Option<Self> {
        if !Path::new(SYSTEMD_RUNTIME_DIR).is_dir() {
            return None;
        }
        let output = subprocess::output("systemctl", &["show", "--no-pager", "--", name])?;
        output.success.then(|| Self::parse(name, &output.text))
    }

    /// A property that has several lines keeps them all.
    pub(super) fn parse(name: &str, text: &str) -> Self {
        let mut properties: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let known = properties.entry(key.to_owned()).or_default();
            if !known.is_empty() {
                known.push('\n');
            }
            known.push_str(value);
        }
        Self { name: name.to_owned(), properties }
    }

    /// Empty where it is not known.
    pub(super) fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", String::as_str)
    }

    pub(super) fn is(&self, property: &str, value: &str) -> bool {
        self.get(property) == value
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is("LoadState", "loaded")
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading")
    }

    /// Whether it starts at boot, by itself or because another unit's file asks for it.
    pub(super) fn starts_at_boot(&self) -> bool {
        // What is generated, transient or an alias is nobody's to enable; what is static somebody else starts.
        !matches!(self.get("UnitFileState"), "disabled" | "masked" | "masked-runtime" | "enabled-runtime")
    }

    /// The values of a setting as the unit's files give it, for one that `systemctl show` does not tell. An empty one takes
    /// back those before it.
    pub(super) fn values_in_files(&self, setting: &str) -> Vec<String> {
        let files =
            self.get("FragmentPath").split_whitespace().chain(self.get("DropInPaths").split_whitespace());
        let texts = files.map(|file| fs::read_to_string(file).unwrap_or_default());
        parse_values(texts, setting)
    }

    /// The file that gives a property this value, as far as it can be told.
    pub(super) fn file_setting(&self, line: &str) -> String {
        let files = self.get("DropInPaths").split_whitespace().chain([self.get("FragmentPath")]);
        let has = |file: &&str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|written| written.trim() == line)
        };
        files.filter(|file| !file.is_empty()).find(has).unwrap_or(&self.name).to_owned()
    }
}

fn parse_values(texts: impl Iterator<Item = String>, setting: &str) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for text in texts {
        for (name, value) in text.lines().filter_map(|line| line.trim().split_once('=')) {
            match value.trim() {
                _ if name.trim() != setting => {}
                "" => values.clear(),
                value => values.push(value.to_owned()),
            }
        }
    }
    values
}

/// Ours.
#[derive(Debug, Clone, Default)]
pub(super) struct SidecarUnits {
    pub(super) service: SystemdUnit,
    pub(super) socket: SystemdUnit,
}

impl SidecarUnits {
    pub(super) fn query() -> Option<Self> {
        Some(Self { service: SystemdUnit::query(SERVICE)?, socket: SystemdUnit::query(SOCKET)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_and_several_lines_of_one_are_kept() {
        let unit = SystemdUnit::parse(
            "a.socket",
            "LoadState=loaded\nListen=0.0.0.0:7860 (Stream)\nListen=[::1]:1 (Stream)\nX=a=b\n",
        );
        assert!(unit.is_loaded() && unit.is("X", "a=b") && unit.get("Y").is_empty());
        assert_eq!(unit.get("Listen"), "0.0.0.0:7860 (Stream)\n[::1]:1 (Stream)");
    }

    #[test]
    fn a_setting_is_collected_over_files_and_taken_back() {
        let read =
            |texts: &[&str]| parse_values(texts.iter().map(|text| (*text).to_owned()), "LoadCredential");
        assert_eq!(
            read(&["[Service]\n#LoadCredential=a:b\nLoadCredential=c:/d\n", "X=1\nLoadCredential = e:/f"]),
            ["c:/d", "e:/f"]
        );
        assert_eq!(read(&["LoadCredential=c:/d\n", "LoadCredential=\nLoadCredential=e:/f"]), ["e:/f"]);
    }

    #[test]
    fn what_starts_at_boot() {
        for (state, starts) in [
            ("enabled", true),
            ("disabled", false),
            ("static", true),
            ("generated", true),
            ("indirect", true),
            ("masked", false),
            ("", true),
            ("enabled-runtime", false),
            ("linked", true),
        ] {
            let unit = SystemdUnit::parse("a", &format!("UnitFileState={state}"));
            assert_eq!(unit.starts_at_boot(), starts, "{state}");
        }
    }
}
