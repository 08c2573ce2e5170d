//! TLS on the listener: a given pair, or a certificate of our own making. New connections are shown the one that is in
//! force; which that is can change while they come.

pub(crate) mod authority;
pub(crate) mod facts;
pub(crate) mod files;
mod names;
pub(crate) mod pem;
pub(crate) mod self_made;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use shared::service::{reload::Switch, serve::TlsAcceptor, settings::Problem};
use tracing::{error, info, warn};

use self::self_made::self_made;
use crate::blocking::blocking;

/// Between two looks whether the self-made certificate is near its end, and has every name of the host.
const LOOK: Duration = Duration::from_mins(5);

/// What is wrong with a pair.
#[derive(Debug)]
pub(crate) enum PairFault {
    /// The certificate cannot be read.
    Certificate(String),
    /// The key cannot be read, or is not the certificate's.
    Key(String),
}

impl PairFault {
    /// The setting to mend.
    pub(crate) const fn setting(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "GATEWAY_TLS_CERT_PATH",
            Self::Key(_) => "GATEWAY_TLS_KEY_PATH",
        }
    }
}

impl fmt::Display for PairFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(why) => write!(f, "expected a certificate chain in PEM: {why}"),
            Self::Key(why) => write!(f, "expected the certificate's private key in PEM: {why}"),
        }
    }
}

/// What the listener speaks.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Plain HTTP.
    Off,
    /// TLS with this pair.
    Pair(Arc<CertifiedKey>),
    /// TLS with a certificate of the gateway's own authority.
    SelfMade,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
pub(crate) struct Shown(Switch<Arc<CertifiedKey>>);

impl Shown {
    /// This one at first.
    pub(crate) fn new(certificate: Arc<CertifiedKey>) -> Self {
        Self(Switch::new(certificate))
    }

    /// This one from now on. Connections that are there keep theirs.
    pub(crate) fn show(&self, certificate: &Arc<CertifiedKey>) {
        if self.0.replace(certificate.clone()).cert != certificate.cert {
            info!("new connections are shown another certificate");
        }
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.now())
    }
}

/// The acceptor that shows it. HTTP/1.1 only.
pub(crate) fn acceptor(shown: Arc<Shown>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(shown);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor(Arc::new(server).into())
}

/// The certificate that the configuration asks for, if it asks for TLS. May make one and keep it in `data_dir`.
pub(crate) fn certificate(tls: &Tls, data_dir: &Path) -> Result<Option<Arc<CertifiedKey>>, Problem> {
    match tls {
        Tls::Off => Ok(None),
        Tls::Pair(pair) => Ok(Some(pair.clone())),
        Tls::SelfMade => match self_made(data_dir, SystemTime::now()) {
            Ok(made) => {
                made.remarks.iter().for_each(|remark| warn!("{remark}"));
                Ok(Some(made.pair))
            }
            Err(why) => {
                let expected = format!(
                    "expected a directory with certificates of the gateway's own, or for them: {why}"
                );
                Err(Problem::new("GATEWAY_DATA_DIR", data_dir.display().to_string(), expected))
            }
        },
    }
}

/// Reads a pair.
pub(crate) fn read_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, PairFault> {
    let wrong_certificate = |why: &str| PairFault::Certificate(format!("{}: {why}", certificate.display()));
    let wrong_key = |why: &str| PairFault::Key(format!("{}: {why}", key.display()));
    let chain = pem::certificates(certificate).map_err(|why| wrong_certificate(&why))?;
    let secret = pem::key(key).map_err(|why| wrong_key(&why))?;
    let provider = rustls::crypto::ring::default_provider();
    // In words of ours: the library's may quote.
    let pair = CertifiedKey::from_der(chain, secret, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong_key("it is the key of another certificate"),
        rustls::Error::InvalidCertificate(_) => wrong_certificate("the certificate is damaged"),
        _ => wrong_key("it is no key that TLS can use (RSA, ECDSA or Ed25519)"),
    })?;
    Ok(Arc::new(pair))
}

/// The worker: has a self-made certificate signed anew before it ends, and when the host is called otherwise. `folder` is
/// where it is kept, for as long as the configuration asks for one.
pub(crate) async fn renew(shown: Arc<Shown>, folder: impl Fn() -> Option<PathBuf>) {
    // What was said at the start is not said again at every look.
    let mut told = BTreeSet::new();
    if let Some(folder) = folder()
        && let Ok(made) = blocking(move || self_made(&folder, SystemTime::now())).await
    {
        told.extend(made.remarks);
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(folder) = folder() else { continue };
        let made = blocking(move || self_made(&folder, SystemTime::now())).await;
        let remarks = match made {
            Ok(made) => {
                shown.show(&made.pair);
                made.remarks
            }
            Err(why) => vec![format!("the certificate that is shown cannot be renewed: {why}")],
        };
        let remarks: BTreeSet<_> = remarks.into_iter().collect();
        remarks.difference(&told).for_each(|remark| error!("{remark}"));
        told = remarks;
    }
}

#[cfg(test)]
mod tests;
