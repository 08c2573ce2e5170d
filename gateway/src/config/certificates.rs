//! What `gateway ca` needs of the configuration. Anybody may run it, also who cannot read the gateway's env file.

use std::path::PathBuf;

use clap::ArgMatches;
use service::settings::truth;

use super::{EnvPlace, gather};

/// Where the gateway's own certificates are, and whether it shows them.
#[derive(Debug)]
pub(crate) struct Certificates {
    /// Where they are kept.
    pub(crate) data_dir: PathBuf,
    /// Whether TLS is spoken.
    pub(crate) tls: bool,
    /// The certificate of a pair that somebody gave.
    pub(crate) given: Option<String>,
    /// The port, as written.
    pub(crate) port: String,
    /// What could not be read.
    pub(crate) unread: Vec<String>,
}

/// Reads them. What is wrong with other settings does not matter here.
pub(crate) fn certificates(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Certificates {
    let mut problems = Vec::new();
    let env = EnvPlace::read(matches, environment, &mut problems);
    let settings = gather(matches, environment, &env);
    let text = |name: &str| settings.raw(name).map(str::to_owned);
    Certificates {
        data_dir: text("GATEWAY_DATA_DIR").unwrap_or_default().into(),
        tls: text("GATEWAY_TLS").and_then(|text| truth(&text)).unwrap_or(true),
        given: text("GATEWAY_TLS_CERT_PATH"),
        port: text("GATEWAY_PORT").unwrap_or_default(),
        unread: problems
            .iter()
            .filter(|problem| problem.source == "--env-file")
            .map(ToString::to_string)
            .collect(),
    }
}
