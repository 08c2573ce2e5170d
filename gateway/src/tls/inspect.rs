//! The certificate's state for the doctor, read without changing anything: expiry, names, and whether it can be renewed.

use std::{collections::BTreeSet, fs, io, net::IpAddr, path::Path, time::SystemTime};

use rustls::pki_types::CertificateDer;

use super::{
    files::{CERT_FILE, KEY_FILE},
    host_names::host_names,
    lints,
    local_ca::LocalCa,
    parsed::ParsedCertificate,
    pem, user_provided,
};

/// A certificate as clients see it.
#[derive(Debug, Clone)]
pub(crate) struct CertificateInfo {
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) not_after: SystemTime,
    pub(crate) names: BTreeSet<String>,
    /// Why clients reject it or its chain, or soon will.
    pub(crate) warnings: Vec<String>,
}

/// The certificate in the data directory.
#[derive(Debug)]
pub(crate) enum StoredCertificate {
    /// The gateway creates one when it starts.
    Missing,
    Unreadable(io::Error),
    Damaged(String),
    /// With what the operator should know about it.
    UserProvided(CertificateInfo, String),
    /// By the local authority.
    Issued {
        certificate: CertificateInfo,
        /// Names of this host that the authority may not sign for.
        unsignable_names: Vec<String>,
        /// Why it cannot be renewed.
        ca_error: Option<String>,
        ca_warnings: Vec<String>,
    },
}

impl CertificateInfo {
    /// None if the chain is empty or malformed.
    pub(crate) fn from_chain(chain: &[CertificateDer<'static>], now: SystemTime) -> Option<Self> {
        let leaf = chain.first()?.clone();
        let facts = ParsedCertificate::parse(&leaf)?;
        Some(Self {
            leaf,
            not_after: facts.not_after,
            names: facts.subject_alt_names,
            warnings: lints::warnings(chain, now),
        })
    }

    /// Whether it names this host or address.
    pub(crate) fn is_valid_for(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let wildcard = host.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        self.names.contains(&host)
            || host.parse::<IpAddr>().is_err() && wildcard.is_some_and(|name| self.names.contains(&name))
    }

    /// Names of this host that it lacks, except those that change by themselves or matter only here.
    pub(crate) fn missing_names(&self) -> Vec<String> {
        let host_names = host_names();
        let matters = |name: &&String| match name.parse() {
            Ok(IpAddr::V6(_)) => false,
            Ok(IpAddr::V4(address)) => !address.is_loopback() && !address.is_link_local(),
            Err(_) => name.as_str() != "localhost" && !name.starts_with("host."),
        };
        host_names.iter().filter(matters).filter(|name| !self.is_valid_for(name)).cloned().collect()
    }
}

pub(crate) fn inspect(dir: &Path, now: SystemTime) -> StoredCertificate {
    let path = dir.join(CERT_FILE);
    match fs::File::open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return StoredCertificate::Missing,
        Err(error) => return StoredCertificate::Unreadable(error),
    }
    let chain = match pem::certificates(&path) {
        Ok(chain) => chain,
        Err(why) => return StoredCertificate::Damaged(format!("{}: {why}", path.display())),
    };
    let Some(certificate) = CertificateInfo::from_chain(&chain, now) else {
        return StoredCertificate::Damaged(format!("{}: it is damaged", path.display()));
    };
    let issued = |certificate, ca_error| StoredCertificate::Issued {
        certificate,
        unsignable_names: Vec::new(),
        ca_error,
        ca_warnings: Vec::new(),
    };
    // Only the gateway's account can read the keys, and so check them.
    if let Err(error) = fs::File::open(dir.join(KEY_FILE))
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return issued(certificate, None);
    }
    if let Some(why) = user_provided::warning(dir, now) {
        return StoredCertificate::UserProvided(certificate, why);
    }
    match LocalCa::read(dir, now) {
        Ok(authority) => {
            let is_allowed = |name: &String| authority.facts.permitted.allows(name);
            StoredCertificate::Issued {
                unsignable_names: certificate
                    .missing_names()
                    .into_iter()
                    .filter(|name| !is_allowed(name))
                    .collect(),
                ca_error: None,
                ca_warnings: authority.warnings(dir, now),
                certificate,
            }
        }
        Err(why) => issued(certificate, Some(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::disk::tests::temporary, tls::local_certificate::load_or_issue};

    #[test]
    fn inspection_changes_nothing() {
        let (dir, now) = (temporary("inspected"), SystemTime::now());
        assert!(matches!(inspect(&dir, now), StoredCertificate::Missing));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        load_or_issue(&dir, now).unwrap();
        let StoredCertificate::Issued { certificate, unsignable_names, ca_error, ca_warnings } =
            inspect(&dir, now)
        else {
            unreachable!("issued just now")
        };
        assert!(certificate.is_valid_for("localhost") && !certificate.is_valid_for("ai2.example.org"));
        assert_eq!((unsignable_names, ca_error, ca_warnings), (vec![], None, vec![]));
        fs::remove_file(dir.join("gateway-ca-key.pem")).unwrap();
        let StoredCertificate::Issued { ca_error: Some(why), .. } = inspect(&dir, now) else {
            unreachable!("its key was removed")
        };
        assert!(why.contains("restore gateway-ca.pem and gateway-ca-key.pem"), "{why}");
        assert!(!dir.join("gateway-ca-key.pem").exists());
        fs::write(dir.join(CERT_FILE), "what").unwrap();
        assert!(matches!(inspect(&dir, now), StoredCertificate::Damaged(_)));
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let names = vec!["*.example.org".to_owned(), "10.0.0.5".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let info = CertificateInfo::from_chain(&[certificate.der().clone()], SystemTime::now()).unwrap();
        for (host, covered) in [
            ("ai.example.org", true),
            ("a.b.example.org", false),
            ("example.org", false),
            ("10.0.0.5", true),
            ("10.0.0.6", false),
        ] {
            assert_eq!(info.is_valid_for(host), covered, "{host}");
        }
    }
}
