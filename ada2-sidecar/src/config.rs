//! The configuration: one table of keys, read into one valid value, every problem at once.

pub mod checks;
mod keys;
mod models;
mod partial;
mod presets;
mod sections;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::ArgMatches;
use reqwest::Url;
use service::{
    secret::Secret,
    settings::{
        EnvVars, Problem, RestartSettings, SettingSource, SettingSpec, Settings, WHOLE_FILE, YamlFile,
        boolean, bytes, describe_read_error, duration, whole_number, without_consequential,
    },
    telemetry::LogFormat,
};

use self::checks::{CardRules, HostRules};
use self::sections::gpu_id;
pub use crate::engine::EngineKind;
use crate::{
    admin,
    gpu::{GpuSamplerConfig, KernelPaths},
    host,
    images::models::{ModelDeclaration, Preset},
    instance::Instance,
    sandbox,
};

pub(crate) use self::sections::parse_engine_url;
pub use self::{
    keys::KEYS,
    partial::{
        GpuSettings, ListenSettings, admin_sockets, config_file, read_gpu_settings, read_listen_settings,
    },
    sections::AccessSettings,
};

/// The configuration's usual place.
pub(crate) const DEFAULT_CONFIG_FILE: &str = "/etc/ada2-sidecar/config.yaml";
/// The variable that names another.
pub(crate) const CONFIG_VARIABLE: &str = "ADA2_CONFIG";

/// A valid configuration.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the key of the same name; its help says what it means")]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    /// Where that comes from.
    pub listen_source: SettingSource,
    pub access: AccessSettings,
    pub engine: EngineKind,
    /// None for the builtin engine.
    pub engine_url: Option<Url>,
    pub engine_unit: String,
    pub default_model: Option<String>,
    pub gpu_required: bool,
    pub gpu_id: String,
    pub nvml_lib: Option<PathBuf>,
    /// Bytes.
    pub min_free_vram: u64,
    pub sample_interval: Duration,
    /// Checks that warn where they would gate.
    pub warn_only: Vec<&'static str>,
    pub card: CardRules,
    pub host: HostRules,
    pub engine_output_dir: Option<PathBuf>,
    pub warm_up: bool,
    pub presets: Vec<Arc<Preset>>,
    pub models: Vec<ModelDeclaration>,
    pub privacy: Privacy,
    pub max_inflight: usize,
    pub max_engine_queue: u64,
    pub max_n: u64,
    pub max_pixels: u64,
    pub max_request_bytes: usize,
    pub request_timeout: Duration,
    pub shutdown_grace: Duration,
    pub instance: Instance,
    /// Where state may be, the likeliest first.
    pub state_dirs: Vec<PathBuf>,
    /// Where the administration socket is.
    pub admin: admin::AdminPaths,
    pub log_format: LogFormat,
    pub log_filter: String,
    /// What a reload must not change.
    pub fixed: RestartSettings,
    /// What is set and going to be removed, with what takes its place.
    pub warnings: Vec<String>,
}

/// What is left behind of a request.
#[derive(Debug, Clone, Copy)]
pub struct Privacy {
    /// Pictures stay out of the engine's own gallery.
    pub discard_outputs: bool,
    /// What the engine writes into a PNG is taken out.
    pub strip_metadata: bool,
    /// Prompts are written to the log.
    pub log_prompts: bool,
}

/// A configuration, and how it came about.
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

/// `opens` is whether the state directory is taken.
fn load_layers(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    variables: &[String],
    take_state_dir: bool,
) -> Result<LoadedConfig, Vec<Problem>> {
    let (file, mut problems) = read_file(flags, environment);
    let is_file_unreadable = problems.iter().any(|problem| problem.key == WHOLE_FILE);
    // A directory that the file may have named otherwise is not taken.
    let opens = take_state_dir && problems.is_empty();
    let lower = |key: &SettingSpec| sandbox::credential(environment, key).or_else(|| file.get(key));
    let mut settings = Settings::resolve(KEYS, flags, environment, &lower);
    let (systemd_state, home) = (environment("STATE_DIRECTORY"), environment("HOME"));
    let state_dirs = Instance::candidates(&settings, systemd_state.as_deref(), home.as_deref());
    let config = read(&mut settings, file.folder(), &|settings, kind| {
        // The builtin engine lives and dies with this process and has no jobs to know again: trying it out leaves nothing
        // behind, unless a directory is named for it.
        let is_explicit = systemd_state.is_some() || settings.source("state_dir") != SettingSource::Default;
        if opens && (kind != EngineKind::Builtin || is_explicit) {
            Instance::open(settings, &state_dirs)
        } else {
            Some(Instance::unlocked())
        }
    });
    let unusable = overridden_token_problems(environment, &file);
    let known = settings.problems.iter().any(|problem| problem.key == "token");
    settings.problems.extend(unusable.into_iter().filter(|_| !known));
    problems.append(&mut settings.problems);
    let problems =
        without_consequential(problems, is_file_unreadable, |key| (key == "token_file").then_some("token"));
    let variables = EnvVars { names: variables, keys: KEYS, is_read: &|name| name == CONFIG_VARIABLE };
    match config {
        Some(config) if problems.is_empty() => {
            let admin = admin::AdminPaths::find(&settings, environment);
            let mut config = Config { state_dirs, admin, ..config };
            let named = KEYS.iter().find(|key| key.name == "token_file").and_then(|key| file.get(key));
            config.warnings.extend(sandbox::overridden_token_file(&settings, named));
            config.warnings.extend(settings.overridden());
            config.warnings.extend(variables.misspelled().iter().map(ToString::to_string));
            config.warnings.extend(variables.unused_with_prefix("ADA2_"));
            Ok(LoadedConfig { config, effective: settings.effective() })
        }
        _ => Err([problems, variables.misspelled()].concat()),
    }
}

