//! TLS on the listener: a given pair, or a certificate of our own making. New connections are shown the one that is in
//! force; which that is can change while they come.

pub(crate) mod examined;
pub(crate) mod pem;
pub(crate) mod self_made;

use std::{
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
use shared::service::{reload::Switch, serve::TlsAcceptor, settings::Problem};
use tracing::{error, info};

use self::self_made::self_made;
use crate::blocking::blocking;

/// Between two looks whether the self-made certificate is near its end.
const LOOK: Duration = Duration::from_hours(1);

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
    /// TLS with a certificate that the gateway makes itself.
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
        Tls::SelfMade => self_made(data_dir, SystemTime::now()).map(Some).map_err(|why| {
            let expected = format!("expected a directory to keep the self-made certificate in: {why}");
            Problem::new("GATEWAY_DATA_DIR", data_dir.display().to_string(), expected)
        }),
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

/// The worker: remakes a self-made certificate before it ends. `folder` is where it is kept, for as long as the
/// configuration asks for one.
pub(crate) async fn renew(shown: Arc<Shown>, folder: impl Fn() -> Option<PathBuf>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(folder) = folder() else { continue };
        match blocking(move || self_made(&folder, SystemTime::now())).await {
            Ok(certificate) => shown.show(&certificate),
            Err(why) => error!(why, "the self-made certificate cannot be renewed; the one before is shown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::temporary;

    #[test]
    fn a_pair_that_cannot_be_read_names_the_setting() {
        let dir = temporary("pair");
        self_made(&dir, SystemTime::now()).unwrap();
        let (certificate, key) = (dir.join("gateway-cert.pem"), dir.join("gateway-key.pem"));
        assert!(read_pair(&certificate, &key).is_ok());
        let none = dir.join("none");
        assert_eq!(read_pair(&none, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
        assert_eq!(read_pair(&key, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
        assert_eq!(read_pair(&certificate, &certificate).unwrap_err().setting(), "GATEWAY_TLS_KEY_PATH");
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_near_its_end_is_renewed_while_it_is_shown() {
        let dir = temporary("renewed");
        let first = self_made(&dir, SystemTime::now()).unwrap();
        let shown = Arc::new(Shown::new(first.clone()));
        let two_looks = async || {
            let worker = renew(shown.clone(), || Some(dir.clone()));
            let _ = tokio::time::timeout(LOOK * 2 + LOOK / 2, worker).await;
        };
        two_looks().await;
        assert_eq!(shown.0.now().cert, first.cert, "it lasts");
        let old = SystemTime::now() - Duration::from_hours(24 * 370);
        std::fs::remove_file(dir.join("gateway-cert.pem")).unwrap();
        self_made(&dir, old).unwrap();
        two_looks().await;
        let kept = read_pair(&dir.join("gateway-cert.pem"), &dir.join("gateway-key.pem")).unwrap();
        assert_ne!(shown.0.now().cert, first.cert);
        assert_eq!(shown.0.now().cert, kept.cert, "what is shown is what clients may pin");
        let whole = SystemTime::now() + Duration::from_hours(24 * 300);
        assert!(self_made::expiry(&dir.join("gateway-cert.pem")).unwrap() > whole);
    }

    #[test]
    fn a_pair_whose_halves_do_not_fit_is_refused() {
        let (one, other) = (temporary("one"), temporary("other"));
        self_made(&one, SystemTime::now()).unwrap();
        self_made(&other, SystemTime::now()).unwrap();
        let fault = read_pair(&one.join("gateway-cert.pem"), &other.join("gateway-key.pem")).unwrap_err();
        assert_eq!(fault.setting(), "GATEWAY_TLS_KEY_PATH");
        assert!(fault.to_string().contains("it is the key of another certificate"), "{fault}");
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_told_and_the_right_one_of_several_keys_is_taken() {
        let folder = temporary("order");
        let made = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key);
            (certificate.unwrap().pem(), key.serialize_pem())
        };
        let ((own, own_key), (other, other_key)) = (made("ai2.local"), made("authority"));
        let read = |certificates: &[&str], keys: &[&str]| {
            let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
            std::fs::write(&certificate, certificates.concat()).unwrap();
            std::fs::write(&key, keys.concat()).unwrap();
            read_pair(&certificate, &key)
        };
        let fault = read(&[&other, &own], &[&own_key]).unwrap_err();
        assert_eq!(fault.setting(), "GATEWAY_TLS_CERT_PATH");
        let told = fault.to_string();
        assert!(told.contains("certificate.pem: its certificates are in the wrong order"), "{told}");
        assert!(told.contains("the key belongs to number 2 of 2"), "{told}");
        assert!(read(&[&own, &other], &[&own_key]).is_ok());
        assert!(read(&[&own], &[&other_key, &own_key]).is_ok(), "a key of something else stands before it");
        assert!(read(&[&own_key, &own], &[&own, &own_key]).is_ok(), "all of it in each file");
        assert!(read(&["\u{feff}", &own], &["\u{feff}", &own_key]).is_ok(), "as Windows' editors write them");
    }
}
