//! TLS on the listener: a given pair, or a certificate of our own making. New connections are shown the one that is in
//! force; which that is can change while they come.

pub(crate) mod authority;
pub(crate) mod examined;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod foreign;
pub(crate) mod inspected;
pub(crate) mod names;
pub(crate) mod pem;
pub(crate) mod pinned;
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
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use service::{reload::Switch, serve::TlsAcceptor, settings::Problem};
use tracing::{error, info, warn};

use self::self_made::self_made;
use crate::{blocking::blocking, places};

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

    /// What it is.
    pub(crate) fn why(self) -> String {
        match self {
            Self::Certificate(why) | Self::Key(why) => why,
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
                    "expected a directory with certificates of the gateway's own, or for them: {why}{}",
                    places::remedy(data_dir)
                );
                Err(Problem::new("GATEWAY_DATA_DIR", data_dir.display().to_string(), expected))
            }
        },
    }
}

/// Reads a pair. Both may be in one file.
pub(crate) fn read_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, PairFault> {
    let pair = pem::certificates(certificate)
        .map_err(PairFault::Certificate)
        .and_then(|chain| pair_of(&chain, &pem::keys(key).map_err(PairFault::Key)?));
    pair.map(Arc::new).map_err(|fault| match fault {
        PairFault::Certificate(why) => PairFault::Certificate(format!("{}: {why}", certificate.display())),
        PairFault::Key(why) => PairFault::Key(format!("{}: {why}", key.display())),
    })
}

/// The chain with the first of the keys that is its certificate's; or why that cannot be. In words of ours: the library's may
/// quote.
pub(crate) fn pair_of(
    chain: &[CertificateDer<'static>],
    keys: &[PrivateKeyDer<'static>],
) -> Result<CertifiedKey, PairFault> {
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
            Some(at) => Err(PairFault::Certificate(format!(
                "its certificates are in the wrong order: the key belongs to number {} of {}; the server's own must be the first, \
                 and behind it who signed it",
                at + 1,
                chain.len()
            ))),
            None => Err(PairFault::Key("it is the key of another certificate".to_owned())),
        },
        Some(rustls::Error::InvalidCertificate(_)) => {
            Err(PairFault::Certificate(examined::why_unusable(chain.first())))
        }
        Some(_) | None => Err(PairFault::Key(
            "it is no key that TLS can use (RSA of 2048 bits or more, ECDSA on P-256 or P-384, Ed25519)"
                .to_owned(),
        )),
    }
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
