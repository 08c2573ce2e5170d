//! Settings that name PEM files: the listener's certificate, and the authorities and client certificate for backends. Messages
//! never quote a file.

use std::path::Path;

use reqwest::{Certificate, Identity};
use service::settings::{Settings, boolean};

use crate::tls::{self, Tls, pem};

/// The value of `BACKEND_CA_BUNDLE`.
pub(super) fn certificates(path: &str) -> Result<Vec<Certificate>, Vec<String>> {
    read_pem(path, "a readable PEM file of certificates", |path| {
        let damaged = |_| "a certificate in it is damaged".to_owned();
        let read = pem::certificates(path)?;
        read.iter().map(|der| Certificate::from_der(der).map_err(damaged)).collect()
    })
}

/// The value of `BACKEND_CLIENT_CERT`.
pub(super) fn identity(path: &str) -> Result<Identity, Vec<String>> {
    read_pem(path, "a readable PEM file of certificate and key", |path| {
        let pair = tls::match_key_pair(&pem::certificates(path)?, &pem::keys(path)?);
        pair.map_err(tls::KeyPairError::into_message)?;
        let unusable = |_| "its certificate and key cannot be used".to_owned();
        Identity::from_pem(&pem::read(path)?).map_err(unusable)
    })
}

fn read_pem<T>(
    path: &str,
    expected: &str,
    read: impl FnOnce(&Path) -> Result<T, String>,
) -> Result<T, Vec<String>> {
    check_path(path).map_err(|message| vec![message])?;
    read(path.as_ref()).map_err(|why| vec![format!("expected {expected}: {path}: {why}")])
}

/// The value may be the content of a file instead of its path, so a text that does not look like a path is never shown.
fn check_path(path: &str) -> Result<(), String> {
    if pem::looks_like_path(path.as_ref()) {
        Ok(())
    } else {
        Err("expected the path of a PEM file, not its content".to_owned())
    }
}

/// How the listener is secured. Problems are reported under the setting at fault.
pub(super) fn read_tls(settings: &mut Settings) -> Option<Tls> {
    let on = settings.required("GATEWAY_TLS", "on or off", boolean)?;
    // Even without TLS: the effective configuration prints the paths.
    let before = settings.problems.len();
    for name in ["GATEWAY_TLS_CERT_PATH", "GATEWAY_TLS_KEY_PATH"] {
        if let Some(Err(message)) = settings.raw(name).map(check_path) {
            settings.add_problem(name, message);
        }
    }
    if settings.problems.len() > before {
        return None;
    }
    let pair = (settings.raw("GATEWAY_TLS_CERT_PATH"), settings.raw("GATEWAY_TLS_KEY_PATH"));
    match (on, pair) {
        (false, _) => Some(Tls::Off),
        (true, (None, None)) => Some(Tls::LocalCa),
        (true, (Some(certificate), Some(key))) => {
            let read = tls::load_key_pair(certificate.as_ref(), key.as_ref());
            read.map_err(|error| settings.add_problem(error.setting(), error.to_string())).ok().map(Tls::Pair)
        }
        (true, (Some(both), None)) if pem::keys(both.as_ref()).is_ok() => {
            let read = tls::load_key_pair(both.as_ref(), both.as_ref());
            read.map_err(|error| settings.add_problem("GATEWAY_TLS_CERT_PATH", error.to_string()))
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
            settings.add_problem(
                "GATEWAY_TLS_CERT_PATH",
                "expected the certificate that belongs to GATEWAY_TLS_KEY_PATH",
            );
            None
        }
    }
}
