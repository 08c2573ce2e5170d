//! The legacy gateway, which gets every path that is not the gateway's own.

use reqwest::Url;
use service::{secret::Secret, settings::Settings};

use super::backends_file::base_url;

/// The legacy gateway.
#[derive(Debug, Clone)]
pub struct LegacyUpstream {
    /// Without a path.
    pub origin: Url,
    /// Its own token, never a client's.
    pub bearer: Option<Secret>,
}

impl LegacyUpstream {
    /// `None` if none is configured, or on a problem.
    pub(super) fn read(settings: &mut Settings) -> Option<Self> {
        let expected = "a token of printable ASCII characters, not an empty one";
        let bearer =
            settings.optional("GATEWAY_LEGACY_BEARER_TOKEN", expected, |text| Secret::token(text).ok());
        let expected = "http://host:port or https://host:port, without a path";
        let origin = settings.optional("GATEWAY_LEGACY_UPSTREAM", expected, |text| {
            base_url(text).filter(|url| url.path() == "/")
        });
        let origin = origin.flatten()?;
        let loopback = matches!(origin.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        let port = settings.raw("GATEWAY_PORT").and_then(|port| port.parse().ok());
        if loopback && port == origin.port_or_known_default() {
            let message = "expected the address of another gateway; this is the gateway itself";
            settings.add_problem("GATEWAY_LEGACY_UPSTREAM", message);
        }
        Some(Self { origin, bearer: bearer? })
    }
}
