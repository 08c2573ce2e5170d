//! The configuration as the service will read it: its file, and the variables of its unit rather than of this shell.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::ArgMatches;
use service::settings::{YamlFile, list};

use super::{record::Plan, reporter::MoveError};
use crate::{
    commands::systemd::{SERVICE, ServiceEnvironment, SystemdUnit},
    config::{self, CONFIG_VARIABLE, Config, DEFAULT_CONFIG_FILE, KEYS},
};

const STEP: &str = "configuration";
pub(crate) const ACCESS_STEP: &str = "access";
/// Settings that move-in accepts as flags and writes into the file.
const ACCEPTED_FLAGS: [&str; 8] =
    ["allow_from", "engine", "engine_url", "engine_unit", "engine_output_dir", "gpu", "gpu_id", "nvml_lib"];
/// This host always has access: the engine listens on loopback anyway, and the first image is requested from here.
const LOOPBACK: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// The configuration before anything changes.
#[derive(Debug)]
pub(crate) struct CurrentConfig {
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    file: YamlFile,
}

impl CurrentConfig {
    pub(crate) fn read() -> Result<Self, MoveError> {
        let environment = environment()?;
        let path =
            PathBuf::from(environment.get(CONFIG_VARIABLE).map_or(DEFAULT_CONFIG_FILE, String::as_str));
        let config = load(&path)?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let (file, _) = YamlFile::parse_lenient(&path, &text, KEYS);
        Ok(Self { path, config, file })
    }

    pub(crate) fn value_in_file(&self, key: &str) -> Option<String> {
        let key = KEYS.iter().find(|spec| spec.name == key)?;
        self.file.get(key).map(|(value, _)| value)
    }
}

/// The error names every problem.
pub(crate) fn load(path: &Path) -> Result<Config, MoveError> {
    let environment = environment()?;
    let mut line = vec!["ada2-sidecar".into(), "check-config".into()];
    if path != Path::new(DEFAULT_CONFIG_FILE) || path.exists() {
        line.extend(["--config".into(), path.as_os_str().to_owned()]);
    }
    let parsed = crate::cli::command().try_get_matches_from(line);
    let flags = parsed.map_err(|error| MoveError::from_cause(STEP, "command line", error))?;
    let loaded = config::load(&flags, &|name| environment.get(name).cloned());
    loaded.map(|loaded| loaded.config).map_err(|problems| {
        let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
        MoveError::new(STEP, all.join("; "), "correct it; `ada2-sidecar check-config` shows when it is valid")
    })
}

/// The unit's environment must not override what is written into the file.
pub(crate) fn check_not_overridden(plan: &Plan) -> Result<(), MoveError> {
    let environment = environment()?;
    for (name, value) in &plan.settings {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else { continue };
        if environment.get(key.env).is_some_and(|other| other.trim() != value) {
            let message =
                format!("the unit's environment sets {}, which overrides {name} in the file", key.env);
            return Err(MoveError::new(
                STEP,
                message,
                format!("remove {} from /etc/ada2-sidecar/env, then again", key.env),
            ));
        }
    }
    Ok(())
}

/// The variables of the service.
fn environment() -> Result<BTreeMap<String, String>, MoveError> {
    let environment =
        SystemdUnit::query(SERVICE).map(|unit| ServiceEnvironment::from_unit(&unit)).unwrap_or_default();
    match environment.unreadable.or(environment.missing) {
        Some(file) => {
            Err(MoveError::from_cause(STEP, "the unit's environment cannot be read", file.display()))
        }
        None => Ok(environment.variables),
    }
}

/// The settings that were given as flags.
pub(crate) fn settings_from_flags(arguments: &ArgMatches) -> Result<Vec<(String, String)>, MoveError> {
    let mut given = Vec::new();
    for key in KEYS {
        let Some(value) = arguments.try_get_one::<String>(key.name).ok().flatten() else { continue };
        if !ACCEPTED_FLAGS.contains(&key.name) {
            let message = format!("move-in does not accept --{}", key.flag());
            return Err(MoveError::new(
                STEP,
                message,
                format!("write {} into {DEFAULT_CONFIG_FILE}", key.name),
            ));
        }
        let value = match key.name {
            "allow_from" => allow_from(value)?,
            "engine_url" => engine_url(value.trim())?,
            _ => value.trim().to_owned(),
        };
        given.push((key.name.to_owned(), value));
    }
    if arguments.get_one::<String>("config").is_some() {
        let message = "--config has no effect here: the service reads the file that its unit names";
        return Err(MoveError::new(STEP, message, format!("omit it; the file is {DEFAULT_CONFIG_FILE}")));
    }
    Ok(given)
}

/// Unchanged, if the service accepts it.
fn engine_url(text: &str) -> Result<String, MoveError> {
    if config::parse_engine_url(text).is_some() {
        return Ok(text.to_owned());
    }
    let message = format!("--engine-url {text:?} is not a URL like http://127.0.0.1:9090");
    Err(MoveError::new(STEP, message, "sudo ada2-sidecar move-in --engine-url http://127.0.0.1:9090"))
}

/// These ranges and loopback.
pub(crate) fn allow_from(text: &str) -> Result<String, MoveError> {
    let ranges = list(text, |range| {
        let address = |text: &str| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from);
        range.parse::<ipnet::IpNet>().ok().or_else(|| address(range))
    });
    let Some(ranges) = ranges.filter(|ranges| !ranges.is_empty()) else {
        let message = format!("{text:?} is not a list of addresses or ranges");
        return Err(MoveError::new(
            ACCESS_STEP,
            message,
            "write addresses like 192.168.1.20 or 192.168.0.0/16",
        ));
    };
    let mut all: Vec<String> = LOOPBACK.map(str::to_owned).to_vec();
    all.extend(ranges.iter().map(ToString::to_string).filter(|range| !LOOPBACK.contains(&range.as_str())));
    Ok(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Result<Vec<(String, String)>, MoveError> {
        let line = [&["ada2-sidecar", "move-in"], arguments].concat();
        let matches = crate::cli::command().get_matches_from(line);
        settings_from_flags(matches.subcommand().unwrap().1)
    }

    #[test]
    fn accepted_flags_are_written_and_others_are_refused() {
        let flags =
            given(&["--engine", "comfyui", "--allow-from", "192.168.1.20, 10.0.0.0/8,127.0.0.0/8"]).unwrap();
        let flags: Vec<_> = flags.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(flags, ["allow_from=127.0.0.0/8,::1/128,192.168.1.20/32,10.0.0.0/8", "engine=comfyui"]);
        for (arguments, expected) in [
            (&["--listen", "0.0.0.0:1"][..], "does not accept --listen"),
            (&["--config", "x"], "--config has no effect"),
            (&["--allow-from", "the house"], "not a list of addresses"),
            (&["--allow-from", ""], "not a list of addresses"),
            (&["--engine-url", "127.0.0.1:9090"], "--engine-url \"127.0.0.1:9090\" is not a URL"),
            (&["--engine-url", "https://a"], "--engine-url \"https://a\" is not a URL"),
        ] {
            let error = given(arguments).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}
