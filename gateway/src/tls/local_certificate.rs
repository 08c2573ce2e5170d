//! A certificate of our own making: it names this host in every way it is called, is signed by the local authority
//! ([`super::local_ca`]), lasts 397 days (the most that Apple's clients take without fuss is 825), and is signed anew before
//! it ends and when the host has another name or address.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};

use super::{
    files::{DAY, format_date, is_private, set_validity, to_pem, write_atomically},
    host_names::{host_names, short_host},
    load_key_pair,
    local_ca::{self, LocalCa},
    parsed::{ParsedCertificate, is_signed_by},
    user_provided::load_user_provided,
};

/// It begins a day early, for clients whose clock is behind, and lasts 397 days in all.
const VALIDITY: Duration = Duration::from_hours(24 * 396);
/// A certificate this close to its end is signed anew.
const RENEW_BEFORE: Duration = Duration::from_hours(24 * 30);
/// Its file: the certificate, and behind it the authority's, so that what was taught to trust this file trusts the
/// authority.
pub(crate) const CERT_FILE: &str = "gateway-cert.pem";
/// Its key.
pub(super) const KEY_FILE: &str = "gateway-key.pem";
/// The line in our own certificate file that says when it ends, in Unix seconds. PEM readers skip it; earlier versions know
/// a certificate of ours by it.
pub(super) const EXPIRY_MARKER: &str = "# made by gateway; expires ";

/// Two at once would mix up their files.
static ISSUE_LOCK: Mutex<()> = Mutex::new(());

/// A pair to show.
#[derive(Debug)]
pub(super) struct ServedCertificate {
    /// The pair.
    pub(super) pair: Arc<CertifiedKey>,
    /// What people should know, if anything.
    pub(super) warnings: Vec<String>,
}

/// A pair of ours on the disk.
struct IssuedCertificate {
    pair: Arc<CertifiedKey>,
    facts: ParsedCertificate,
}

impl IssuedCertificate {
    fn read(dir: &Path) -> Option<Self> {
        let certificate = dir.join(CERT_FILE);
        let pair = load_key_pair(&certificate, &dir.join(KEY_FILE)).ok()?;
        let facts = ParsedCertificate::parse(pair.cert.first()?)?;
        Some(Self { pair, facts })
    }

    /// The authority that signed it.
    fn authority(&self) -> Option<&CertificateDer<'static>> {
        let (own, others) = self.pair.cert.split_first()?;
        others.first().filter(|authority| is_signed_by(own, authority))
    }

    /// Whether it need not be signed anew: it lasts, or as long as a new one would, and has every name.
    fn is_current(&self, now: SystemTime, authority: &LocalCa, required_names: &BTreeSet<String>) -> bool {
        let lasts =
            self.facts.not_after > now + RENEW_BEFORE || self.facts.not_after >= authority.facts.not_after;
        lasts
            && required_names.is_subset(&self.facts.subject_alt_names)
            && self.pair.cert.first().is_some_and(|own| is_signed_by(own, &authority.certificate))
    }

    fn into_served(self, remarks: Vec<String>) -> ServedCertificate {
        ServedCertificate { pair: self.pair, warnings: remarks }
    }
}

/// The pair kept in `dir`, signed anew if there is none, or none that still does. One that is not ours is left as it is.
pub(super) fn load_or_issue(dir: &Path, now: SystemTime) -> Result<ServedCertificate, String> {
    let _one = ISSUE_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    if let Some(shown) = load_user_provided(dir, now)? {
        return Ok(shown);
    }
    let (issued, names) = (IssuedCertificate::read(dir), host_names());
    let authority =
        LocalCa::load_or_create(dir, now, &names, issued.as_ref().and_then(IssuedCertificate::authority));
    match (issued, authority) {
        (Some(kept), authority) if kept.facts.is_self_signed && kept.facts.not_after > now + RENEW_BEFORE => {
            let mut remarks = authority.map_or_else(|why| vec![why], |own| own.warnings(dir, now));
            remarks.push(self_signed_warning(dir, &kept));
            Ok(kept.into_served(remarks))
        }
        (kept, Ok(authority)) => reuse_or_issue(dir, now, kept, &authority, &names),
        (Some(kept), Err(why)) if kept.facts.not_after > now => {
            let until =
                format!("the certificate that is shown lasts until {}", format_date(kept.facts.not_after));
            Ok(kept.into_served(vec![why, until]))
        }
        (_, Err(why)) => Err(why),
    }
}

