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
};

const NAME: &str = "configuration";

/// What the rest is looked at with.
pub(super) struct DoctorContext {
    /// Ours; none where systemd runs nothing of ours, or another service is meant.
    pub(super) units: Option<SidecarUnits>,
    /// Root sees more.
    pub(super) root: bool,
    pub(super) fixes: FixHints,
    pub(super) configuration: ConfigurationState,
    pub(super) environment: ServiceEnvironment,
    pub(super) card: GpuSettings,
    /// Where the administration socket may be.
    pub(super) sockets: Vec<PathBuf>,
    /// Where it would listen without a socket unit.
    pub(super) listen: Vec<SocketAddr>,
    /// That is somebody's choice, and no default.
    pub(super) listen_is_set: bool,
    /// The file is there and the service's own user may not read it.
    unreadable_by_service: bool,
}

/// How the configuration was found.
pub(super) enum ConfigurationState {
    Valid(Box<Config>),
    Invalid(Vec<Problem>),
    /// This user may not read this part of it.
    PermissionDenied(PathBuf),
}

impl DoctorContext {
    /// Looks for it. `variables` are this process's own.
    pub(super) fn discover(
        matches: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        names: &[String],
    ) -> Self {
        let root = fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0);
        let units = SidecarUnits::query().filter(|_| !targets_other_service(matches));
        let service = units.as_ref().map(|units| &units.service).filter(|service| service.is_loaded());
        let Some(service) = service else {
            let found = ServiceEnvironment::default();
            return Self::from_settings(matches, environment, names, found, units, root);
        };
        let found = ServiceEnvironment::from_unit(service);
        let variables = variables_with_credential(&found, service);
        let lookup = |name: &str| variables.get(name).cloned();
        let names: Vec<_> = variables.keys().cloned().collect();
        let flags = exec_arguments(service.get("ExecStart"));
        let flags = flags.and_then(|arguments| cli::command().try_get_matches_from(arguments).ok());
        let flags = flags.unwrap_or_else(|| matches.clone());
        Self::from_settings(&flags, &lookup, &names, found, units.clone(), root)
    }

    fn from_settings(
        flags: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        names: &[String],
        found: ServiceEnvironment,
        units: Option<SidecarUnits>,
        root: bool,
    ) -> Self {
        let file = config::config_file(flags, environment);
        let loaded = config::load_for_reload(flags, environment, names);
        let configuration = match (&found.unreadable, loaded) {
            (Some(path), _) => ConfigurationState::PermissionDenied(path.clone()),
            (None, Ok(loaded)) => ConfigurationState::Valid(Box::new(loaded.config)),
            (None, Err(problems)) => match permission_denied_path(&problems, &file, root) {
                Some(path) => ConfigurationState::PermissionDenied(path),
                None => ConfigurationState::Invalid(problems),
            },
        };
        let by_unit = units.is_some();
        let listen = config::read_listen_settings(flags, environment).ok();
        let closed = units.as_ref().is_some_and(|units| {
            units.service.is_loaded() && file.exists() && !readable_by(&units.service, &file)
        });
        Self {
            root,
            configuration,
            environment: found,
            card: config::read_gpu_settings(flags, environment),
            sockets: config::admin_sockets(flags, environment),
            listen_is_set: listen.as_ref().is_some_and(|listen| listen.source != SettingSource::Default),
            listen: listen.map(|listen| listen.addresses).unwrap_or_default(),
            fixes: FixHints { file, managed_by_unit: by_unit },
            units,
            unreadable_by_service: closed,
        }
    }

    /// None where it is broken or not known.
    pub(super) fn config(&self) -> Option<&Config> {
        match &self.configuration {
            ConfigurationState::Valid(config) => Some(config),
            _ => None,
        }
    }

    /// Whether the next start fails of it.
    pub(super) fn is_invalid(&self) -> bool {
        self.unreadable_by_service
            || self.environment.missing.is_some()
            || matches!(self.configuration, ConfigurationState::Invalid(_))
    }

    /// Every problem, a line each.
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let file = self.fixes.file.display();
        if let Some(missing) = &self.environment.missing {
            let message = format!(
                "the unit's EnvironmentFile={} is not there, so it does not start",
                missing.display()
            );
            return vec![Finding::fail(NAME, message, format!("sudo touch {}", missing.display()))];
        }
        if self.unreadable_by_service {
            let message =
                format!("{file} cannot be read by the service's own user, so its next start or reload fails");
            return vec![Finding::fail(NAME, message, format!("sudo chmod a+r {file}"))];
        }
        match &self.configuration {
            ConfigurationState::PermissionDenied(path) => {
                vec![Finding::skip(
                    NAME,
                    format!("{} can be read by root only: run with sudo", path.display()),
                )]
            }
            ConfigurationState::Invalid(problems) => {
                problems.iter().map(|problem| self.problem(problem)).collect()
            }
            ConfigurationState::Valid(config) if config.warnings.is_empty() => {
                let from = if self.fixes.file.exists() {
                    format!("{file} is sound")
                } else {
                    format!("sound, without {file}")
                };
                vec![Finding::ok(NAME, from)]
            }
            ConfigurationState::Valid(config) => {
                let warn =
                    |warning: &String| Finding::warn(NAME, warning, self.fixes.edit("correct it as told in"));
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
        let then =
            if self.fixes.managed_by_unit { "sudo systemctl restart ada2-sidecar" } else { "start it again" };
        Finding::fail(NAME, problem.to_string(), format!("correct {}, then {then}", &location))
    }

    fn variables_location(&self) -> String {
        match self.environment.files.first() {
            Some(file) => file.display().to_string(),
            None if self.fixes.managed_by_unit => "the unit (sudo systemctl edit ada2-sidecar)".to_owned(),
            None => "this shell".to_owned(),
        }
    }
}

