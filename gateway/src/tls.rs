//! TLS on the listener: a given pair, or a certificate of our own making. New connections are shown the one that is in
//! force; which that is can change while they come.

pub(crate) mod files;
pub(crate) mod host_names;
pub(crate) mod inspect;
pub(crate) mod lints;
pub(crate) mod local_ca;
pub(crate) mod local_certificate;
pub(crate) mod parsed;
pub(crate) mod pem;
pub(crate) mod pinned;
pub(crate) mod user_provided;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use service::{reload::Reloadable, serve::TlsAcceptor, settings::Problem};
use tracing::{error, info, warn};

use self::local_certificate::load_or_issue;
use crate::{blocking::blocking, writable_paths};

/// Between two looks whether the self-made certificate is near its end, and has every name of the host.
const RENEWAL_CHECK_INTERVAL: Duration = Duration::from_mins(5);

/// What is wrong with a pair.
#[derive(Debug)]
pub(crate) enum KeyPairError {
    /// The certificate cannot be read.
    Certificate(String),
    /// The key cannot be read, or is not the certificate's.
    Key(String),
}

impl KeyPairError {
    /// The setting to mend.
    pub(crate) const fn setting(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "GATEWAY_TLS_CERT_PATH",
            Self::Key(_) => "GATEWAY_TLS_KEY_PATH",
        }
    }

    /// What it is.
    pub(crate) fn into_message(self) -> String {
        match self {
            Self::Certificate(why) | Self::Key(why) => why,
        }
    }
}

impl fmt::Display for KeyPairError {
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
    LocalCa,
}

/// The certificate that new connections are shown.
#[derive(Debug)]
pub(crate) struct CertResolver(Reloadable<Arc<CertifiedKey>>);

impl CertResolver {
    /// This one at first.
    pub(crate) fn new(certificate: Arc<CertifiedKey>) -> Self {
        Self(Reloadable::new(certificate))
    }

    /// This one from now on. Connections that are there keep theirs.
    pub(crate) fn replace(&self, certificate: &Arc<CertifiedKey>) {
        if self.0.replace(certificate.clone()).cert != certificate.cert {
            info!("new connections are shown another certificate");
        }
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load())
    }
}

/// The acceptor that shows it. HTTP/1.1 only.
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

/// The certificate that the configuration asks for, if it asks for TLS. May make one and keep it in `data_dir`.
pub(crate) fn certificate(tls: &Tls, data_dir: &Path) -> Result<Option<Arc<CertifiedKey>>, Problem> {
    match tls {
        Tls::Off => Ok(None),
        Tls::Pair(pair) => Ok(Some(pair.clone())),
        Tls::LocalCa => match load_or_issue(data_dir, SystemTime::now()) {
            Ok(served) => {
                served.warnings.iter().for_each(|remark| warn!("{remark}"));
                Ok(Some(served.pair))
            }
            Err(why) => {
                let expected = format!(
                    "expected a directory with certificates of the gateway's own, or for them: {why}{}",
                    writable_paths::remedy(data_dir)
                );
                Err(Problem::new("GATEWAY_DATA_DIR", data_dir.display().to_string(), expected))
            }
        },
    }
}

/// Reads a pair. Both may be in one file.
pub(crate) fn load_key_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, KeyPairError> {
    let pair = pem::certificates(certificate)
        .map_err(KeyPairError::Certificate)
        .and_then(|chain| match_key_pair(&chain, &pem::keys(key).map_err(KeyPairError::Key)?));
    pair.map(Arc::new).map_err(|fault| match fault {
        KeyPairError::Certificate(why) => {
            KeyPairError::Certificate(format!("{}: {why}", certificate.display()))
        }
        KeyPairError::Key(why) => KeyPairError::Key(format!("{}: {why}", key.display())),
    })
}

/// The chain with the first of the keys that is its certificate's; or why that cannot be. In words of ours: the library's may
/// quote.
pub(crate) fn match_key_pair(
    chain: &[CertificateDer<'static>],
    keys: &[PrivateKeyDer<'static>],
) -> Result<CertifiedKey, KeyPairError> {
    let provider = rustls::crypto::ring::default_provider();
    let pair = |chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>| {
        CertifiedKey::from_der(chain.to_vec(), key.clone_key(), &provider)
    };
    let mut first = None;
    for key in keys {
        match pair(chain, key) {
            Ok(pair) => return Ok(pair),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    let fits = |certificate: &CertificateDer<'static>| {
        keys.iter().any(|key| pair(std::slice::from_ref(certificate), key).is_ok())
    };
    match first {
        Some(rustls::Error::InconsistentKeys(_)) => match chain.iter().position(fits) {
            Some(at) => Err(KeyPairError::Certificate(format!(
                "its certificates are in the wrong order: the key belongs to number {} of {}; the server's own must be the first, \
                 and behind it who signed it",
                at + 1,
                chain.len()
            ))),
            None => Err(KeyPairError::Key("it is the key of another certificate".to_owned())),
        },
        Some(rustls::Error::InvalidCertificate(_)) => {
            Err(KeyPairError::Certificate(lints::unusable_reason(chain.first())))
        }
        Some(_) | None => Err(KeyPairError::Key(
            "it is no key that TLS can use (RSA of 2048 bits or more, ECDSA on P-256 or P-384, Ed25519)"
                .to_owned(),
        )),
    }
}

/// The worker: has a self-made certificate signed anew before it ends, and when the host is called otherwise. `folder` is
/// where it is kept, for as long as the configuration asks for one.
pub(crate) async fn run_renewal(resolver: Arc<CertResolver>, data_dir: impl Fn() -> Option<PathBuf>) {
    // What was said at the start is not said again at every look.
    let mut reported = BTreeSet::new();
    if let Some(folder) = data_dir()
        && let Ok(made) = blocking(move || load_or_issue(&folder, SystemTime::now())).await
    {
        reported.extend(made.warnings);
    }
    loop {
        tokio::time::sleep(RENEWAL_CHECK_INTERVAL).await;
        let Some(folder) = data_dir() else { continue };
        let made = blocking(move || load_or_issue(&folder, SystemTime::now())).await;
        let warnings = match made {
            Ok(made) => {
                resolver.replace(&made.pair);
                made.warnings
            }
            Err(why) => vec![format!("the certificate that is shown cannot be renewed: {why}")],
        };
        let warnings: BTreeSet<_> = warnings.into_iter().collect();
        warnings.difference(&reported).for_each(|remark| error!("{remark}"));
        reported = warnings;
    }
}

#[cfg(test)]
mod tests;
