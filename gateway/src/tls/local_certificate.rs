//! A certificate issued by the local authority ([`super::local_ca`]) for every name and address of this host. It lasts 397 days
//! (Apple's clients accept at most 825) and is renewed before it expires and when the host gets another name or address.

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
    ServedCertificate,
    files::{
        CERT_FILE, DAY, EXPIRY_MARKER, KEY_FILE, format_date, readable_key_warning, set_validity, to_pem,
        write_atomically,
    },
    host_names::{host_names, short_host},
    key_pair::load_key_pair,
    local_ca::{self, LocalCa},
    parsed::{ParsedCertificate, is_signed_by},
    user_provided::load_user_provided,
};

/// From now on; it begins a day early, for clients whose clock is behind.
const VALIDITY: Duration = Duration::from_hours(24 * 396);
const RENEW_BEFORE: Duration = Duration::from_hours(24 * 30);

/// Two calls at once would mix up their files.
static ISSUE_LOCK: Mutex<()> = Mutex::new(());

/// The gateway's own certificate in the data directory.
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

    /// The authority that signed it, if the chain contains it.
    fn authority(&self) -> Option<&CertificateDer<'static>> {
        let (leaf, issuers) = self.pair.cert.split_first()?;
        issuers.first().filter(|authority| is_signed_by(leaf, authority))
    }

    /// Whether it needs no renewal: it has every name, and lasts long enough or as long as a new one would.
    fn is_current(&self, now: SystemTime, authority: &LocalCa, required_names: &BTreeSet<String>) -> bool {
        let lasts =
            self.facts.not_after > now + RENEW_BEFORE || self.facts.not_after >= authority.facts.not_after;
        lasts
            && required_names.is_subset(&self.facts.subject_alt_names)
            && self.pair.cert.first().is_some_and(|leaf| is_signed_by(leaf, &authority.certificate))
    }

    fn into_served(self, warnings: Vec<String>) -> ServedCertificate {
        ServedCertificate { pair: self.pair, warnings }
    }
}

/// The certificate in `dir`; issues a new one unless it is current. A user's own is never replaced.
pub(super) fn load_or_issue(dir: &Path, now: SystemTime) -> Result<ServedCertificate, String> {
    let _guard = ISSUE_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    if let Some(served) = load_user_provided(dir, now)? {
        return Ok(served);
    }
    let (issued, names) = (IssuedCertificate::read(dir), host_names());
    let authority =
        LocalCa::load_or_create(dir, now, &names, issued.as_ref().and_then(IssuedCertificate::authority));
    match (issued, authority) {
        (Some(issued), authority)
            if issued.facts.is_self_signed && issued.facts.not_after > now + RENEW_BEFORE =>
        {
            let mut warnings =
                authority.map_or_else(|why| vec![why], |authority| authority.warnings(dir, now));
            warnings.push(self_signed_warning(dir, &issued));
            Ok(issued.into_served(warnings))
        }
        (issued, Ok(authority)) => reuse_or_issue(dir, now, issued, &authority, &names),
        (Some(issued), Err(why)) if issued.facts.not_after > now => {
            let until =
                format!("the current certificate is valid until {}", format_date(issued.facts.not_after));
            Ok(issued.into_served(vec![why, until]))
        }
        (_, Err(why)) => Err(why),
    }
}

/// For a certificate from before there was an authority: clients trust it and nothing else.
fn self_signed_warning(dir: &Path, issued: &IssuedCertificate) -> String {
    format!(
        "{} is a self-signed certificate of an earlier version; it is served until {}, then replaced by one that the local \
         authority signs: make every client trust {} before that (see `gateway ca`)",
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
    let mut warnings = authority.warnings(dir, now);
    warnings.extend(missing_names_warning(names, &required_names));
    match issued {
        Some(issued) if issued.is_current(now, authority, &required_names) => {
            warnings.extend(readable_key_warning(&dir.join(KEY_FILE)));
            Ok(issued.into_served(warnings))
        }
        issued => match (issue(dir, now, authority, &required_names), issued) {
            (Ok(()), _) => {
                let pair = load_key_pair(&dir.join(CERT_FILE), &dir.join(KEY_FILE));
                Ok(ServedCertificate { pair: pair.map_err(|error| error.to_string())?, warnings })
            }
            (Err(why), Some(issued)) if issued.facts.not_after > now => {
                warnings.push(format!("{}: the certificate cannot be renewed: {why}", dir.display()));
                Ok(issued.into_served(warnings))
            }
            (Err(why), _) => Err(format!("{}: {why}", dir.display())),
        },
    }
}

/// Names of the host that the authority may not sign for, except IPv6 addresses, which change by themselves.
fn missing_names_warning(names: &BTreeSet<String>, signable: &BTreeSet<String>) -> Option<String> {
    let missing = names.difference(signable).map(String::as_str);
    let missing: Vec<_> = missing.filter(|name| !matches!(name.parse(), Ok(IpAddr::V6(_)))).collect();
    (!missing.is_empty()).then(|| {
        format!(
            "the certificate does not name {}: the local authority was created before this host had that name and may not \
             sign for it; move {} and {} away and restart to create a new authority, which every client has to trust \
             (`gateway ca`), or configure your own certificate (GATEWAY_TLS_CERT_PATH)",
            missing.join(", "),
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
    // With spaces, so that no client checks it as a host name.
    params.distinguished_name.push(DnType::CommonName, format!("gateway on {}", short_host()));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages.push(KeyUsagePurpose::DigitalSignature);
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &authority.issuer)?;
    // The key first: a certificate must not be found without its key.
    write_atomically(&dir.join(KEY_FILE), key.serialize_pem().as_bytes(), 0o600)?;
    let chain = format!("{EXPIRY_MARKER}{}\n{}{}", end.as_secs(), leaf.pem(), to_pem(&authority.certificate));
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
