//! Single settings, for commands that a broken configuration must not keep from working: flags, environment, and the file as
//! far as it can be read.

use std::{net::SocketAddr, path::PathBuf};

use clap::ArgMatches;
use shared::service::settings::{Problem, Settings, Source};

use super::{KEYS, read_file, sections};
use crate::admin;

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

fn gather(flags: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>) -> Settings {
    let (file, problems) = read_file(flags, environment);
    let mut settings = Settings::gather(KEYS, flags, environment, &|key| file.get(key));
    settings.problems = problems;
    settings
}
