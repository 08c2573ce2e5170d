//! The smaller sections of the configuration: TLS, outbound trust, health rules, log.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Identity, Url};
use service::{
    secret::Secret,
    settings::{Settings, boolean, bytes, duration},
    telemetry::LogFormat,
};

use super::backends_file::base_url;
use crate::{
    store::retention::RetentionPolicy as Retention,
    tls::{self, Tls, pem},
};

/// What a setting that names a listener of its own expects.
pub(super) const SOCKET: &str = "an IP address with a port, such as 127.0.0.1:8801";

/// What the listener speaks.
pub(super) fn read_tls(settings: &mut Settings) -> Option<Tls> {
    let on = settings.required("GATEWAY_TLS", "on or off", boolean)?;
    // Without TLS, too: the effective configuration shows them.
    let named = ["GATEWAY_TLS_CERT_PATH", "GATEWAY_TLS_KEY_PATH"].map(|name| check_pem_path(settings, name));
    if named.contains(&false) {
        return None;
    }
    let pair = (settings.raw("GATEWAY_TLS_CERT_PATH"), settings.raw("GATEWAY_TLS_KEY_PATH"));
    match (on, pair) {
        (false, _) => Some(Tls::Off),
        (true, (None, None)) => Some(Tls::LocalCa),
        (true, (Some(certificate), Some(key))) => {
            let read = tls::load_key_pair(certificate.as_ref(), key.as_ref());
            read.map_err(|fault| settings.add_problem(fault.setting(), fault.to_string())).ok().map(Tls::Pair)
        }
        (true, (Some(both), None)) if pem::keys(both.as_ref()).is_ok() => {
            let read = tls::load_key_pair(both.as_ref(), both.as_ref());
            read.map_err(|fault| settings.add_problem("GATEWAY_TLS_CERT_PATH", fault.to_string()))
                .ok()
                .map(Tls::Pair)
        }
        (true, (Some(certificate), None)) => {
            let why = pem::keys(certificate.as_ref()).err().unwrap_or_default();
            let message = format!(
                "expected the key of GATEWAY_TLS_CERT_PATH here, or in that file: {certificate}: {why}"
            );
            settings.add_problem("GATEWAY_TLS_KEY_PATH", message);
            None
        }
        (true, (None, Some(_))) => {
            settings.add_problem("GATEWAY_TLS_CERT_PATH", "expected the certificate of GATEWAY_TLS_KEY_PATH");
            None
        }
    }
}

/// Whether a setting, if it is set, names a file. The file's content may have been written in its place, so a text that
/// does not look like a path is noted as a problem and never shown.
fn check_pem_path(settings: &mut Settings, name: &str) -> bool {
    let named = settings.raw(name).is_none_or(|value| pem::looks_like_path(value.as_ref()));
    if !named {
        settings.add_problem(
            name,
            "expected the path of a PEM file, found something else; is it what should be in it?",
        );
    }
    named
}

/// How backends' certificates are judged, and what we show them.
#[derive(Debug, Clone)]
pub struct OutboundTls {
    /// Whether they are checked at all.
    pub verify_certificates: bool,
    /// Further authorities.
    pub root_certificates: Vec<Certificate>,
    /// Our certificate and key.
    pub identity: Option<Identity>,
}

impl OutboundTls {
    pub(super) fn read(settings: &mut Settings) -> Option<Self> {
        let verify = settings.required("BACKEND_VERIFY_TLS", "true or false", boolean);
        let authorities =
            read_pem(settings, "BACKEND_CA_BUNDLE", "a readable PEM file of certificates", |path| {
                let damaged = |_| "a certificate in it is damaged".to_owned();
                let read = pem::certificates(path)?;
                read.iter().map(|der| Certificate::from_der(der).map_err(damaged)).collect()
            });
        let identity =
            read_pem(settings, "BACKEND_CLIENT_CERT", "a readable PEM file of certificate and key", |path| {
                let pair = tls::match_key_pair(&pem::certificates(path)?, &pem::keys(path)?);
                pair.map_err(tls::KeyPairError::into_message)?;
                let unusable = |_| "certificate and key in it are of no use".to_owned();
                Identity::from_pem(&pem::read(path)?).map_err(unusable)
            });
        Some(Self {
            verify_certificates: verify?,
            root_certificates: authorities.unwrap_or_default(),
            identity,
        })
    }
}

