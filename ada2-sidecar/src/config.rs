//! The configuration: one table of settings, read into one valid value or every problem.

pub mod checks;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keys;
mod models;
mod parsers;
mod partial;
mod presets;

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::ArgMatches;
use reqwest::Url;
use service::{
    guard::Guard,
    secret::Secret,
    settings::{
        EnvVars, Problem, RestartSettings, SettingSource, SettingSpec, Settings, WHOLE_FILE, YamlFile,
        describe_read_error, without_consequential,
    },
};

pub use crate::engine::EngineKind;
use crate::{
    admin,
    engine::{EngineLogin, EngineSetup},
    gpu::{GpuSamplerConfig, KernelPaths},
    host,
    images::models::Preset,
    instance::Instance,
    sandbox,
};

pub(crate) use self::parsers::parse_engine_url;
pub use self::{
    keys::{KEYS, SettingValues},
    partial::{
        GpuSettings, ListenSettings, admin_sockets, config_file, read_gpu_settings, read_listen_settings,
    },
};

/// The configuration's usual place.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/ada2-sidecar/config.yaml";
/// The variable that names another.
pub(crate) const CONFIG_VARIABLE: &str = "ADA2_CONFIG";

/// A valid configuration. The value of a setting that stands for itself is `config.<field>`, by [`SettingValues`].
#[derive(Debug)]
pub struct Config {
    /// The values of the table.
    pub values: SettingValues,
    /// Where `listen` comes from.
    pub listen_source: SettingSource,
    /// The host names and origins that are ours.
    pub guard: Guard,
    /// The engine's address; none for the builtin engine.
    pub engine_url: Option<Url>,
    /// The user that we are to an engine that has users.
    pub engine_login: Option<EngineLogin>,
    /// The engine's systemd unit.
    pub engine_unit: String,
    /// Names for models with their settings.
    pub presets: Vec<Arc<Preset>>,
    /// Who we are to the engine.
    pub instance: Instance,
    /// Where state may be, the likeliest first.
    pub state_dirs: Vec<PathBuf>,
    /// Where the administration socket is.
    pub admin: admin::AdminPaths,
    /// What a reload must not change.
    pub fixed: RestartSettings,
    /// Deprecated settings, values without effect, and variables that look misspelled.
    pub warnings: Vec<String>,
}

/// Reads `config.max_n` from the table without a second list of the same names.
impl Deref for Config {
    type Target = SettingValues;

    fn deref(&self) -> &SettingValues {
        &self.values
    }
}

/// A configuration, and where each value comes from.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The valid values.
    pub config: Config,
    /// For `check-config`.
    pub effective: String,
}

