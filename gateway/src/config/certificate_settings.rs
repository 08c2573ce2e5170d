//! What `gateway ca` and `gateway token` need of the configuration. Users who cannot read the gateway's env file may run it, too.

use std::path::PathBuf;

use clap::ArgMatches;
use service::settings::boolean;

use super::{env_file::LoadedEnvFile, is_loopback_or_invalid, resolve_settings};

/// Where the gateway's own certificates are, and whether it serves them.
#[derive(Debug)]
pub(crate) struct CertificateSettings {
    pub(crate) data_dir: PathBuf,
    pub(crate) tls_enabled: bool,
    /// The user's own certificate.
    pub(crate) cert_path: Option<String>,
    /// Whether only this machine can reach the gateway.
    pub(crate) is_loopback: bool,
    /// The port, as written.
    pub(crate) port: String,
    /// Where clients reach the gateway, if that is configured.
    pub(crate) public_base_url: Option<String>,
    /// Why the env file cannot be read.
    pub(crate) errors: Vec<String>,
}

/// Errors in other settings do not matter here.
pub(crate) fn certificate_settings(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> CertificateSettings {
    let mut problems = Vec::new();
    let env = LoadedEnvFile::read(matches, environment, &mut problems);
    let settings = resolve_settings(matches, environment, &env);
    let text = |name: &str| settings.raw(name).map(str::to_owned);
    CertificateSettings {
        data_dir: text("GATEWAY_DATA_DIR").unwrap_or_default().into(),
        tls_enabled: text("GATEWAY_TLS").and_then(|text| boolean(&text)).unwrap_or(true),
        cert_path: text("GATEWAY_TLS_CERT_PATH"),
        is_loopback: text("GATEWAY_HOST").is_none_or(|host| is_loopback_or_invalid(&host)),
        port: text("GATEWAY_PORT").unwrap_or_default(),
        public_base_url: text("PUBLIC_BASE_URL"),
        errors: problems
            .iter()
            .filter(|problem| problem.source == "--env-file")
            .map(ToString::to_string)
            .collect(),
    }
}
