//! The configuration, as the service reads it: from the unit's command line and environment, unless this command line
//! names another.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clap::{ArgMatches, parser::ValueSource};
use service::{
    doctor::Finding,
    settings::{Problem, SettingSource, WHOLE_FILE},
};

use super::fixes::FixHints;
use crate::{
    cli,
    commands::systemd::{ServiceEnvironment, SidecarUnits, SystemdUnit, exec_arguments},
    config::{self, Config, GpuSettings, KEYS},
    sandbox,
};

const NAME: &str = "configuration";

/// What all checks start from.
pub(super) struct DoctorContext {
    /// None if systemd has no such units, or the command line means another service.
    pub(super) units: Option<SidecarUnits>,
    pub(super) root: bool,
    pub(super) fixes: FixHints,
    pub(super) configuration: ConfigurationState,
    pub(super) environment: ServiceEnvironment,
    pub(super) card: GpuSettings,
    /// Candidates for the administration socket.
    pub(super) sockets: Vec<PathBuf>,
    /// Where the service listens without a socket unit.
    pub(super) listen: Vec<SocketAddr>,
    /// Whether `listen` was configured.
    pub(super) listen_is_set: bool,
    /// The configuration file exists, and the service's user may not read it.
    unreadable_by_service: bool,
}

pub(super) enum ConfigurationState {
    Valid(Box<Config>),
    Invalid(Vec<Problem>),
    /// This user may not read this file.
    PermissionDenied(PathBuf),
}

impl DoctorContext {
    /// Reads the configuration of the unit, else of this command line and `environment`.
    pub(super) fn discover(
        matches: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        names: &[String],
    ) -> Self {
        let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        let units = SidecarUnits::query().filter(|_| !targets_other_service(matches));
        let service = units.as_ref().map(|units| &units.service).filter(|service| service.is_loaded());
        let Some(service) = service else {
            let none = ServiceEnvironment::default();
            return Self::from_settings(matches, environment, names, none, units, root);
        };
        let unit_environment = ServiceEnvironment::from_unit(service);
        let variables = variables_with_credential(&unit_environment, service);
        let lookup = |name: &str| variables.get(name).cloned();
        let names: Vec<_> = variables.keys().cloned().collect();
        let flags = exec_arguments(service.get("ExecStart"));
        let flags = flags.and_then(|arguments| cli::command().try_get_matches_from(arguments).ok());
        let flags = flags.unwrap_or_else(|| matches.clone());
        Self::from_settings(&flags, &lookup, &names, unit_environment, units.clone(), root)
    }

    fn from_settings(
        flags: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        names: &[String],
        unit_environment: ServiceEnvironment,
        units: Option<SidecarUnits>,
        root: bool,
    ) -> Self {
        let file = config::config_file(flags, environment);
        let loaded = config::load_for_reload(flags, environment, names);
        let configuration = match (&unit_environment.unreadable, loaded) {
            (Some(path), _) => ConfigurationState::PermissionDenied(path.clone()),
            (None, Ok(loaded)) => ConfigurationState::Valid(Box::new(loaded.config)),
            (None, Err(problems)) => match permission_denied_path(&problems, &file, root) {
                Some(path) => ConfigurationState::PermissionDenied(path),
                None => ConfigurationState::Invalid(problems),
            },
        };
        let listen = config::read_listen_settings(flags, environment).ok();
        let unreadable_by_service = units.as_ref().is_some_and(|units| {
            units.service.is_loaded() && file.exists() && !readable_by(&units.service, &file)
        });
        Self {
            root,
            configuration,
            environment: unit_environment,
            card: config::read_gpu_settings(flags, environment),
            sockets: config::admin_sockets(flags, environment),
            listen_is_set: listen.as_ref().is_some_and(|listen| listen.source != SettingSource::Default),
            listen: listen.map(|listen| listen.addresses).unwrap_or_default(),
            fixes: FixHints { file, managed_by_unit: units.is_some() },
            units,
            unreadable_by_service,
        }
    }

    /// None if it is invalid or unreadable.
    pub(super) fn config(&self) -> Option<&Config> {
        match &self.configuration {
            ConfigurationState::Valid(config) => Some(config),
            _ => None,
        }
    }

