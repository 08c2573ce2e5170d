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
    facts::Facts,
    files::{DAY, date, is_private, pem_of, place, set_life},
    names::{Permitted, short_host},
    pem,
};

/// Its certificate, for everybody to trust.
pub(crate) const CERTIFICATE: &str = "gateway-ca.pem";
/// Its key, for nobody else.
pub(super) const KEY: &str = "gateway-ca-key.pem";

/// Ten years, two or three leap days among them.
const LIFE: Duration = Duration::from_hours(24 * 3652);
/// So long before its end people are told.
const NOTICE: Duration = Duration::from_hours(24 * 365);
/// Letters of a common name, of which some clients take no more than 64.
const HOST_LETTERS: usize = 32;

/// An authority that can sign.
#[derive(Debug)]
pub(super) struct Authority {
    /// Its certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// What that says.
    pub(super) facts: Facts,
    /// What signs.
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// The one that is kept in `dir`, or a new one where there never was any. `used` is the certificate of the one that
    /// signed what the gateway shows now.
    pub(super) fn open(
        dir: &Path,
        now: SystemTime,
        names: &BTreeSet<String>,
        used: Option<&CertificateDer<'static>>,
    ) -> Result<Self, String> {
        let (certificate, key) = (dir.join(CERTIFICATE), dir.join(KEY));
        match (is_there(&certificate), is_there(&key)) {
            (true, true) => {}
            (true, false) => return Err(lost(dir, &format!("{KEY} is missing"))),
            (false, true) => match used {
                Some(used) if read_key(&key).is_ok_and(|key| is_key_of(&key, used)) => {
                    write(&certificate, &pem_of(used), 0o644)?;
                    tracing::warn!(path = %certificate.display(), "the authority's certificate was missing; written again");
                }
                Some(_) => return Err(lost(dir, &format!("{CERTIFICATE} is missing"))),
                // What an interrupted start leaves. Whoever does trust this key trusts the same name and key again.
                None => {
                    let pair = read_key(&key).map_err(|why| lost(dir, &format!("{KEY}: {why}")))?;
                    certify(dir, now, names, &pair)?;
                }
            },
            (false, false) => {
                make(dir, now, names)?;
                let path = certificate.display();
                if used.is_none() {
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
        let broken = |name: &str, why: &str| lost(dir, &format!("{name}: {why}"));
        let certificates = pem::certificates(&dir.join(CERTIFICATE));
        let certificate = certificates.map_err(|why| broken(CERTIFICATE, &why))?.swap_remove(0);
        let key = read_key(&dir.join(KEY)).map_err(|why| broken(KEY, &why))?;
        let facts = Facts::of(&certificate).filter(|facts| facts.is_authority);
        let facts = facts.ok_or_else(|| broken(CERTIFICATE, "it is damaged, or no authority's"))?;
        if !is_key_of(&key, &certificate) {
            return Err(broken(KEY, &format!("it is not the key of {CERTIFICATE}")));
        }
        if facts.ends <= now {
            return Err(broken(CERTIFICATE, &format!("the authority ended on {}", date(facts.ends))));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key);
        let issuer = issuer.map_err(|_| broken(CERTIFICATE, "it cannot sign"))?;
        Ok(Self { certificate, facts, issuer })
    }

    /// What people should know of it.
    pub(super) fn remarks(&self, dir: &Path, now: SystemTime) -> Vec<String> {
        let mut remarks = Vec::new();
        if !is_private(&dir.join(KEY)) {
            remarks.push(format!(
                "{}: others can read the authority's key: chmod 600 it",
                dir.join(KEY).display()
            ));
        }
        if self.facts.ends < now + NOTICE {
            remarks.push(format!(
                "the local authority ends on {}; to have a new one made, move {CERTIFICATE} and {KEY} out of {} and restart, \
                 then have every program trust it (`gateway ca`)",
                date(self.facts.ends),
                dir.display()
            ));
        }
        remarks
    }
}

/// Why it cannot sign, and the two ways out.
fn lost(dir: &Path, why: &str) -> String {
    format!(
        "{}: the local authority cannot sign: {why}; put {CERTIFICATE} and {KEY} back from a backup, or move both away, and the \
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
    Facts::of(certificate).is_some_and(|facts| facts.public_key == key.public_key_raw())
}

fn make(dir: &Path, now: SystemTime, names: &BTreeSet<String>) -> Result<(), String> {
    let pair = KeyPair::generate().map_err(|error| failed(dir, &error))?;
    // The key first: a certificate without its key is an authority that was lost.
    write(&dir.join(KEY), &pair.serialize_pem(), 0o600)?;
    certify(dir, now, names, &pair)
}

fn failed(dir: &Path, error: &rcgen::Error) -> String {
    format!("{}: no authority can be made: {error}", dir.display())
}

fn certify(dir: &Path, now: SystemTime, names: &BTreeSet<String>, pair: &KeyPair) -> Result<(), String> {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    let host: String = short_host().chars().take(HOST_LETTERS).collect();
    let subject =
        format!("gateway on {} (local authority)", if host.is_empty() { "this host" } else { &host });
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    // It begins a day early, for clients whose clock is behind.
    set_life(&mut params, since.saturating_sub(DAY), since + LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.name_constraints = Some(constraints(Permitted::private_and(names)));
    let made = params.self_signed(pair).map_err(|error| failed(dir, &error))?;
    write(&dir.join(CERTIFICATE), &made.pem(), 0o644)
}

fn constraints(permitted: Permitted) -> NameConstraints {
    let domains = permitted.domains.into_iter().flatten().map(GeneralSubtree::DnsName);
    let range = |range: IpNet| {
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(range.network(), range.prefix_len()))
    };
    let ranges = permitted.ranges.into_iter().flatten().map(range);
    NameConstraints { permitted_subtrees: domains.chain(ranges).collect(), excluded_subtrees: Vec::new() }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    place(path, text.as_bytes(), mode).map_err(|error| format!("{}: {error}", path.display()))
}

/// The authority's certificate as it is in `dir`, for showing it.
pub(crate) fn shown(dir: &Path) -> Result<(CertificateDer<'static>, Facts), String> {
    let certificate = pem::certificates(&dir.join(CERTIFICATE))?.swap_remove(0);
    let facts = Facts::of(&certificate).ok_or("it is damaged")?;
    Ok((certificate, facts))
}

/// Also what cannot be looked at now, as a link into a disk that is not there yet: it is never taken for gone.
fn is_there(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// Whether there is one, or something in its place.
pub(crate) fn exists(dir: &Path) -> std::io::Result<bool> {
    match fs::symlink_metadata(dir.join(CERTIFICATE)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