/// Reads all layers. Nothing is bound or started before this succeeds.
pub fn load(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadedConfig, Vec<Problem>> {
    load_with_variables(flags, environment, &[])
}

/// The same, and looks for misspellings of ours among the names of all variables.
pub fn load_with_variables(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    variables: &[String],
) -> Result<LoadedConfig, Vec<Problem>> {
    let serving = matches!(flags.subcommand_name(), None | Some("serve"));
    load_layers(flags, environment, variables, serving)
}

/// The same for a service that runs, and so has its state directory already.
pub fn load_for_reload(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    variables: &[String],
) -> Result<LoadedConfig, Vec<Problem>> {
    load_layers(flags, environment, variables, false)
}

/// Reads all layers; `take_state_dir` locks the state directory.
fn load_layers(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    variables: &[String],
    take_state_dir: bool,
) -> Result<LoadedConfig, Vec<Problem>> {
    let (file, mut problems) = read_file(flags, environment);
    let is_file_unreadable = problems.iter().any(|problem| problem.key == WHOLE_FILE);
    // A broken file may name another directory.
    let opens = take_state_dir && problems.is_empty();
    let lower = |key: &SettingSpec| sandbox::credential(environment, key).or_else(|| file.get(key));
    let mut settings = Settings::resolve(KEYS, flags, environment, &lower);
    let (systemd_state, home) = (environment("STATE_DIRECTORY"), environment("HOME"));
    let state_dirs = Instance::candidates(&settings, systemd_state.as_deref(), home.as_deref());
    let config = read(&mut settings, file.directory(), &|settings, kind| {
        // The builtin engine has no jobs that outlive this process: trying it out leaves nothing behind, unless a state
        // directory is given explicitly.
        let is_explicit = systemd_state.is_some() || settings.source("state_dir") != SettingSource::Default;
        if opens && (!kind.is_in_process() || is_explicit) {
            Instance::open(settings, &state_dirs)
        } else {
            Some(Instance::unlocked())
        }
    });
    let unusable = overridden_token_problems(environment, &file);
    let is_reported = settings.problems.iter().any(|problem| problem.key == "token");
    settings.problems.extend(unusable.into_iter().filter(|_| !is_reported));
    problems.append(&mut settings.problems);
    let problems =
        without_consequential(problems, is_file_unreadable, |key| (key == "token_file").then_some("token"));
    let variables = EnvVars { names: variables, keys: KEYS, is_read: &|name| name == CONFIG_VARIABLE };
    match config {
        Some(config) if problems.is_empty() => {
            let admin = admin::AdminPaths::find(&settings, environment);
            let mut config = Config { state_dirs, admin, ..config };
            for (name, _) in sandbox::CREDENTIALS {
                let named = KEYS.iter().find(|key| key.name == name).and_then(|key| file.get(key));
                config.warnings.extend(sandbox::overridden_secret_file(&settings, name, named));
            }
            config.warnings.extend(settings.overridden());
            config.warnings.extend(variables.misspelled().iter().map(ToString::to_string));
            config.warnings.extend(variables.unused_with_prefix("ADA2_"));
            Ok(LoadedConfig { config, effective: settings.effective() })
        }
        _ => Err([problems, variables.misspelled()].concat()),
    }
}

/// An invalid token is reported even where another source overrides it: it was forgotten there.
fn overridden_token_problems(environment: &dyn Fn(&str) -> Option<String>, file: &YamlFile) -> Vec<Problem> {
    let Some(key) = KEYS.iter().find(|key| key.name == "token") else { return Vec::new() };
    let variable = environment(key.env).map(|value| (value, SettingSource::Environment(key.env)));
    let unusable = |(value, source): (String, SettingSource)| {
        Secret::token(&value).err().map(|why| Problem::new(source, key.name, why))
    };
    [variable, file.get(key)].into_iter().flatten().filter_map(unusable).collect()
}

/// What can be read of the file, and every problem with the rest.
fn read_file(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> (YamlFile, Vec<Problem>) {
    let given = partial::explicit_file(flags, environment);
    let path = Path::new(given.as_deref().unwrap_or(DEFAULT_CONFIG_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => YamlFile::parse_lenient(path, &text, KEYS),
        Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            (YamlFile::default(), Vec::new())
        }
        Err(error) => {
            let hint = sandbox::access_hint(path, error.kind()).unwrap_or_default();
            let message = format!("cannot be read: {}{hint}", describe_read_error(path, &error));
            (YamlFile::default(), vec![Problem::new(path.display(), WHOLE_FILE, message)])
        }
    }
}

fn read(
    settings: &mut Settings,
    base: &Path,
    instance: &dyn Fn(&mut Settings, EngineKind) -> Option<Instance>,
) -> Option<Config> {
    let before = settings.problems.len();
    settings.secret_from_file("token", "token_file");
    sandbox::add_secret_file_hint(settings, "token_file", before);
    let engine_login = read_engine_login(settings);
    let values = SettingValues::read(settings);
    settings.report_conflicts();
    let guard = Guard::from_settings(settings, "allowed_hosts", "allowed_origins");
    // Presets and state directory are read even if another setting is wrong, so that every problem is found.
    let valid_kind = settings.raw("engine").and_then(EngineKind::parse);
    let presets = presets::read(settings, valid_kind, base);
    let kind = valid_kind.unwrap_or(EngineKind::Builtin);
    let instance = instance(settings, kind);
    let values = values?;
    Some(Config {
        listen_source: settings.source("listen"),
        guard: guard?,
        engine_url: values.explicit_engine_url.clone().or_else(|| kind.default_url()),
        engine_unit: values.explicit_engine_unit.clone().unwrap_or_else(|| kind.default_unit().to_owned()),
        engine_login,
        presets: presets?,
        instance: instance?,
        state_dirs: Vec::new(),
        admin: admin::AdminPaths::default(),
        fixed: settings.restart_settings(),
        warnings: settings.deprecated(),
        values,
    })
}

/// `engine_auth_file`. Problems are noted; its content is never quoted.
fn read_engine_login(settings: &mut Settings) -> Option<EngineLogin> {
    const KEY: &str = "engine_auth_file";
    let before = settings.problems.len();
    let Some((text, source)) = settings.secret_text(KEY) else {
        sandbox::add_secret_file_hint(settings, KEY, before);
        return None;
    };
    let kind = settings.raw("engine").and_then(EngineKind::parse);
    if let Some(kind) = kind.filter(|kind| !kind.has_login()) {
        let expected = format!("has no effect: {} has no login; remove it, or correct engine", kind.name());
        settings.add_problem(KEY, expected);
        return None;
    }
    match EngineLogin::read(&text) {
        Ok(login) => Some(login),
        Err(expected) => {
            settings.problems.push(Problem::new(source, KEY, expected));
            None
        }
    }
}

impl Config {
    /// What the GPU's sampler needs to know.
    pub fn gpu_sampler_config(&self) -> GpuSamplerConfig {
        GpuSamplerConfig {
            library: self.nvml_lib.clone(),
            gpu_id: self.gpu_id.clone(),
            interval: self.sample_interval,
            engine_unit: self.engine_unit.clone(),
            kernel: KernelPaths::default(),
        }
    }

    /// What an engine is made from; `tag` marks our jobs in it.
    pub fn engine_setup<'a>(&'a self, tag: &'a str) -> EngineSetup<'a> {
        EngineSetup { url: self.engine_url.as_ref(), tag, model_dir: self.engine_model_dir.as_deref() }
    }

    /// What is sampled of the host.
    pub fn host_sampler_config(&self) -> host::HostSamplerConfig {
        host::HostSamplerConfig {
            output_dir: self.engine_output_dir.clone(),
            engine_unit: self.engine_unit.clone(),
            is_engine_in_process: self.engine.is_in_process(),
        }
    }
}

#[cfg(test)]
mod tests;