/// Whether this command line names a file or a setting: then a service that was started by hand is meant.
fn targets_other_service(matches: &ArgMatches) -> bool {
    let is_given = |name: &str| {
        matches.try_contains_id(name).unwrap_or(false)
            && matches.value_source(name) == Some(ValueSource::CommandLine)
    };
    is_given("config") || KEYS.iter().any(|key| is_given(key.name))
}

/// The folder of the unit's credentials: systemd's own while it runs, else the one that the token comes from.
fn variables_with_credential(
    environment: &ServiceEnvironment,
    service: &SystemdUnit,
) -> std::collections::BTreeMap<String, String> {
    let mut variables = environment.variables.clone();
    if let Some(file) = service.token_credential() {
        let running = PathBuf::from("/run/credentials").join(&service.name);
        let folder = if running.join("token").is_file() {
            Some(running)
        } else {
            file.parent().filter(|_| file.file_name().is_some_and(|name| name == "token")).map(Path::to_owned)
        };
        if let Some(folder) = folder {
            variables.insert("CREDENTIALS_DIRECTORY".to_owned(), folder.display().to_string());
        }
    }
    variables
}

/// What keeps an ordinary user from reading the configuration is no fault of it.
fn permission_denied_path(problems: &[Problem], file: &Path, root: bool) -> Option<PathBuf> {
    let denied = |problem: &Problem| {
        matches!(problem.key.as_str(), WHOLE_FILE | "token_file")
            && problem.expected.contains("ermission denied")
    };
    let denied = problems.iter().find(|problem| !root && denied(problem))?;
    Some(if denied.key == WHOLE_FILE {
        file.to_owned()
    } else {
        PathBuf::from(format!("token_file of {}", file.display()))
    })
}

/// Whether the user that the unit runs as may read a file: everybody, or one of its groups. Another user of a name is
/// not judged.
pub(super) fn readable_by(service: &SystemdUnit, file: &Path) -> bool {
    if !service.is("DynamicUser", "yes") {
        return true;
    }
    let groups: Vec<u32> =
        service.get("SupplementaryGroups").split_whitespace().filter_map(group_id).collect();
    let may = |path: &Path, bit: u32| {
        fs::metadata(path).map_or(true, |found| {
            let mode = found.permissions().mode();
            mode & bit != 0 || mode & (bit << 3) != 0 && groups.contains(&found.gid())
        })
    };
    may(file, 0o4) && file.ancestors().skip(1).all(|folder| may(folder, 0o1))
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

    fn setup(file: &str, text: &str) -> DoctorContext {
        fs::write(file, text).unwrap();
        let flags = cli::command().get_matches_from(["ada2-sidecar", "--config", file, "doctor"]);
        DoctorContext::from_settings(&flags, &|_| None, &[], ServiceEnvironment::default(), None, true)
    }

    #[test]
    fn every_problem_is_a_line_with_file_and_key_and_what_can_be_read_is_used() {
        let file = std::env::temp_dir().join(format!("ada2-doctor-{}.yaml", uuid::Uuid::new_v4()));
        let name = file.display().to_string();
        let found = setup(&name, "max_inflight: many\nmax_n: 0\ngpu_id: GPU-1\nlisten: 127.0.0.1:7999\n");
        let lines = found.evaluate();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(found.is_invalid() && found.config().is_none());
        assert!(lines[0].message.contains("max_inflight: expected"), "{lines:?}");
        assert_eq!(
            lines[0].fix.as_deref().unwrap(),
            format!("correct max_inflight in {name}, then start it again")
        );
        assert_eq!((found.card.sampler.gpu_id.as_str(), found.listen[0].port()), ("GPU-1", 7999));
        let found = setup(&name, "engine: builtin\n");
        assert_eq!(found.evaluate(), [Finding::ok(NAME, format!("{name} is sound"))]);
        let found = setup(&name, "engine: builtin\nmax_swap_used: 100\n");
        let lines = found.evaluate();
        assert!(lines[0].fix.is_some() && !found.is_invalid(), "{lines:?}");
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_that_only_root_may_read_is_closed_to_a_user_of_the_units_own() {
        let folder = std::env::temp_dir().join(format!("ada2-readable-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.yaml");
        fs::write(&file, "").unwrap();
        let dynamic = SystemdUnit::parse("a", "DynamicUser=yes\nSupplementaryGroups=\n");
        for (mode, readable) in [(0o644, true), (0o640, false), (0o600, false), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by(&dynamic, &file), readable, "{mode:o}");
            assert!(readable_by(&SystemdUnit::parse("a", "User=ada\n"), &file));
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!readable_by(&dynamic, &file), "its folder is closed");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_ordinary_user_is_told_to_use_sudo() {
        let denied = [Problem::new("/etc/x", WHOLE_FILE, "cannot be read: Permission denied (os error 13)")];
        let file = Path::new("/etc/x");
        assert_eq!(permission_denied_path(&denied, file, false), Some(file.to_owned()));
        assert_eq!(permission_denied_path(&denied, file, true), None);
        assert_eq!(permission_denied_path(&[Problem::new("/etc/x", "max_n", "expected")], file, false), None);
    }
}
