//! What can be told of the certificate without changing anything: what it is, how long it lasts, whom it names, and whether another
//! can be signed.

use std::{collections::BTreeSet, fs, io, net::IpAddr, path::Path, time::SystemTime};

use rustls::pki_types::CertificateDer;

use super::{
    authority::Authority,
    examined,
    facts::Facts,
    foreign,
    names::names,
    pem,
    self_made::{CERTIFICATE, KEY},
};

/// A certificate as it is shown.
#[derive(Debug, Clone)]
pub(crate) struct CertificateInfo {
    /// The server's own.
    pub(crate) own: CertificateDer<'static>,
    /// When it ends.
    pub(crate) ends: SystemTime,
    /// Names and addresses in it.
    pub(crate) names: BTreeSet<String>,
    /// What clients will not like of it and of its chain.
    pub(crate) remarks: Vec<String>,
}

/// What the gateway keeps in its folder.
#[derive(Debug)]
pub(crate) enum StoredCertificate {
    /// Nothing yet; its start makes one.
    Nothing,
    /// It may not be looked at.
    Hidden(io::Error),
    /// It is damaged.
    Damaged(String),
    /// One that the gateway did not make.
    Foreign(CertificateInfo, String),
    /// One of its own.
    Own {
        certificate: CertificateInfo,
        /// Names of this host that the authority may not sign for.
        unsigned: Vec<String>,
        /// Why no other can be signed.
        fault: Option<String>,
        /// What people should know of the authority.
        remarks: Vec<String>,
    },
}

impl CertificateInfo {
    /// Of a chain.
    pub(crate) fn of(chain: &[CertificateDer<'static>], now: SystemTime) -> Option<Self> {
        let own = chain.first()?.clone();
        let facts = Facts::of(&own)?;
        Some(Self { own, ends: facts.ends, names: facts.names, remarks: examined::remarks(chain, now) })
    }

    /// Whether it is good for a name or an address.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let wildcard = host.split_once('.').map(|(_, above)| format!("*.{above}"));
        self.names.contains(&host)
            || host.parse::<IpAddr>().is_err() && wildcard.is_some_and(|name| self.names.contains(&name))
    }

    /// What this host is called besides, of what does not change by itself.
    pub(crate) fn leaves_out(&self) -> Vec<String> {
        let own = names();
        let matters = |name: &&String| match name.parse() {
            Ok(IpAddr::V6(_)) => false,
            Ok(IpAddr::V4(address)) => !address.is_loopback() && !address.is_link_local(),
            Err(_) => name.as_str() != "localhost" && !name.starts_with("host."),
        };
        own.iter().filter(matters).filter(|name| !self.covers(name)).cloned().collect()
    }
}

/// Looks at what is kept in the folder.
pub(crate) fn kept(dir: &Path, now: SystemTime) -> StoredCertificate {
    let path = dir.join(CERTIFICATE);
    match fs::File::open(&path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return StoredCertificate::Nothing,
        Err(error) => return StoredCertificate::Hidden(error),
    }
    let chain = match pem::certificates(&path) {
        Ok(chain) => chain,
        Err(why) => return StoredCertificate::Damaged(format!("{}: {why}", path.display())),
    };
    let Some(certificate) = CertificateInfo::of(&chain, now) else {
        return StoredCertificate::Damaged(format!("{}: it is damaged", path.display()));
    };
    // The keys are for the gateway's account alone.
    if let Err(error) = fs::File::open(dir.join(KEY))
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        return StoredCertificate::Own {
            certificate,
            unsigned: Vec::new(),
            fault: None,
            remarks: Vec::new(),
        };
    }
    if let Some(why) = foreign::warning(dir, now) {
        return StoredCertificate::Foreign(certificate, why);
    }
    match Authority::read(dir, now) {
        Ok(authority) => {
            let allowed = |name: &String| authority.facts.permitted.allows(name);
            let unsigned = certificate.leaves_out().into_iter().filter(|name| !allowed(name)).collect();
            StoredCertificate::Own {
                unsigned,
                fault: None,
                remarks: authority.remarks(dir, now),
                certificate,
            }
        }
        Err(why) => StoredCertificate::Own {
            certificate,
            unsigned: Vec::new(),
            fault: Some(why),
            remarks: Vec::new(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::disk::tests::temporary, tls::self_made::self_made};

    #[test]
    fn looking_changes_nothing_and_tells_what_is_there() {
        let (dir, now) = (temporary("inspected"), SystemTime::now());
        assert!(matches!(kept(&dir, now), StoredCertificate::Nothing));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        self_made(&dir, now).unwrap();
        let StoredCertificate::Own { certificate, unsigned, fault, remarks } = kept(&dir, now) else {
            unreachable!("made just now")
        };
        assert!(certificate.covers("localhost") && !certificate.covers("ai2.example.org"));
        assert_eq!((unsigned, fault, remarks), (vec![], None, vec![]));
        fs::remove_file(dir.join("gateway-ca-key.pem")).unwrap();
        let StoredCertificate::Own { fault: Some(why), .. } = kept(&dir, now) else {
            unreachable!("its key is gone")
        };
        assert!(why.contains("put gateway-ca.pem and gateway-ca-key.pem back"), "{why}");
        assert!(!dir.join("gateway-ca-key.pem").exists());
        fs::write(dir.join(CERTIFICATE), "what").unwrap();
        assert!(matches!(kept(&dir, now), StoredCertificate::Damaged(_)));
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let names = vec!["*.example.org".to_owned(), "10.0.0.5".to_owned()];
        let made = rcgen::CertificateParams::new(names).unwrap();
        let made = made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let read = CertificateInfo::of(&[made.der().clone()], SystemTime::now()).unwrap();
        for (host, covered) in [
            ("ai.example.org", true),
            ("a.b.example.org", false),
            ("example.org", false),
            ("10.0.0.5", true),
            ("10.0.0.6", false),
        ] {
            assert_eq!(read.covers(host), covered, "{host}");
        }
    }
}
