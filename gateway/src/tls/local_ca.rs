//! The local authority: made once, trusted once by whoever talks to the gateway, and kept for ten years, in which it signs
//! the certificates that the gateway shows. It may sign for private names and those of this host alone, so that whoever
//! steals its key can impersonate nobody else.
//!
//! Programs trust this one authority: another is never made in its place unasked.

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
    files::{DAY, format_date, is_private, set_validity, to_pem, write_atomically},
    host_names::{PermittedSubtrees, short_host},
    parsed::ParsedCertificate,
    pem,
};

/// Its certificate, for everybody to trust.
pub(crate) const CA_CERT_FILE: &str = "gateway-ca.pem";
/// Its key, for nobody else.
pub(super) const CA_KEY_FILE: &str = "gateway-ca-key.pem";

/// Ten years, two or three leap days among them.
const CA_VALIDITY: Duration = Duration::from_hours(24 * 3652);
/// So long before its end people are told.
const EXPIRY_WARNING: Duration = Duration::from_hours(24 * 365);
/// Letters of a common name, of which some clients take no more than 64.
const MAX_HOST_CHARS: usize = 32;

/// An authority that can sign.
#[derive(Debug)]
pub(super) struct LocalCa {
    /// Its certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// What that says.
    pub(super) facts: ParsedCertificate,
    /// What signs.
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl LocalCa {
    /// The one that is kept in `dir`, or a new one where there never was any. `used` is the certificate of the one that
    /// signed what the gateway shows now.
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
                Some(used) if read_key(&key).is_ok_and(|key| is_key_of(&key, used)) => {
                    write(&certificate, &to_pem(used), 0o644)?;
                    tracing::warn!(path = %certificate.display(), "the authority's certificate was missing; written again");
                }
                Some(_) => return Err(unusable_ca(dir, &format!("{CA_CERT_FILE} is missing"))),
                // What an interrupted start leaves. Whoever does trust this key trusts the same name and key again.
                None => {
                    let pair =
                        read_key(&key).map_err(|why| unusable_ca(dir, &format!("{CA_KEY_FILE}: {why}")))?;
                    self_sign(dir, now, names, &pair)?;
                }
            },
            (false, false) => {
                make(dir, now, names)?;
                let path = certificate.display();
                if issuer_in_use.is_none() {
                    tracing::info!(%path, "made a local authority; `gateway ca` says how programs learn to trust it");
                } else {
                    tracing::warn!(
                        %path,
                        "the local authority was gone, and another was made: every program must be taught to trust it \
                         (`gateway ca`)"
                    );
                }
            }
        }
        Self::read(dir, now)
    }

    /// The one that is kept in `dir`. Changes nothing.
    pub(super) fn read(dir: &Path, now: SystemTime) -> Result<Self, String> {
        let broken = |name: &str, why: &str| unusable_ca(dir, &format!("{name}: {why}"));
        let certificates = pem::certificates(&dir.join(CA_CERT_FILE));
        let certificate = certificates.map_err(|why| broken(CA_CERT_FILE, &why))?.swap_remove(0);
        let key = read_key(&dir.join(CA_KEY_FILE)).map_err(|why| broken(CA_KEY_FILE, &why))?;
        let facts = ParsedCertificate::parse(&certificate).filter(|facts| facts.is_ca);
        let facts = facts.ok_or_else(|| broken(CA_CERT_FILE, "it is damaged, or no authority's"))?;
        if !is_key_of(&key, &certificate) {
            return Err(broken(CA_KEY_FILE, &format!("it is not the key of {CA_CERT_FILE}")));
        }
        if facts.not_after <= now {
            return Err(broken(
                CA_CERT_FILE,
                &format!("the authority ended on {}", format_date(facts.not_after)),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key);
        let issuer = issuer.map_err(|_| broken(CA_CERT_FILE, "it cannot sign"))?;
        Ok(Self { certificate, facts, issuer })
    }

    /// What people should know of it.
    pub(super) fn warnings(&self, dir: &Path, now: SystemTime) -> Vec<String> {
        let mut warnings = Vec::new();
        if !is_private(&dir.join(CA_KEY_FILE)) {
            warnings.push(format!(
                "{}: others can read the authority's key: chmod 600 it",
                dir.join(CA_KEY_FILE).display()
            ));
        }
        if self.facts.not_after < now + EXPIRY_WARNING {
            warnings.push(format!(
                "the local authority ends on {}; to have a new one made, move {CA_CERT_FILE} and {CA_KEY_FILE} out of {} and restart, \
                 then have every program trust it (`gateway ca`)",
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
        "{}: the local authority cannot sign: {why}; put {CA_CERT_FILE} and {CA_KEY_FILE} back from a backup, or move both away, and the \
         next start makes a new authority, which every program must be taught to trust (`gateway ca`)",
        dir.display()
    )
}

fn read_key(path: &Path) -> Result<KeyPair, String> {
    // Our own file holds one.
    let keys = pem::keys(path)?;
    KeyPair::try_from(&keys[0]).map_err(|_| "it is no key that can sign (RSA, ECDSA or Ed25519)".to_owned())
}

fn is_key_of(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    ParsedCertificate::parse(certificate).is_some_and(|facts| facts.public_key == key.public_key_raw())
}

fn make(dir: &Path, now: SystemTime, names: &BTreeSet<String>) -> Result<(), String> {
    let pair = KeyPair::generate().map_err(|error| creation_failed(dir, &error))?;
    // The key first: a certificate without its key is an authority that was lost.
    write(&dir.join(CA_KEY_FILE), &pair.serialize_pem(), 0o600)?;
    self_sign(dir, now, names, &pair)
}

fn creation_failed(dir: &Path, error: &rcgen::Error) -> String {
    format!("{}: no authority can be made: {error}", dir.display())
}

fn self_sign(dir: &Path, now: SystemTime, names: &BTreeSet<String>, pair: &KeyPair) -> Result<(), String> {
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
    let made = params.self_signed(pair).map_err(|error| creation_failed(dir, &error))?;
    write(&dir.join(CA_CERT_FILE), &made.pem(), 0o644)
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

/// The authority's certificate as it is in `dir`, for showing it.
pub(crate) fn read_certificate(dir: &Path) -> Result<(CertificateDer<'static>, ParsedCertificate), String> {
    let certificate = pem::certificates(&dir.join(CA_CERT_FILE))?.swap_remove(0);
    let facts = ParsedCertificate::parse(&certificate).ok_or("it is damaged")?;
    Ok((certificate, facts))
}

/// Also what cannot be looked at now, as a link into a disk that is not there yet: it is never taken for gone.
fn may_exist(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether there is one, or something in its place.
pub(crate) fn exists(dir: &Path) -> std::io::Result<bool> {
    match fs::symlink_metadata(dir.join(CA_CERT_FILE)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