    /// Whether it makes the next start fail.
    pub(super) fn is_invalid(&self) -> bool {
        self.unreadable_by_service
            || self.environment.missing.is_some()
            || matches!(self.configuration, ConfigurationState::Invalid(_))
    }

    /// One line for each problem.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let file = self.fixes.file.display();
        if let Some(missing) = &self.environment.missing {
            let message = format!(
                "the unit's EnvironmentFile={} does not exist, so the service does not start",
                missing.display()
            );
            return vec![Finding::fail(NAME, message, format!("sudo touch {}", missing.display()))];
        }
        if self.unreadable_by_service {
            let message = format!("the service's user cannot read {file}, so its next start or reload fails");
            return vec![Finding::fail(NAME, message, format!("sudo chmod a+r {file}"))];
        }
        match &self.configuration {
            ConfigurationState::PermissionDenied(path) => {
                vec![Finding::skip(NAME, format!("only root can read {}: run with sudo", path.display()))]
            }
            ConfigurationState::Invalid(problems) => {
                problems.iter().map(|problem| self.problem(problem)).collect()
            }
            ConfigurationState::Valid(config) if config.warnings.is_empty() => {
                let message = if self.fixes.file.exists() {
                    format!("{file} is valid")
                } else {
                    format!("valid, without {file}")
                };
                vec![Finding::ok(NAME, message)]
            }
            ConfigurationState::Valid(config) => {
                let warn = |warning: &String| {
                    Finding::warn(NAME, warning, self.fixes.edit("fix it as described, in"))
                };
                config.warnings.iter().map(warn).collect()
            }
        }
    }

    fn problem(&self, problem: &Problem) -> Finding {
        let source = &problem.source;
        let location = match source.strip_prefix("environment ") {
            Some(variable) => format!("{variable} in {}", self.variables_location()),
            None if problem.key == WHOLE_FILE => source.clone(),
            None if source == "default" => format!("{} in {}", problem.key, self.fixes.file.display()),
            None => format!("{} in {source}", problem.key),
        };
        let fix = format!("correct {location}, then {}", self.fixes.restart());
        Finding::fail(NAME, problem.to_string(), fix)
    }

    fn variables_location(&self) -> String {
        match self.environment.files.first() {
            Some(file) => file.display().to_string(),
            None if self.fixes.managed_by_unit => "the unit (sudo systemctl edit ada2-sidecar)".to_owned(),
            None => "this shell".to_owned(),
        }
    }
}

/// Whether this command line names a file or a setting: then it means a service that was started by hand.
fn targets_other_service(matches: &ArgMatches) -> bool {
    let is_given = |name: &str| {
        matches.try_contains_id(name).unwrap_or(false)
            && matches.value_source(name) == Some(ValueSource::CommandLine)
    };
    is_given("config") || KEYS.iter().any(|key| is_given(key.name))
}

/// With the credentials directory: systemd's while the service runs, else the one that a secret comes from.
fn variables_with_credential(
    environment: &ServiceEnvironment,
    service: &SystemdUnit,
) -> std::collections::BTreeMap<String, String> {
    let mut variables = environment.variables.clone();
    let running = PathBuf::from("/run/credentials").join(&service.name);
    let dir = sandbox::CREDENTIALS.iter().find_map(|(_, credential)| {
        let file = service.credential(credential)?;
        if running.join(credential).is_file() {
            return Some(running.clone());
        }
        file.parent().filter(|_| file.file_name().is_some_and(|name| name == *credential)).map(Path::to_owned)
    });
    if let Some(dir) = dir {
        variables.insert("CREDENTIALS_DIRECTORY".to_owned(), dir.display().to_string());
    }
    variables
}

/// What only root may read is not a problem of the configuration.
fn permission_denied_path(problems: &[Problem], file: &Path, root: bool) -> Option<PathBuf> {
    let denied = |problem: &Problem| {
        let names_file = sandbox::CREDENTIALS.iter().any(|(setting, _)| problem.key == *setting);
        (problem.key == WHOLE_FILE || names_file) && problem.expected.contains("ermission denied")
    };
    let denied = problems.iter().find(|problem| !root && denied(problem))?;
    Some(if denied.key == WHOLE_FILE {
        file.to_owned()
    } else {
        PathBuf::from(format!("{} of {}", denied.key, file.display()))
    })
}

