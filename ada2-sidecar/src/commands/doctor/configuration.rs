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
    settings::{Problem, Source, WHOLE_FILE},
};

use super::{
    environment::{self, Environment},
    text::{Fixes, clean},
    unit::{Unit, Units},
};
use crate::{
    cli,
    config::{self, Card, Config, KEYS},
};

const NAME: &str = "configuration";

/// What the rest is looked at with.
pub(super) struct Setup {
    /// Ours; none where systemd runs nothing of ours, or another service is meant.
    pub(super) units: Option<Units>,
    /// Root sees more.
    pub(super) root: bool,
    pub(super) fixes: Fixes,
    pub(super) configuration: Configuration,
    pub(super) environment: Environment,
    pub(super) card: Card,
    /// Where the administration socket may be.
    pub(super) sockets: Vec<PathBuf>,
    /// Where it would listen without a socket unit.
    pub(super) listen: Vec<SocketAddr>,
    /// That is somebody's choice, and no default.
    pub(super) listen_is_set: bool,
    /// The file is there and the service's own user may not read it.
    closed: bool,
}

/// How the configuration was found.
pub(super) enum Configuration {
    Good(Box<Config>),
    Broken(Vec<Problem>),
    /// This user may not read this part of it.
    Hidden(PathBuf),
}

impl Setup {
    /// Looks for it. `variables` are this process's own.
    pub(super) fn find(
        matches: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        names: &[String],
    ) -> Self {
        let root = fs::metadata("/proc/self").is_ok_and(|folder| folder.uid() == 0);
        let units = Units::look().filter(|_| !names_another(matches));
        let service = units.as_ref().map(|units| &units.service).filter(|service| service.is_loaded());
        let Some(service) = service else {
            let found = Environment::default();
            return Self::read(matches, environment, names, found, units, root);
        };
        let found = Environment::of(service);
        let variables = with_credential(&found, service);
        let lookup = |name: &str| variables.get(name).cloned();
        let names: Vec<_> = variables.keys().cloned().collect();
        let flags = environment::arguments(service.get("ExecStart"));
        let flags = flags.and_then(|words| cli::command().try_get_matches_from(words).ok());
        let flags = flags.unwrap_or_else(|| matches.clone());
        Self::read(&flags, &lookup, &names, found, units.clone(), root)
    }

    fn read(
        flags: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        names: &[String],
        found: Environment,
        units: Option<Units>,
        root: bool,
    ) -> Self {
        let file = config::file(flags, environment);
        let loaded = config::load_again(flags, environment, names);
        let configuration = match (&found.hidden, loaded) {
            (Some(hidden), _) => Configuration::Hidden(hidden.clone()),
            (None, Ok(loaded)) => Configuration::Good(Box::new(loaded.config)),
            (None, Err(problems)) => match hidden_from_us(&problems, &file, root) {
                Some(hidden) => Configuration::Hidden(hidden),
                None => Configuration::Broken(problems),
            },
        };
        let by_unit = units.is_some();
        let listen = config::listen_alone(flags, environment).ok();
        let closed = units.as_ref().is_some_and(|units| {
            units.service.is_loaded() && file.exists() && !readable_by(&units.service, &file)
        });
        Self {
            root,
            configuration,
            environment: found,
            card: config::card_alone(flags, environment),
            sockets: config::admin_sockets(flags, environment),
            listen_is_set: listen.as_ref().is_some_and(|listen| listen.source != Source::Default),
            listen: listen.map(|listen| listen.addresses).unwrap_or_default(),
            fixes: Fixes { file, by_unit },
            units,
            closed,
        }
    }

    /// None where it is broken or not known.
    pub(super) fn config(&self) -> Option<&Config> {
        match &self.configuration {
            Configuration::Good(config) => Some(config),
            _ => None,
        }
    }

    /// Whether the next start fails of it.
    pub(super) fn is_broken(&self) -> bool {
        self.closed
            || self.environment.missing.is_some()
            || matches!(self.configuration, Configuration::Broken(_))
    }

    /// Every problem, a line each.
    pub(super) fn judge(&self) -> Vec<Finding> {
        let file = self.fixes.file.display();
        if let Some(missing) = &self.environment.missing {
            let message = format!(
                "the unit's EnvironmentFile={} is not there, so it does not start",
                missing.display()
            );
            return vec![Finding::fail(NAME, message, format!("sudo touch {}", missing.display()))];
        }
        if self.closed {
            let message =
                format!("{file} cannot be read by the service's own user, so its next start or reload fails");
            return vec![Finding::fail(NAME, message, format!("sudo chmod a+r {file}"))];
        }
        match &self.configuration {
            Configuration::Hidden(path) => {
                vec![Finding::skip(
                    NAME,
                    format!("{} can be read by root only: run with sudo", path.display()),
                )]
            }
            Configuration::Broken(problems) => problems.iter().map(|problem| self.problem(problem)).collect(),
            Configuration::Good(config) if config.warnings.is_empty() => {
                let from = if self.fixes.file.exists() {
                    format!("{file} is sound")
                } else {
                    format!("sound, without {file}")
                };
                vec![Finding::ok(NAME, from)]
            }
            Configuration::Good(config) => {
                let warn = |warning: &String| {
                    Finding::warn(NAME, clean(warning), self.fixes.edit("correct it as told in"))
                };
                config.warnings.iter().map(warn).collect()
            }
        }
    }

