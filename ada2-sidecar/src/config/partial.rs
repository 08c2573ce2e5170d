//! Single settings, for commands that a broken configuration must not keep from working: flags, environment, and the file as
//! far as it can be read.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ArgMatches;
use service::settings::{Problem, SettingSource, Settings};

use super::{CONFIG_VARIABLE, DEFAULT_CONFIG_FILE, KEYS, parsers, read_file};
use crate::{
    admin,
    config::EngineKind,
    gpu::{GpuSamplerConfig, KernelPaths},
};

/// Where the service would listen.
#[derive(Debug)]
pub struct ListenSettings {
    /// The setting's value.
    pub addresses: Vec<SocketAddr>,
    /// Where that comes from.
    pub source: SettingSource,
    /// What could not be read of the file, and so may name other addresses.
    pub file_problems: Vec<Problem>,
}

/// The file that the command line or the environment names.
pub(super) fn explicit_file(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    flags.get_one::<String>("config").cloned().or_else(|| environment(CONFIG_VARIABLE))
}

/// Which file is read, if it is there.
pub fn config_file(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    explicit_file(flags, environment).unwrap_or_else(|| DEFAULT_CONFIG_FILE.to_owned()).into()
}

/// The setting `listen`, or what is wrong with it.
pub fn read_listen_settings(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ListenSettings, Vec<Problem>> {
    let mut settings = gather(flags, environment);
    let unread = std::mem::take(&mut settings.problems);
    match settings.read("listen", &parsers::LISTEN) {
        Some(addresses) => {
            Ok(ListenSettings { addresses, source: settings.source("listen"), file_problems: unread })
        }
        None => Err(settings.problems),
    }
}

/// Where the administration socket of a running service may be. That service reports problems with the file.
pub fn admin_sockets(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    admin::AdminPaths::find(&gather(flags, environment), environment).sockets
}

/// Which card is configured, if that can be read.
#[derive(Debug)]
pub struct GpuSettings {
    /// How it is sampled.
    pub sampler: GpuSamplerConfig,
    /// Whether there must be one.
    pub required: bool,
}

/// The settings of the card, each with its default where it is not sound.
pub fn read_gpu_settings(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> GpuSettings {
    let settings = gather(flags, environment);
    let value = |name: &str| settings.raw(name).map(str::to_owned);
    let kind = value("engine").and_then(|text| EngineKind::parse(&text)).unwrap_or(EngineKind::InvokeAi);
    let sampling = GpuSamplerConfig {
        library: value("nvml_lib").and_then(|text| parsers::absolute(&text)),
        gpu_id: value("gpu_id").and_then(|text| parsers::gpu_id(&text)).unwrap_or_else(|| "0".to_owned()),
        interval: Duration::from_millis(500),
        engine_unit: value("engine_unit").unwrap_or_else(|| kind.default_unit().to_owned()),
        kernel: KernelPaths::default(),
    };
    GpuSettings { sampler: sampling, required: settings.raw("gpu") != Some("optional") }
}

fn gather(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Settings {
    let (file, problems) = read_file(flags, environment);
    let mut settings = Settings::resolve(KEYS, flags, environment, &|key| file.get(key));
    settings.problems = problems;
    settings
}