/// A token that is none, in a place that another place overrules, is a forgotten one all the same.
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

/// For a setting with two words: whether it is the second.
fn either(no: &'static str, yes: &'static str) -> impl Fn(&str) -> Option<bool> {
    move |text| (text == yes).then_some(true).or((text == no).then_some(false))
}

fn read(
    s: &mut Settings,
    base: &Path,
    instance: &dyn Fn(&mut Settings, EngineKind) -> Option<Instance>,
) -> Option<Config> {
    let engine = s.required("engine", "invokeai, comfyui or builtin", EngineKind::parse);
    let kind = engine.unwrap_or(EngineKind::Builtin);
    let (listen, edge) = (sections::listen(s), AccessSettings::read(s));
    let engine_url = s.optional("engine_url", "an address like http://127.0.0.1:9090", parse_engine_url);
    let engine_unit = s.optional("engine_unit", "a unit name like invokeai.service", non_empty);
    let default_model = s.optional("default_model", "a model's name", non_empty);
    let gpu_required = s.required("gpu", "required or optional", either("optional", "required"));
    let gpu_id = s.required("gpu_id", "an index like 0 or a UUID like GPU-…", gpu_id);
    let nvml_lib = s.optional("nvml_lib", "an absolute path", absolute);
    let min_free_vram = s.required("min_free_vram", "a size like 8GiB, or 0", bytes);
    let sample_interval =
        s.required("sample_interval", "a duration from 10ms to 5s", |text| between(text, 10, 5_000));
    let (warn_only, card) = (sections::warn_only(s), sections::card(s));
    let host = sections::host(s);
    let engine_output_dir = s.optional("engine_output_dir", "an absolute path", absolute);
    let warm_up = s.required("warm_up", "on or off", boolean);
    let presets = presets::read(s, kind, base);
    let models = models::read(s);
    let privacy = sections::privacy(s);
    let max_inflight = whole_number_between(s, "max_inflight", 1, 64);
    let max_engine_queue = whole_number_between(s, "max_engine_queue", 0, 1_000_000);
    let max_n = whole_number_between(s, "max_n", 1, 10);
    let max_pixels = whole_number_between(s, "max_pixels", 64 * 64, 100_000_000);
    let max_request_bytes = s.required("max_request_bytes", "a size from 1KiB to 256MiB", |text| {
        bytes(text)
            .filter(|bytes| (1 << 10..=256 << 20).contains(bytes))
            .and_then(|bytes| bytes.try_into().ok())
    });
    let request_timeout =
        s.required("request_timeout", "a duration from 1s to 1h", |text| between(text, 1_000, 3_600_000));
    let shutdown_grace = s.required("shutdown_grace", "a duration like 30s", duration);
    let log_format = s.required("log_format", "text or json", LogFormat::parse);
    let log_filter = s.required("log_filter", "a filter like info or ada2_sidecar=debug", log_filter);
    let instance = instance(s, kind);
    Some(Config {
        engine_url: engine_url?.or_else(|| kind.default_url()),
        engine_unit: engine_unit?.unwrap_or_else(|| kind.default_unit().to_owned()),
        engine: engine?,
        listen: listen?,
        listen_source: s.source("listen"),
        access: edge?,
        default_model: default_model?,
        gpu_required: gpu_required?,
        gpu_id: gpu_id?,
        nvml_lib: nvml_lib?,
        min_free_vram: min_free_vram?,
        sample_interval: sample_interval?,
        warn_only: warn_only?,
        card: card?,
        host: host?,
        engine_output_dir: engine_output_dir?,
        warm_up: warm_up?,
        presets: presets?,
        models: models?,
        privacy: privacy?,
        max_inflight: max_inflight?.try_into().ok()?,
        max_engine_queue: max_engine_queue?,
        max_n: max_n?,
        max_pixels: max_pixels?,
        max_request_bytes: max_request_bytes?,
        request_timeout: request_timeout?,
        shutdown_grace: shutdown_grace?,
        instance: instance?,
        state_dirs: Vec::new(),
        admin: admin::AdminPaths::default(),
        log_format: log_format?,
        log_filter: log_filter?,
        fixed: s.restart_settings(),
        warnings: s.deprecated(),
    })
}

fn absolute(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
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

    /// What is looked at of the host.
    pub fn host_sampler_config(&self) -> host::HostSamplerConfig {
        host::HostSamplerConfig {
            output_dir: self.engine_output_dir.clone(),
            engine_unit: self.engine_unit.clone(),
            is_engine_in_process: self.engine == EngineKind::Builtin,
        }
    }
}

fn log_filter(text: &str) -> Option<String> {
    service::telemetry::is_filter(text).then(|| text.to_owned())
}

fn non_empty(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn between(text: &str, low_ms: u64, high_ms: u64) -> Option<Duration> {
    let range = Duration::from_millis(low_ms)..=Duration::from_millis(high_ms);
    duration(text).filter(|duration| range.contains(duration))
}

fn whole_number_between(s: &mut Settings, name: &str, low: u64, high: u64) -> Option<u64> {
    s.required(name, &format!("a whole number from {low} to {high}"), |text| {
        whole_number(text).filter(|number| (low..=high).contains(number))
    })
}

#[cfg(test)]
mod tests;
