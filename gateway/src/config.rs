//! The configuration: one table of settings, the env file, the backends' YAML. Read once, with every problem reported;
//! nothing validates again after that.

mod access;
pub(crate) mod backends;
mod backends_file;
mod certificate_settings;
mod env_file;
mod expand;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod images;
pub mod keys;
mod legacy_upstream;
mod lints;
mod parsers;
mod pem_files;
mod report;
mod routing;
mod tokens;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::IpAddr,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::ArgMatches;
use service::settings::{
    EnvVars, Problem, RestartSettings, SettingSource, Settings, describe_read_error, without_consequential,
};

pub use self::{
    backends::{Backend, Backends, Capability, ResponseFormat},
    images::ImageEngine,
    keys::{AccessConfig, ImagesConfig, KEYS, LogConfig, OutboundTls, ProbeRules, SettingValues},
    legacy_upstream::LegacyUpstream,
    routing::{ModelAlias, RoutingConfig},
    tokens::{Token, is_name as is_token_name},
};
use self::{backends_file::BackendsFile, env_file::LoadedEnvFile, report::ConfigWarnings};
pub(crate) use self::{
    certificate_settings::{CertificateSettings, certificate_settings},
    report::ConfigReport,
};
use crate::{
    store::retention::RetentionPolicy as Retention,
    tls::Tls,
    writable_paths::{self, FileKind, WritablePath},
};

/// Read if it exists and `--env-file` names no other.
pub const ENV_FILE: &str = "/var/lib/gateway/app/.env";
/// Beside the env file.
const BACKENDS_FILE: &str = "backends_config.yaml";

/// A valid configuration. The value of a setting that stands for itself is `config.<field>`, by [`SettingValues`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The values of the table.
    pub values: SettingValues,
    /// Host and port to listen on.
    pub listen: (String, u16),
    /// Plain HTTP or TLS there.
    pub tls: Tls,
    /// Who may use the gateway.
    pub access: AccessConfig,
    /// The images route.
    pub images: ImagesConfig,
    /// Which images are deleted.
    pub retention: Retention,
    /// When a backend counts as ready.
    pub health: ProbeRules,
    /// The backends.
    pub backends: Backends,
    /// Where chat, completions and embeddings go.
    pub routing: RoutingConfig,
    /// TLS towards backends.
    pub outbound: OutboundTls,
    /// Gets every path that is not the gateway's own.
    pub legacy: Option<LegacyUpstream>,
    /// The log.
    pub log: LogConfig,
    /// What a reload must not change.
    pub fixed: RestartSettings,
}

/// Lets `config.data_dir` read from the table without a second list of the same names.
impl Deref for Config {
    type Target = SettingValues;

    fn deref(&self) -> &SettingValues {
        &self.values
    }
}

impl Config {
    /// Where the local authority and its certificates are kept, if there is one.
    pub fn local_ca_dir(&self) -> Option<&Path> {
        matches!(self.tls, Tls::LocalCa).then_some(&self.data_dir)
    }
}

/// The configuration as read.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Config,
    /// The same as text, secrets redacted.
    pub effective: String,
    /// What was ignored, and what looks misspelled.
    pub warnings: Vec<String>,
    /// Whether the paths that are written to can be; `serve` finds out by writing.
    pub paths: writable_paths::PathReport,
}

