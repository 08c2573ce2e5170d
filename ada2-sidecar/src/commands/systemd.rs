//! systemd's units, as `systemctl show` and the unit files describe them.

mod environment;

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use service::subprocess::run;

pub(crate) use self::environment::{ServiceEnvironment, exec_arguments, exec_path};
pub(crate) use crate::port::SOCKET_UNIT as SOCKET;

pub(crate) const SERVICE: &str = "ada2-sidecar.service";
/// Exists while systemd is the service manager (`sd_booted`).
const RUNTIME_DIR: &str = "/run/systemd/system";
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// For one property, which those who change the host depend on: a loaded host may be slow.
const PROPERTY_TIMEOUT: Duration = Duration::from_mins(1);

/// Whether systemd is the service manager.
pub(crate) fn is_running() -> bool {
    Path::new(RUNTIME_DIR).is_dir()
}

/// A unit's property; empty if systemd does not know it.
pub(crate) fn property(unit: &str, property: &str) -> io::Result<String> {
    let property = format!("--property={property}");
    let output = run("systemctl", &["show", "--value", &property, unit], PROPERTY_TIMEOUT)?;
    Ok(output.stdout.trim().to_owned())
}

/// The TCP addresses of a socket unit.
pub(crate) fn listen_addresses(unit: &str) -> io::Result<Vec<SocketAddr>> {
    property(unit, "Listen").map(|text| parse_listen_addresses(&text))
}

/// Of `0.0.0.0:7860 (Stream)`, a line each. A bare port means every address.
pub(crate) fn parse_listen_addresses(text: &str) -> Vec<SocketAddr> {
    let address = |word: &str| word.parse().or_else(|_| format!("[::]:{word}").parse()).ok();
    text.split_whitespace().filter_map(address).collect()
}

/// The sidecar's units.
#[derive(Debug, Clone, Default)]
pub(crate) struct SidecarUnits {
    pub(crate) service: SystemdUnit,
    pub(crate) socket: SystemdUnit,
}

impl SidecarUnits {
    pub(crate) fn query() -> Option<Self> {
        Some(Self { service: SystemdUnit::query(SERVICE)?, socket: SystemdUnit::query(SOCKET)? })
    }
}

/// One unit's properties.
#[derive(Debug, Clone, Default)]
pub(crate) struct SystemdUnit {
    pub(crate) name: String,
    properties: BTreeMap<String, String>,
}

impl SystemdUnit {
    /// None if there is no systemd, or it does not answer.
    pub(crate) fn query(name: &str) -> Option<Self> {
        if !is_running() {
            return None;
        }
        let output = run("systemctl", &["show", "--no-pager", "--", name], QUERY_TIMEOUT).ok()?;
        output.success().then(|| Self::parse(name, &output.stdout))
    }

    /// A property that has several lines keeps them all.
    pub(crate) fn parse(name: &str, text: &str) -> Self {
        let mut properties: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let lines = properties.entry(key.to_owned()).or_default();
            if !lines.is_empty() {
                lines.push('\n');
            }
            lines.push_str(value);
        }
        Self { name: name.to_owned(), properties }
    }

    /// Empty if it is not known.
    pub(crate) fn get(&self, property: &str) -> &str {
        self.properties.get(property).map_or("", String::as_str)
    }

    pub(crate) fn is(&self, property: &str, value: &str) -> bool {
        self.get(property) == value
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.is("LoadState", "loaded")
    }

    pub(crate) fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), "active" | "reloading" | "refreshing")
    }

    /// Whether it starts at boot, by itself or because another unit requires it.
    pub(crate) fn starts_at_boot(&self) -> bool {
        // Generated, transient and alias units cannot be enabled; static ones are started by others.
        !matches!(self.get("UnitFileState"), "disabled" | "masked" | "masked-runtime" | "enabled-runtime")
    }

    /// For a message: how often systemd has restarted it.
    pub(crate) fn restart_note(&self) -> String {
        match self.get("NRestarts") {
            "" | "0" => String::new(),
            count => format!(", restarted by systemd {count} times since it was started"),
        }
    }

    /// The file behind `LoadCredential=token:FILE`.
    pub(crate) fn token_credential(&self) -> Option<PathBuf> {
        self.credential("token")
    }

    /// The file behind `LoadCredential=NAME:FILE`.
    pub(crate) fn credential(&self, name: &str) -> Option<PathBuf> {
        let path = |value: &String| value.strip_prefix(name)?.strip_prefix(':').map(PathBuf::from);
        self.values_in_files("LoadCredential").iter().rev().find_map(path)
    }

    /// The values of a setting that `systemctl show` does not print. An empty value discards those before it.
    pub(crate) fn values_in_files(&self, setting: &str) -> Vec<String> {
        let files =
            self.get("FragmentPath").split_whitespace().chain(self.get("DropInPaths").split_whitespace());
        let texts = files.map(|file| fs::read_to_string(file).unwrap_or_default());
        parse_values(texts, setting)
    }

    /// The file that contains this line, else the unit's name.
    pub(crate) fn file_with_line(&self, line: &str) -> String {
        let files = self.get("DropInPaths").split_whitespace().chain([self.get("FragmentPath")]);
        let has_line = |file: &&str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|written| written.trim() == line)
        };
        files.filter(|file| !file.is_empty()).find(has_line).unwrap_or(&self.name).to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_repeated_property_are_kept() {
        let unit = SystemdUnit::parse(
            "a.socket",
            "LoadState=loaded\nListen=0.0.0.0:7860 (Stream)\nListen=[::1]:1 (Stream)\nX=a=b\n",
        );
        assert!(unit.is_loaded() && unit.is("X", "a=b") && unit.get("Y").is_empty());
        assert_eq!(unit.get("Listen"), "0.0.0.0:7860 (Stream)\n[::1]:1 (Stream)");
    }

    #[test]
    fn the_values_of_a_setting_are_collected_from_all_files() {
        let read =
            |texts: &[&str]| parse_values(texts.iter().map(|text| (*text).to_owned()), "LoadCredential");
        assert_eq!(
            read(&["[Service]\n#LoadCredential=a:b\nLoadCredential=c:/d\n", "X=1\nLoadCredential = e:/f"]),
            ["c:/d", "e:/f"]
        );
        assert_eq!(read(&["LoadCredential=c:/d\n", "LoadCredential=\nLoadCredential=e:/f"]), ["e:/f"]);
    }

    #[test]
    fn only_some_states_of_a_unit_file_keep_the_unit_down_after_a_boot() {
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

    #[test]
    fn the_addresses_of_a_socket_unit_are_read() {
        let text = "0.0.0.0:7860 (Stream)\n[::]:7861 (Stream) /run/x.sock (Stream)\n";
        let all: Vec<_> = parse_listen_addresses(text).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["0.0.0.0:7860", "[::]:7861"]);
        assert_eq!(parse_listen_addresses(""), []);
    }
}
