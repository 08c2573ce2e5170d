//! The old gateway, which gets every path that is not ours.

use reqwest::Url;
use service::{secret::Secret, settings::Settings};

use super::backends_file::base_url;

/// The old gateway, while it still serves what is not ours.
#[derive(Debug, Clone)]
pub struct LegacyUpstream {
    /// Where it is; without a path.
    pub origin: Url,
    /// The token that it asks for.
    pub bearer: Option<Secret>,
}

impl LegacyUpstream {
    /// None where there is none, and where a problem was noted.
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
            let message = "expected the old gateway; this is the gateway itself";
            settings.add_problem("GATEWAY_LEGACY_UPSTREAM", message);
        }
        Some(Self { origin, bearer: bearer? })
    }
}