/// Reads a PEM file, if a setting names one. What is wrong with it is told in words of ours, and never quoted.
fn read_pem<T>(
    settings: &mut Settings,
    name: &str,
    expected: &str,
    read: impl FnOnce(&Path) -> Result<T, String>,
) -> Option<T> {
    let path = settings.raw(name)?.to_owned();
    if !check_pem_path(settings, name) {
        return None;
    }
    let read = read(path.as_ref());
    read.map_err(|why| settings.add_problem(name, format!("expected {expected}: {path}: {why}"))).ok()
}

/// The old gateway, while it still serves what is not ours.
#[derive(Debug, Clone)]
pub struct LegacyUpstream {
    /// Where it is; without a path.
    pub origin: Url,
    /// The token that it asks for.
    pub bearer: Option<Secret>,
}

impl LegacyUpstream {
    /// None where there is none, and where a problem was noted. `port` is the gateway's own.
    pub(super) fn read(settings: &mut Settings, port: Option<u16>) -> Option<Self> {
        let expected = "a token of printable ASCII characters, not an empty one";
        let bearer =
            settings.optional("GATEWAY_LEGACY_BEARER_TOKEN", expected, |text| Secret::token(text).ok());
        let expected = "http://host:port or https://host:port, without a path";
        let origin = settings.optional("GATEWAY_LEGACY_UPSTREAM", expected, |text| {
            base_url(text).filter(|url| url.path() == "/")
        });
        let origin = origin.flatten()?;
        let loopback = matches!(origin.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if loopback && port == origin.port_or_known_default() {
            let message = "expected the old gateway; this is the gateway itself";
            settings.add_problem("GATEWAY_LEGACY_UPSTREAM", message);
        }
        Some(Self { origin, bearer: bearer? })
    }
}

/// The log.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Where they go; standard error without.
    pub file: Option<PathBuf>,
}

impl LogConfig {
    pub(super) fn read(settings: &mut Settings) -> Option<Self> {
        let format = settings.required("GATEWAY_LOG_FORMAT", "text or json", LogFormat::parse);
        Some(Self { format: format?, file: settings.raw("GATEWAY_LOG_FILE").map(PathBuf::from) })
    }
}

/// How much of the pictures is kept. 0 is no limit: it must not mean that none is.
pub(super) fn read_retention(settings: &mut Settings) -> Option<Retention> {
    let days = "a number of days; 0 or nothing is no limit";
    let max_age = settings.optional("UI_IMAGE_STORE_MAX_AGE_DAYS", days, |text| {
        let days: f64 = text.trim().parse().ok()?;
        (0.0..=36_500.0).contains(&days).then(|| Duration::from_secs_f64(days * 86_400.0))
    });
    let sum = "a number of bytes such as 20GiB; 0 or nothing is no limit";
    let max_bytes = settings.optional("UI_IMAGE_STORE_MAX_BYTES", sum, bytes);
    Some(Retention {
        max_age: max_age?.filter(|age| !age.is_zero()),
        max_bytes: max_bytes?.filter(|bytes| *bytes > 0),
    })
}

/// When a backend counts as ready.
#[derive(Debug, Clone, Copy)]
pub struct ProbeRules {
    /// Between probes of a ready backend.
    pub interval: Duration,
    /// For one probe.
    pub timeout: Duration,
    /// Unanswered probes in a row until a ready backend counts as not ready.
    pub threshold: u32,
}

pub(super) fn read_probe_rules(settings: &mut Settings) -> Option<ProbeRules> {
    let interval = settings.required("HEALTH_CHECK_INTERVAL_SEC", "a time in seconds", duration);
    let timeout = settings.required("HEALTH_CHECK_TIMEOUT_SEC", "a time in seconds", duration);
    let threshold = settings.required("HEALTH_CHECK_FAILURE_THRESHOLD", "a whole number above 0", |text| {
        text.trim().parse().ok().filter(|count| *count > 0)
    });
    Some(ProbeRules { interval: interval?, timeout: timeout?, threshold: threshold? })
}
