//! The local certificate authority: created once, trusted once by every client, and valid for ten years. It signs the
//! certificates that the gateway serves. It may sign only for private names and those of this host, so that a stolen key
//! cannot impersonate anybody else.
//!
//! Clients trust this one authority, so it is never replaced unless the operator removes it.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::CertificateDer;

use super::{
    files::{DAY, format_date, readable_key_warning, set_validity, to_pem, write_atomically},
    host_names::{PermittedSubtrees, short_host},
    parsed::ParsedCertificate,
    pem,
};

/// For clients to trust.
pub(crate) const CA_CERT_FILE: &str = "gateway-ca.pem";
pub(super) const CA_KEY_FILE: &str = "gateway-ca-key.pem";

/// Ten years with leap days.
const CA_VALIDITY: Duration = Duration::from_hours(24 * 3652);
const EXPIRY_WARNING: Duration = Duration::from_hours(24 * 365);
/// Some clients accept common names of at most 64 characters.
const MAX_HOST_CHARS: usize = 32;

/// An authority that can sign.
#[derive(Debug)]
pub(super) struct LocalCa {
    pub(super) certificate: CertificateDer<'static>,
    /// The certificate's contents.
    pub(super) facts: ParsedCertificate,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl LocalCa {
    /// The authority in `dir`, or a new one if there never was one. `issuer_in_use` is the one that signed the current
    /// certificate.
    pub(super) fn load_or_create(
        dir: &Path,
        now: SystemTime,
        names: &BTreeSet<String>,
        issuer_in_use: Option<&CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let (certificate, key) = (dir.join(CA_CERT_FILE), dir.join(CA_KEY_FILE));
        match (may_exist(&certificate), may_exist(&key)) {
            (true, true) => {}
            (true, false) => return Err(unusable_ca(dir, &format!("{CA_KEY_FILE} is missing"))),
            (false, true) => match issuer_in_use {
                Some(issuer) if read_key(&key).is_ok_and(|key| is_key_of(&key, issuer)) => {
                    write(&certificate, &to_pem(issuer), 0o644)?;
                    tracing::warn!(path = %certificate.display(), "restored the authority's certificate, which was missing");
                }
                Some(_) => return Err(unusable_ca(dir, &format!("{CA_CERT_FILE} is missing"))),
                // Left by an interrupted start. Clients that trust this key continue to.
                None => {
                    let key =
                        read_key(&key).map_err(|why| unusable_ca(dir, &format!("{CA_KEY_FILE}: {why}")))?;
                    self_sign(dir, now, names, &key)?;
                }
            },
            (false, false) => {
                create(dir, now, names)?;
                let path = certificate.display();
                if issuer_in_use.is_none() {
                    tracing::info!(%path, "created a local certificate authority; `gateway ca` explains how to make clients trust it");
                } else {
                    tracing::warn!(
                        %path,
                        "the local certificate authority was missing and a new one was created: every client has to trust the \
                         new one (`gateway ca`)"
                    );
                }
            }
        }
        Self::read(dir, now)
    }

    /// Changes nothing.
    pub(super) fn read(dir: &Path, now: SystemTime) -> Result<Self, String> {
        let broken = |name: &str, why: &str| unusable_ca(dir, &format!("{name}: {why}"));
        let certificates = pem::certificates(&dir.join(CA_CERT_FILE));
        let certificate = certificates.map_err(|why| broken(CA_CERT_FILE, &why))?.swap_remove(0);
        let key = read_key(&dir.join(CA_KEY_FILE)).map_err(|why| broken(CA_KEY_FILE, &why))?;
        let facts = ParsedCertificate::parse(&certificate).filter(|facts| facts.is_ca);
        let facts = facts.ok_or_else(|| broken(CA_CERT_FILE, "it is damaged, or not a CA certificate"))?;
        if !is_key_of(&key, &certificate) {
            return Err(broken(CA_KEY_FILE, &format!("it is not the key of {CA_CERT_FILE}")));
        }
        if facts.not_after <= now {
            return Err(broken(
                CA_CERT_FILE,
                &format!("the certificate authority expired on {}", format_date(facts.not_after)),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key);
        let issuer = issuer.map_err(|_| broken(CA_CERT_FILE, "it cannot sign"))?;
        Ok(Self { certificate, facts, issuer })
    }

    /// What the operator should know about it.
    pub(super) fn warnings(&self, dir: &Path, now: SystemTime) -> Vec<String> {
        let mut warnings: Vec<_> = readable_key_warning(&dir.join(CA_KEY_FILE)).into_iter().collect();
        if self.facts.not_after < now + EXPIRY_WARNING {
            warnings.push(format!(
                "the local certificate authority expires on {}; to replace it, move {CA_CERT_FILE} and {CA_KEY_FILE} out of {}, \
                 restart, then make every client trust the new one (`gateway ca`)",
                format_date(self.facts.not_after),
                dir.display()
            ));
        }
        warnings
    }
}

/// Why it cannot sign, and the two ways out.
fn unusable_ca(dir: &Path, why: &str) -> String {
    format!(
        "{}: the local certificate authority cannot sign: {why}; restore {CA_CERT_FILE} and {CA_KEY_FILE} from a backup, or move \
         both away: the next start then creates a new authority, which every client has to trust (`gateway ca`)",
        dir.display()
    )
}

fn read_key(path: &Path) -> Result<KeyPair, String> {
    // The gateway's own file contains exactly one.
    let keys = pem::keys(path)?;
    KeyPair::try_from(&keys[0])
        .map_err(|_| "it is not a key that can sign (RSA, ECDSA or Ed25519)".to_owned())
}

fn is_key_of(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    ParsedCertificate::parse(certificate).is_some_and(|facts| facts.public_key == key.public_key_raw())
}

fn create(dir: &Path, now: SystemTime, names: &BTreeSet<String>) -> Result<(), String> {
    let key = KeyPair::generate().map_err(|error| creation_failed(dir, &error))?;
    // The key first: a certificate without its key is a lost authority.
    write(&dir.join(CA_KEY_FILE), &key.serialize_pem(), 0o600)?;
    self_sign(dir, now, names, &key)
}

fn creation_failed(dir: &Path, error: &rcgen::Error) -> String {
    format!("{}: cannot create a certificate authority: {error}", dir.display())
}

fn self_sign(dir: &Path, now: SystemTime, names: &BTreeSet<String>, key: &KeyPair) -> Result<(), String> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    let host: String = short_host().chars().take(MAX_HOST_CHARS).collect();
    let subject =
        format!("gateway on {} (local authority)", if host.is_empty() { "this host" } else { &host });
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    // It begins a day early, for clients whose clock is behind.
    set_validity(&mut params, since.saturating_sub(DAY), since + CA_VALIDITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.name_constraints = Some(constraints(PermittedSubtrees::private_plus(names)));
    let certificate = params.self_signed(key).map_err(|error| creation_failed(dir, &error))?;
    write(&dir.join(CA_CERT_FILE), &certificate.pem(), 0o644)
}

fn constraints(permitted: PermittedSubtrees) -> NameConstraints {
    let domains = permitted.domains.into_iter().flatten().map(GeneralSubtree::DnsName);
    let range = |range: IpNet| {
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(range.network(), range.prefix_len()))
    };
    let ranges = permitted.ranges.into_iter().flatten().map(range);
    NameConstraints { permitted_subtrees: domains.chain(ranges).collect(), excluded_subtrees: Vec::new() }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    write_atomically(path, text.as_bytes(), mode).map_err(|error| format!("{}: {error}", path.display()))
}

/// The authority's certificate in `dir`, which everybody may read.
pub(crate) fn read_certificate(dir: &Path) -> Result<(CertificateDer<'static>, ParsedCertificate), String> {
    let certificate = pem::certificates(&dir.join(CA_CERT_FILE))?.swap_remove(0);
    let facts = ParsedCertificate::parse(&certificate).ok_or("it is damaged")?;
    Ok((certificate, facts))
}

/// True also if that is unknown, as for a link to a disk that is not mounted yet.
fn may_exist(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

pub(crate) fn exists(dir: &Path) -> std::io::Result<bool> {
    match fs::symlink_metadata(dir.join(CA_CERT_FILE)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