/// Reads flags, environment, env file and backends file.
pub fn load(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadedConfig, Vec<Problem>> {
    load_with_variables(matches, environment, &[])
}

/// Also looks for misspelled settings among the names of all environment variables.
pub fn load_with_variables(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    variable_names: &[String],
) -> Result<LoadedConfig, Vec<Problem>> {
    inspect(matches, environment, variable_names).into_loaded()
}

/// Reads everything; problems are collected.
pub(crate) fn inspect(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    variable_names: &[String],
) -> ConfigReport {
    let mut problems = Vec::new();
    let env = LoadedEnvFile::read(matches, environment, &mut problems);
    let mut settings = resolve_settings(matches, environment, &env);
    let used = RefCell::new(BTreeSet::new());
    let variable = |name: &str| {
        used.borrow_mut().insert(name.to_owned());
        environment(name).or_else(|| env.value(name))
    };
    // With an unreadable env file, the path of the backends file is unknown.
    let backends =
        if env.is_unreadable { None } else { read_backends(&settings, &env.path, &variable, &mut problems) };
    let mut warnings = ConfigWarnings::default();
    let config = build(&mut settings, backends.as_ref(), &mut warnings);
    problems.append(&mut settings.problems);
    let problems = complete_problems(problems, &env, environment);
    let is_read = |name: &str| used.borrow().contains(name);
    let variables = EnvVars { names: variable_names, keys: KEYS, is_read: &is_read };
    let misspelled = [lints::misspelled(&env, &used.borrow()), variables.misspelled()].concat();
    let paths = if env.is_unreadable {
        writable_paths::PathReport::default()
    } else {
        check_paths(&settings, config.as_ref())
    };
    let config = config.filter(|_| backends.is_some() && problems.is_empty());
    let BackendsFile { disabled, warnings: of_backends, misspelled: misspelled_backends, .. } =
        backends.unwrap_or_default();
    let warnings = ConfigWarnings {
        foreign: lints::foreign_variables(&env, &used.borrow()),
        disabled_backends: disabled
            .iter()
            .map(|class| format!("backend {class} is off: its base_url is empty"))
            .collect(),
        backends: of_backends,
        images: config.as_ref().and_then(images::no_images_warning),
        certificate: config
            .as_ref()
            .map(|config| lints::certificate_warnings(&config.tls, &settings))
            .unwrap_or_default(),
        without_effect: variables.unused_with_prefix("GATEWAY_").into_iter().collect(),
        overridden: [settings.overridden(), lints::overridden_variables(&env, &used.borrow(), environment)]
            .concat(),
        ..warnings
    };
    ConfigReport { config, problems, misspelled, misspelled_backends, warnings, paths, settings, env }
}

/// Adds the tokens that could never be used, and removes what only follows from another problem.
fn complete_problems(
    mut problems: Vec<Problem>,
    env: &LoadedEnvFile,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Vec<Problem> {
    let invalid_tokens = access::invalid_tokens(&[
        ("environment".to_owned(), environment),
        (env.path.display().to_string(), &|name| env.value(name)),
    ]);
    // The token in force is already among the problems, under the same key.
    let reported: BTreeSet<_> = problems.iter().map(|problem| problem.key.clone()).collect();
    problems.extend(invalid_tokens.into_iter().filter(|problem| !reported.contains(&problem.key)));
    without_consequential(problems, env.is_unreadable, lints::token_setting_for)
}

/// The paths that the gateway writes to. Only the local authority requires the data directory.
fn check_paths(settings: &Settings, config: Option<&Config>) -> writable_paths::PathReport {
    let makes_certificates = config.is_some_and(|config| config.local_ca_dir().is_some());
    let named = [
        ("UI_IMAGE_DIR", FileKind::Directory, true),
        ("GATEWAY_DATA_DIR", FileKind::Directory, makes_certificates),
        ("GATEWAY_LOG_FILE", FileKind::File, true),
    ];
    let named = named.into_iter().filter_map(|(setting, kind, is_needed)| {
        Some(WritablePath { setting, path: settings.raw(setting)?.as_ref(), kind, is_required: is_needed })
    });
    writable_paths::PathReport::check(&named.collect::<Vec<_>>())
}

/// The settings as written: flags, environment, env file.
fn resolve_settings(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    env: &LoadedEnvFile,
) -> Settings {
    let non_blank = |name: &str, value: Option<String>| {
        value.filter(|value| !value.trim().is_empty() || keys::BLANK_IS_SIGNIFICANT.contains(&name))
    };
    let from_file = |name: &str| non_blank(name, env.value(name));
    let from_environment = |name: &str| non_blank(name, environment(name));
    Settings::resolve(KEYS, matches, &from_environment, &|key| {
        from_file(key.env).map(|value| (value, SettingSource::File(env.path.clone())))
    })
}

fn read_backends(
    settings: &Settings,
    env_file: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<BackendsFile> {
    let named = settings.raw("BACKENDS_CONFIG").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| env_file.with_file_name(BACKENDS_FILE));
    let class_and_url = settings.raw("IMAGES_BACKEND_CLASS").zip(settings.raw("IMAGES_HTTP_BASE_URL"));
    let override_url = class_and_url.map(|(class, url)| backends_file::BaseUrlOverride {
        class,
        url,
        source: settings.source("IMAGES_HTTP_BASE_URL"),
    });
    let read = match std::fs::read_to_string(&path) {
        Ok(text) => backends_file::parse(Some((&path, &text)), override_url, variable),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            backends_file::parse(None, override_url, variable)
        }
        Err(error) => {
            // Not "default", which would count as a consequence: the file exists.
            let source =
                named.map_or("backends".to_owned(), |_| settings.source("BACKENDS_CONFIG").to_string());
            let message = format!("expected a file: {}", describe_read_error(&path, &error));
            Err(vec![Problem::new(source, path.display().to_string(), message)])
        }
    };
    read.map_err(|more| problems.extend(more)).ok()
}

fn build(
    settings: &mut Settings,
    backends: Option<&BackendsFile>,
    warnings: &mut ConfigWarnings,
) -> Option<Config> {
    // Every section is read before the first `?`, so that every problem is found.
    let values = SettingValues::read(settings);
    let tls = pem_files::read_tls(settings);
    let loopback = settings.raw("GATEWAY_HOST").is_none_or(is_loopback_or_invalid);
    let access = access::read(settings, loopback, &mut warnings.owners);
    let images = images::read(settings, backends);
    let health = ProbeRules::read(settings);
    let routing = RoutingConfig::read(settings, backends, &mut warnings.routing);
    let outbound = OutboundTls::read(settings);
    let legacy = LegacyUpstream::read(settings);
    let log = LogConfig::read(settings);
    let (values, images, file) = (values?, images?, backends?);
    let mock = images::mock(&images, file).map(Arc::new);
    Some(Config {
        listen: (values.host.clone(), values.port),
        tls: tls?,
        access: access?,
        images,
        retention: Retention { max_age: values.store_max_age, max_bytes: values.store_max_bytes },
        health: health?,
        backends: Backends { mock, ..file.backends.clone() },
        routing: routing?,
        outbound: outbound?,
        legacy,
        log: log?,
        fixed: settings.restart_settings(),
        values,
    })
}

/// An invalid host has a problem of its own.
fn is_loopback_or_invalid(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().map_or(true, |address| address.is_loopback())
}

#[cfg(test)]
pub(crate) mod tests;
