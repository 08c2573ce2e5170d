//! What can be told of the certificate without changing anything: what it is, how long it lasts, whom it names, and whether another
//! can be signed.

use std::{collections::BTreeSet, fs, io, net::IpAddr, path::Path, time::SystemTime};

use rustls::pki_types::CertificateDer;

use super::{
    host_names::host_names,
    lints,
    local_ca::LocalCa,
    local_certificate::{CERT_FILE, KEY_FILE},
    parsed::ParsedCertificate,
    pem, user_provided,
};

/// A certificate as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct CertificateInfo {
    /// The server's own.
    pub(crate) leaf: CertificateDer<'static>,
    /// When it ends.
    pub(crate) not_after: SystemTime,
    /// Names and addresses in it.
    pub(crate) names: BTreeSet<String>,
    /// What clients will not like of it and of its chain.
    pub(crate) warnings: Vec<String>,
}

/// What the gateway keeps in its folder.
#[derive(Debug)]
pub(crate) enum StoredCertificate {
    /// Nothing yet; its start makes one.
    Missing,
    /// It may not be looked at.
    Unreadable(io::Error),
    /// It is damaged.
    Damaged(String),
    /// One that the gateway did not make.
    UserProvided(CertificateInfo, String),
    /// One of its own.
    Issued {
        certificate: CertificateInfo,
        /// Names of this host that the authority may not sign for.
        unsignable_names: Vec<String>,
        /// Why no other can be signed.
        ca_error: Option<String>,
        /// What people should know of the authority.
        ca_warnings: Vec<String>,
    },
}

impl CertificateInfo {
    /// Of a chain.
    pub(crate) fn from_chain(chain: &[CertificateDer<'static>], now: SystemTime) -> Option<Self> {
        let own = chain.first()?.clone();
        let facts = ParsedCertificate::parse(&own)?;
        Some(Self {
            leaf: own,
            not_after: facts.not_after,
            names: facts.subject_alt_names,
            warnings: lints::warnings(chain, now),
        })
    }

    /// Whether it is good for a name or an address.
    pub(crate) fn is_valid_for(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let wildcard = host.split_once('.').map(|(_, above)| format!("*.{above}"));
        self.names.contains(&host)
            || host.parse::<IpAddr>().is_err() && wildcard.is_some_and(|name| self.names.contains(&name))
    }

    /// What this host is called besides, of what does not change by itself.
    pub(crate) fn missing_names(&self) -> Vec<String> {
        let own = host_names();
        let matters = |name: &&String| match name.parse() {
            Ok(IpAddr::V6(_)) => false,
            Ok(IpAddr::V4(address)) => !address.is_loopback() && !address.is_link_local(),
            Err(_) => name.as_str() != "localhost" && !name.starts_with("host."),
        };
        own.iter().filter(matters).filter(|name| !self.is_valid_for(name)).cloned().collect()
    }
}

/// Looks at what is kept in the folder.
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
    // The keys are for the gateway's account alone.
    if let Err(error) = fs::File::open(dir.join(KEY_FILE))
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return StoredCertificate::Issued {
            certificate,
            unsignable_names: Vec::new(),
            ca_error: None,
            ca_warnings: Vec::new(),
        };
    }
    if let Some(why) = user_provided::warning(dir, now) {
        return StoredCertificate::UserProvided(certificate, why);
    }
    match LocalCa::read(dir, now) {
        Ok(authority) => {
            let allowed = |name: &String| authority.facts.permitted.allows(name);
            let unsigned = certificate.missing_names().into_iter().filter(|name| !allowed(name)).collect();
            StoredCertificate::Issued {
                unsignable_names: unsigned,
                ca_error: None,
                ca_warnings: authority.warnings(dir, now),
                certificate,
            }
        }
        Err(why) => StoredCertificate::Issued {
            certificate,
            unsignable_names: Vec::new(),
            ca_error: Some(why),
            ca_warnings: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::disk::tests::temporary, tls::local_certificate::load_or_issue};

    #[test]
    fn looking_changes_nothing_and_tells_what_is_there() {
        let (dir, now) = (temporary("inspected"), SystemTime::now());
        assert!(matches!(inspect(&dir, now), StoredCertificate::Missing));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        load_or_issue(&dir, now).unwrap();
        let StoredCertificate::Issued {
            certificate,
            unsignable_names: unsigned,
            ca_error: fault,
            ca_warnings: remarks,
        } = inspect(&dir, now)
        else {
            unreachable!("made just now")
        };
        assert!(certificate.is_valid_for("localhost") && !certificate.is_valid_for("ai2.example.org"));
        assert_eq!((unsigned, fault, remarks), (vec![], None, vec![]));
        fs::remove_file(dir.join("gateway-ca-key.pem")).unwrap();
        let StoredCertificate::Issued { ca_error: Some(why), .. } = inspect(&dir, now) else {
            unreachable!("its key is gone")
        };
        assert!(why.contains("put gateway-ca.pem and gateway-ca-key.pem back"), "{why}");
        assert!(!dir.join("gateway-ca-key.pem").exists());
        fs::write(dir.join(CERT_FILE), "what").unwrap();
        assert!(matches!(inspect(&dir, now), StoredCertificate::Damaged(_)));
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let names = vec!["*.example.org".to_owned(), "10.0.0.5".to_owned()];
        let made = rcgen::CertificateParams::new(names).unwrap();
        let made = made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let read = CertificateInfo::from_chain(&[made.der().clone()], SystemTime::now()).unwrap();
        for (host, covered) in [
            ("ai.example.org", true),
            ("a.b.example.org", false),
            ("example.org", false),
            ("10.0.0.5", true),
            ("10.0.0.6", false),
        ] {
            assert_eq!(read.is_valid_for(host), covered, "{host}");
        }
    }
}
