//! TLS on the listener: with the user's certificate, or with one of the gateway's own authority. It can be replaced while the
//! gateway serves; new connections get the new one.

pub(crate) mod files;
pub(crate) mod host_names;
pub(crate) mod inspect;
mod key_pair;
pub(crate) mod lints;
pub(crate) mod local_ca;
pub(crate) mod local_certificate;
pub(crate) mod parsed;
pub(crate) mod pem;
pub(crate) mod pinned;
pub(crate) mod user_provided;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use service::{reload::Reloadable, serve::TlsAcceptor, settings::Problem};
use tracing::{error, info, warn};

pub(crate) use self::key_pair::{KeyPairError, load_key_pair, match_key_pair};
use self::local_certificate::load_or_issue;
use crate::{blocking::blocking, writable_paths};

/// The interval of checks whether the gateway's own certificate needs renewal.
const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// How connections to the listener are secured.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// TLS with the user's certificate.
    Pair(Arc<CertifiedKey>),
    /// TLS with a certificate of the gateway's own authority.
    LocalCa,
}

/// The certificate for new connections.
#[derive(Debug)]
pub(crate) struct CertResolver(Reloadable<Arc<CertifiedKey>>);

impl CertResolver {
    pub(crate) fn new(certificate: Arc<CertifiedKey>) -> Self {
        Self(Reloadable::new(certificate))
    }

    /// Existing connections keep theirs.
    pub(crate) fn replace(&self, certificate: &Arc<CertifiedKey>) {
        if self.0.replace(certificate.clone()).cert != certificate.cert {
            info!("new connections now get a new certificate");
        }
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load())
    }
}

/// A certificate from the data directory.
#[derive(Debug)]
struct ServedCertificate {
    pair: Arc<CertifiedKey>,
    /// What the operator should know about it.
    warnings: Vec<String>,
}

/// The TLS acceptor. HTTP/1.1 only.
pub(crate) fn acceptor(resolver: Arc<CertResolver>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor(Arc::new(server).into())
}

/// The configured certificate, unless TLS is off. May issue one and store it in `data_dir`.
pub(crate) fn certificate(tls: &Tls, data_dir: &Path) -> Result<Option<Arc<CertifiedKey>>, Problem> {
    match tls {
        Tls::Off => Ok(None),
        Tls::Pair(pair) => Ok(Some(pair.clone())),
        Tls::LocalCa => match load_or_issue(data_dir, SystemTime::now()) {
            Ok(served) => {
                served.warnings.iter().for_each(|warning| warn!("{warning}"));
                Ok(Some(served.pair))
            }
            Err(why) => {
                let expected = format!(
                    "expected a directory for the gateway's own certificates: {why}{}",
                    writable_paths::remedy(data_dir)
                );
                Err(Problem::new("GATEWAY_DATA_DIR", data_dir.display().to_string(), expected))
            }
        },
    }
}

/// The worker that renews a certificate of our own before it expires and when the host's names change. `data_dir` returns
/// none while the configuration needs no such certificate.
pub(crate) async fn run_renewal(resolver: Arc<CertResolver>, data_dir: impl Fn() -> Option<PathBuf>) {
    // Warnings that start-up logged are not repeated.
    let mut logged = BTreeSet::new();
    if let Some(dir) = data_dir()
        && let Ok(served) = blocking(move || load_or_issue(&dir, SystemTime::now())).await
    {
        logged.extend(served.warnings);
    }
    loop {
        tokio::time::sleep(RENEWAL_CHECK_INTERVAL).await;
        let Some(dir) = data_dir() else { continue };
        let warnings = match blocking(move || load_or_issue(&dir, SystemTime::now())).await {
            Ok(served) => {
                resolver.replace(&served.pair);
                served.warnings
            }
            Err(why) => vec![format!("the certificate in use cannot be renewed: {why}")],
        };
        let warnings: BTreeSet<_> = warnings.into_iter().collect();
        warnings.difference(&logged).for_each(|warning| error!("{warning}"));
        logged = warnings;
    }
}

#[cfg(test)]
mod tests;