/// Of a certificate from before there was an authority: programs trust it and nothing else.
fn self_signed_warning(dir: &Path, issued: &IssuedCertificate) -> String {
    format!(
        "{} is a certificate that signed itself, of an earlier version; it is shown until {}, and from then on one that the \
         local authority signs: have every program trust {} by then (`gateway ca` says how)",
        dir.join(CERT_FILE).display(),
        format_date(issued.facts.not_after - RENEW_BEFORE),
        dir.join(local_ca::CA_CERT_FILE).display()
    )
}

fn reuse_or_issue(
    dir: &Path,
    now: SystemTime,
    issued: Option<IssuedCertificate>,
    authority: &LocalCa,
    names: &BTreeSet<String>,
) -> Result<ServedCertificate, String> {
    let allowed = |name: &&String| authority.facts.permitted.allows(name);
    let required_names: BTreeSet<_> = names.iter().filter(allowed).cloned().collect();
    let mut remarks = authority.warnings(dir, now);
    remarks.extend(missing_names_warning(names, &required_names));
    match issued {
        Some(kept) if kept.is_current(now, authority, &required_names) => {
            let key = dir.join(KEY_FILE);
            if !is_private(&key) {
                remarks.push(format!("{}: others can read the key: chmod 600 it", key.display()));
            }
            Ok(kept.into_served(remarks))
        }
        kept => match (issue(dir, now, authority, &required_names), kept) {
            (Ok(()), _) => {
                let pair = load_key_pair(&dir.join(CERT_FILE), &dir.join(KEY_FILE));
                Ok(ServedCertificate { pair: pair.map_err(|fault| fault.to_string())?, warnings: remarks })
            }
            (Err(why), Some(kept)) if kept.facts.not_after > now => {
                remarks.push(format!("{}: the certificate cannot be signed anew: {why}", dir.display()));
                Ok(kept.into_served(remarks))
            }
            (Err(why), _) => Err(format!("{}: {why}", dir.display())),
        },
    }
}

/// What of the host's names the authority may not sign for. Addresses of IPv6 come and go by themselves.
fn missing_names_warning(names: &BTreeSet<String>, signable: &BTreeSet<String>) -> Option<String> {
    let matters = |name: &&&str| !matches!(name.parse(), Ok(IpAddr::V6(_)));
    let left: Vec<_> = names.difference(signable).map(String::as_str).collect();
    let left: Vec<_> = left.iter().filter(matters).copied().collect();
    (!left.is_empty()).then(|| {
        format!(
            "the certificate does not name {}: the local authority was made before this host was called that, and may not \
             sign for it; move {} and {} away and restart for a new one, which every program must be taught to trust \
             (`gateway ca`), or configure a pair (GATEWAY_TLS_CERT_PATH)",
            left.join(", "),
            local_ca::CA_CERT_FILE,
            local_ca::CA_KEY_FILE,
        )
    })
}

fn issue(
    dir: &Path,
    now: SystemTime,
    authority: &LocalCa,
    names: &BTreeSet<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let since = now.duration_since(UNIX_EPOCH)?;
    let end = (since + VALIDITY).min(authority.facts.not_after.duration_since(UNIX_EPOCH)?);
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    set_validity(&mut params, since.saturating_sub(DAY), end);
    params.distinguished_name = rcgen::DistinguishedName::new();
    // With spaces, so that no client takes it for one more name to check.
    params.distinguished_name.push(DnType::CommonName, format!("gateway on {}", short_host()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate()?;
    let made = params.signed_by(&pair, &authority.issuer)?;
    // The key first: a certificate without its key would be taken for a whole pair.
    write_atomically(&dir.join(KEY_FILE), pair.serialize_pem().as_bytes(), 0o600)?;
    let chain = format!("{EXPIRY_MARKER}{}\n{}{}", end.as_secs(), made.pem(), to_pem(&authority.certificate));
    write_atomically(&dir.join(CERT_FILE), chain.as_bytes(), 0o644)?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    tracing::info!(
        names = names.join(", "),
        ends = format_date(UNIX_EPOCH + end),
        "the local authority signed a certificate"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
