//! A certificate chain with its private key.

use std::{fmt, path::Path, sync::Arc};

use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::{lints, pem};

/// Why a certificate and its key cannot be used.
#[derive(Debug)]
pub(crate) enum KeyPairError {
    /// The certificate cannot be read.
    Certificate(String),
    /// The key cannot be read, or is not the certificate's.
    Key(String),
}

impl KeyPairError {
    /// The setting to fix.
    pub(crate) const fn setting(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "GATEWAY_TLS_CERT_PATH",
            Self::Key(_) => "GATEWAY_TLS_KEY_PATH",
        }
    }

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

/// Reads a certificate chain and its key, which may be in one file.
pub(crate) fn load_key_pair(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>, KeyPairError> {
    let pair = pem::certificates(certificate)
        .map_err(KeyPairError::Certificate)
        .and_then(|chain| match_key_pair(&chain, &pem::keys(key).map_err(KeyPairError::Key)?));
    pair.map(Arc::new).map_err(|error| match error {
        KeyPairError::Certificate(why) => {
            KeyPairError::Certificate(format!("{}: {why}", certificate.display()))
        }
        KeyPairError::Key(why) => KeyPairError::Key(format!("{}: {why}", key.display())),
    })
}

/// The chain with the first key that belongs to it. The messages are ours: the library's may quote the file.
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
                "its certificates are in the wrong order: the key belongs to number {} of {}; put the server's certificate first, \
                 followed by the certificates that signed it",
                at + 1,
                chain.len()
            ))),
            None => Err(KeyPairError::Key("it is the key of another certificate".to_owned())),
        },
        Some(rustls::Error::InvalidCertificate(_)) => {
            Err(KeyPairError::Certificate(lints::unusable_reason(chain.first())))
        }
        Some(_) | None => Err(KeyPairError::Key(
            "TLS cannot use this key (supported: RSA with 2048 bits or more, ECDSA on P-256 or P-384, Ed25519)"
                .to_owned(),
        )),
    }
}