    fn problem(&self, problem: &Problem) -> Finding {
        let source = &problem.source;
        let place = match source.strip_prefix("environment ") {
            Some(variable) => format!("{variable} in {}", self.variables_place()),
            None if problem.key == WHOLE_FILE => source.clone(),
            None if source == "default" => format!("{} in {}", problem.key, self.fixes.file.display()),
            None => format!("{} in {source}", problem.key),
        };
        let then = if self.fixes.by_unit { "sudo systemctl restart ada2-sidecar" } else { "start it again" };
        Finding::fail(NAME, clean(&problem.to_string()), format!("correct {}, then {then}", clean(&place)))
    }

    fn variables_place(&self) -> String {
        match self.environment.files.first() {
            Some(file) => file.display().to_string(),
            None if self.fixes.by_unit => "the unit (sudo systemctl edit ada2-sidecar)".to_owned(),
            None => "this shell".to_owned(),
        }
    }
}

/// Whether this command line names a file or a setting: then a service that was started by hand is meant.
fn names_another(matches: &ArgMatches) -> bool {
    let given = |name: &str| {
        matches.try_contains_id(name).unwrap_or(false)
            && matches.value_source(name) == Some(ValueSource::CommandLine)
    };
    given("config") || KEYS.iter().any(|key| given(key.name))
}

/// The folder of the unit's credentials: systemd's own while it runs, else the one that the token comes from.
fn with_credential(environment: &Environment, service: &Unit) -> std::collections::BTreeMap<String, String> {
    let mut variables = environment.variables.clone();
    if let Some(file) = credential_file(service) {
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

/// The file behind `LoadCredential=token:FILE`.
pub(super) fn credential_file(service: &Unit) -> Option<PathBuf> {
    let named = |value: &String| value.strip_prefix("token:").map(PathBuf::from);
    service.written("LoadCredential").iter().rev().find_map(named)
}

/// What keeps an ordinary user from reading the configuration is no fault of it.
fn hidden_from_us(problems: &[Problem], file: &Path, root: bool) -> Option<PathBuf> {
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
pub(super) fn readable_by(service: &Unit, file: &Path) -> bool {
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
        assert!(!names_another(&matches(&[])) && !names_another(&matches(&["--json"])));
        assert!(names_another(&cli::command().get_matches_from([
            "ada2-sidecar",
            "--engine",
            "builtin",
            "doctor"
        ])));
        assert!(names_another(&cli::command().get_matches_from(["ada2-sidecar", "doctor", "--config", "x"])));
    }

    fn setup(file: &str, text: &str) -> Setup {
        fs::write(file, text).unwrap();
        let flags = cli::command().get_matches_from(["ada2-sidecar", "--config", file, "doctor"]);
        Setup::read(&flags, &|_| None, &[], Environment::default(), None, true)
    }

    #[test]
    fn every_problem_is_a_line_with_file_and_key_and_what_can_be_read_is_used() {
        let file = std::env::temp_dir().join(format!("ada2-doctor-{}.yaml", uuid::Uuid::new_v4()));
        let name = file.display().to_string();
        let found = setup(&name, "max_inflight: many\nmax_n: 0\ngpu_id: GPU-1\nlisten: 127.0.0.1:7999\n");
        let lines = found.judge();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(found.is_broken() && found.config().is_none());
        assert!(lines[0].message.contains("max_inflight: expected"), "{lines:?}");
        assert_eq!(
            lines[0].fix.as_deref().unwrap(),
            format!("correct max_inflight in {name}, then start it again")
        );
        assert_eq!((found.card.sampling.gpu_id.as_str(), found.listen[0].port()), ("GPU-1", 7999));
        let found = setup(&name, "engine: builtin\n");
        assert_eq!(found.judge(), [Finding::ok(NAME, format!("{name} is sound"))]);
        let found = setup(&name, "engine: builtin\nmax_swap_used: 100\n");
        let lines = found.judge();
        assert!(lines[0].fix.is_some() && !found.is_broken(), "{lines:?}");
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_that_only_root_may_read_is_closed_to_a_user_of_the_units_own() {
        let folder = std::env::temp_dir().join(format!("ada2-readable-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.yaml");
        fs::write(&file, "").unwrap();
        let dynamic = Unit::read("a", "DynamicUser=yes\nSupplementaryGroups=\n");
        for (mode, readable) in [(0o644, true), (0o640, false), (0o600, false), (0o604, true)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by(&dynamic, &file), readable, "{mode:o}");
            assert!(readable_by(&Unit::read("a", "User=ada\n"), &file));
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!readable_by(&dynamic, &file), "its folder is closed");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_ordinary_user_is_told_to_use_sudo() {
        let denied = [Problem::new("/etc/x", WHOLE_FILE, "cannot be read: Permission denied (os error 13)")];
        let file = Path::new("/etc/x");
        assert_eq!(hidden_from_us(&denied, file, false), Some(file.to_owned()));
        assert_eq!(hidden_from_us(&denied, file, true), None);
        assert_eq!(hidden_from_us(&[Problem::new("/etc/x", "max_n", "expected")], file, false), None);
    }
}
