//! Single settings, for commands that a broken configuration must not keep from working: flags, environment, and the file as
//! far as it can be read.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ArgMatches;
use service::settings::{Problem, Settings, Source};

use super::{CONFIG, DEFAULT_FILE, KEYS, read_file, sections};
use crate::{
    admin,
    config::EngineKind,
    gpu::{KernelFolders, Sampling},
};

/// Where the service would listen.
#[derive(Debug)]
pub struct Listen {
    /// The setting's value.
    pub addresses: Vec<SocketAddr>,
    /// Where that comes from.
    pub source: Source,
    /// What could not be read of the file, and so may name other addresses.
    pub unread: Vec<Problem>,
}

/// The file that the command line or the environment names.
pub(super) fn named_file(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    flags.get_one::<String>("config").cloned().or_else(|| environment(CONFIG))
}

/// Which file is read, if it is there.
pub fn file(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    named_file(flags, environment).unwrap_or_else(|| DEFAULT_FILE.to_owned()).into()
}

/// The setting `listen`, or what is wrong with it.
pub fn listen_alone(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Listen, Vec<Problem>> {
    let mut settings = gather(flags, environment);
    let unread = std::mem::take(&mut settings.problems);
    match sections::listen(&mut settings) {
        Some(addresses) => Ok(Listen { addresses, source: settings.source("listen"), unread }),
        None => Err(settings.problems),
    }
}

/// Where the administration socket of a running service may be. What is wrong with the file, that service says.
pub fn admin_sockets(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    admin::Places::find(&gather(flags, environment), environment).sockets
}

/// Which card is meant, as far as that can be read.
#[derive(Debug)]
pub struct Card {
    /// How it is looked at.
    pub sampling: Sampling,
    /// Whether there must be one.
    pub required: bool,
}

/// The settings of the card, each with its default where it is not sound.
pub fn card_alone(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Card {
    let settings = gather(flags, environment);
    let value = |name: &str| settings.raw(name).map(str::to_owned);
    let kind = value("engine").and_then(|text| EngineKind::parse(&text)).unwrap_or(EngineKind::InvokeAi);
    let sampling = Sampling {
        library: value("nvml_lib").and_then(|text| super::absolute(&text)),
        gpu_id: value("gpu_id").and_then(|text| sections::gpu_id(&text)).unwrap_or_else(|| "0".to_owned()),
        interval: Duration::from_millis(500),
        engine_unit: value("engine_unit").unwrap_or_else(|| kind.default_unit().to_owned()),
        kernel: KernelFolders::default(),
    };
    Card { sampling, required: settings.raw("gpu") != Some("optional") }
}

fn gather(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Settings {
    let (file, problems) = read_file(flags, environment);
    let mut settings = Settings::gather(KEYS, flags, environment, &|key| file.get(key));
    settings.problems = problems;
    settings
}