/// Whether the unit's dynamic user may read a file, by its mode and groups. Other users are not checked.
pub(super) fn readable_by(service: &SystemdUnit, file: &Path) -> bool {
    if !service.is("DynamicUser", "yes") {
        return true;
    }
    let groups: Vec<u32> =
        service.get("SupplementaryGroups").split_whitespace().filter_map(group_id).collect();
    let may = |path: &Path, bit: u32| {
        fs::metadata(path).map_or(true, |metadata| {
            let mode = metadata.permissions().mode();
            mode & bit != 0 || mode & (bit << 3) != 0 && groups.contains(&metadata.gid())
        })
    };
    may(file, 0o4) && file.ancestors().skip(1).all(|dir| may(dir, 0o1))
}

fn group_id(name: &str) -> Option<u32> {
    let all = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut ids = all.lines().filter_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    ids.next().or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(flags: &[&str]) -> ArgMatches {
        cli::command().get_matches_from([&["ada2-sidecar", "doctor"], flags].concat())
    }

    #[test]
    fn settings_on_the_command_line_mean_another_service() {
        assert!(!targets_other_service(&matches(&[])) && !targets_other_service(&matches(&["--json"])));
        assert!(targets_other_service(&cli::command().get_matches_from([
            "ada2-sidecar",
            "--engine",
            "builtin",
            "doctor"
        ])));
        assert!(targets_other_service(&cli::command().get_matches_from([
            "ada2-sidecar",
            "doctor",
            "--config",
            "x"
        ])));
    }

    fn context(file: &str, text: &str) -> DoctorContext {
        fs::write(file, text).unwrap();
        let flags = cli::command().get_matches_from(["ada2-sidecar", "--config", file, "doctor"]);
        DoctorContext::from_settings(&flags, &|_| None, &[], ServiceEnvironment::default(), None, true)
    }

    #[test]
    fn every_problem_is_a_line_with_file_and_key_and_valid_settings_are_used() {
        let file = std::env::temp_dir().join(format!("ada2-doctor-{}.yaml", uuid::Uuid::new_v4()));
        let name = file.display().to_string();
        let doctor = context(&name, "max_inflight: many\nmax_n: 0\ngpu_id: GPU-1\nlisten: 127.0.0.1:7999\n");
        let lines = doctor.evaluate();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(doctor.is_invalid() && doctor.config().is_none());
        assert!(lines[0].message.contains("max_inflight: expected"), "{lines:?}");
        assert_eq!(
            lines[0].fix.as_deref().unwrap(),
            format!("correct max_inflight in {name}, then start the service again")
        );
        assert_eq!((doctor.card.sampler.gpu_id.as_str(), doctor.listen[0].port()), ("GPU-1", 7999));
        let doctor = context(&name, "engine: builtin\n");
        assert_eq!(doctor.evaluate(), [Finding::ok(NAME, format!("{name} is valid"))]);
        let doctor = context(&name, "engine: builtin\nmax_swap_used: 100\n");
        let lines = doctor.evaluate();
        assert!(lines[0].fix.is_some() && !doctor.is_invalid(), "{lines:?}");
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_dynamic_user_cannot_read_what_only_root_may_read() {
        let dir = std::env::temp_dir().join(format!("ada2-readable-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("config.yaml");
        fs::write(&file, "").unwrap();
        let dynamic = SystemdUnit::parse("a", "DynamicUser=yes\nSupplementaryGroups=\n");
        for (mode, readable) in [(0o644, true), (0o640, false), (0o600, false), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by(&dynamic, &file), readable, "{mode:o}");
            assert!(readable_by(&SystemdUnit::parse("a", "User=ada\n"), &file));
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!readable_by(&dynamic, &file), "its directory is closed");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_unprivileged_user_is_advised_to_use_sudo() {
        let denied = [Problem::new("/etc/x", WHOLE_FILE, "cannot be read: Permission denied (os error 13)")];
        let file = Path::new("/etc/x");
        assert_eq!(permission_denied_path(&denied, file, false), Some(file.to_owned()));
        assert_eq!(permission_denied_path(&denied, file, true), None);
        assert_eq!(permission_denied_path(&[Problem::new("/etc/x", "max_n", "expected")], file, false), None);
    }
}
