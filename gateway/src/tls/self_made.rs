//! A certificate of our own making: it names this host in every way it is called, is signed by the local authority
//! ([`super::authority`]), lasts 397 days (the most that Apple's clients take without fuss is 825), and is signed anew before
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
    authority::{self, Authority},
    facts::{Facts, is_signed_by},
    files::{DAY, date, is_private, pem_of, place, set_life},
    foreign::foreign,
    names::{names, short_host},
    read_pair,
};

/// It begins a day early, for clients whose clock is behind, and lasts 397 days in all.
const LIFE: Duration = Duration::from_hours(24 * 396);
/// A certificate this close to its end is signed anew.
const RENEW: Duration = Duration::from_hours(24 * 30);
/// Its file: the certificate, and behind it the authority's, so that what was taught to trust this file trusts the
/// authority.
pub(crate) const CERTIFICATE: &str = "gateway-cert.pem";
/// Its key.
pub(super) const KEY: &str = "gateway-key.pem";
/// The line in our own certificate file that says when it ends, in Unix seconds. PEM readers skip it; earlier versions know
/// a certificate of ours by it.
pub(super) const EXPIRES: &str = "# made by gateway; expires ";

/// Two at once would mix up their files.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A pair to show.
#[derive(Debug)]
pub(super) struct SelfMade {
    /// The pair.
    pub(super) pair: Arc<CertifiedKey>,
    /// What people should know, if anything.
    pub(super) remarks: Vec<String>,
}

/// A pair of ours on the disk.
struct Kept {
    pair: Arc<CertifiedKey>,
    facts: Facts,
}

impl Kept {
    fn read(dir: &Path) -> Option<Self> {
        let certificate = dir.join(CERTIFICATE);
        let pair = read_pair(&certificate, &dir.join(KEY)).ok()?;
        let facts = Facts::of(pair.cert.first()?)?;
        Some(Self { pair, facts })
    }

    /// The authority that signed it.
    fn authority(&self) -> Option<&CertificateDer<'static>> {
        let (own, others) = self.pair.cert.split_first()?;
        others.first().filter(|authority| is_signed_by(own, authority))
    }

    /// Whether it need not be signed anew: it lasts, or as long as a new one would, and has every name.
    fn does(&self, now: SystemTime, authority: &Authority, wanted: &BTreeSet<String>) -> bool {
        let lasts = self.facts.ends > now + RENEW || self.facts.ends >= authority.facts.ends;
        lasts
            && wanted.is_subset(&self.facts.names)
            && self.pair.cert.first().is_some_and(|own| is_signed_by(own, &authority.certificate))
    }

    fn shown(self, remarks: Vec<String>) -> SelfMade {
        SelfMade { pair: self.pair, remarks }
    }
}

/// The pair kept in `dir`, signed anew if there is none, or none that still does. One that is not ours is left as it is.
pub(super) fn self_made(dir: &Path, now: SystemTime) -> Result<SelfMade, String> {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(dir).map_err(|why| format!("{}: {why}", dir.display()))?;
    if let Some(shown) = foreign(dir, now)? {
        return Ok(shown);
    }
    let (kept, names) = (Kept::read(dir), names());
    let authority = Authority::open(dir, now, &names, kept.as_ref().and_then(Kept::authority));
    match (kept, authority) {
        (Some(kept), authority) if kept.facts.is_self_signed && kept.facts.ends > now + RENEW => {
            let mut remarks = authority.map_or_else(|why| vec![why], |own| own.remarks(dir, now));
            remarks.push(goes(dir, &kept));
            Ok(kept.shown(remarks))
        }
        (kept, Ok(authority)) => with_authority(dir, now, kept, &authority, &names),
        (Some(kept), Err(why)) if kept.facts.ends > now => {
            let until = format!("the certificate that is shown lasts until {}", date(kept.facts.ends));
            Ok(kept.shown(vec![why, until]))
        }
        (_, Err(why)) => Err(why),
    }
}

/// Of a certificate from before there was an authority: programs trust it and nothing else.
fn goes(dir: &Path, kept: &Kept) -> String {
    format!(
        "{} is a certificate that signed itself, of an earlier version; it is shown until {}, and from then on one that the \
         local authority signs: have every program trust {} by then (`gateway ca` says how)",
        dir.join(CERTIFICATE).display(),
        date(kept.facts.ends - RENEW),
        dir.join(authority::CERTIFICATE).display()
    )
}

fn with_authority(
    dir: &Path,
    now: SystemTime,
    kept: Option<Kept>,
    authority: &Authority,
    names: &BTreeSet<String>,
) -> Result<SelfMade, String> {
    let allowed = |name: &&String| authority.facts.permitted.allows(name);
    let wanted: BTreeSet<_> = names.iter().filter(allowed).cloned().collect();
    let mut remarks = authority.remarks(dir, now);
    remarks.extend(left_out(names, &wanted));
    match kept {
        Some(kept) if kept.does(now, authority, &wanted) => {
            let key = dir.join(KEY);
            if !is_private(&key) {
                remarks.push(format!("{}: others can read the key: chmod 600 it", key.display()));
            }
            Ok(kept.shown(remarks))
        }
        kept => match (sign(dir, now, authority, &wanted), kept) {
            (Ok(()), _) => {
                let pair = read_pair(&dir.join(CERTIFICATE), &dir.join(KEY));
                Ok(SelfMade { pair: pair.map_err(|fault| fault.to_string())?, remarks })
            }
            (Err(why), Some(kept)) if kept.facts.ends > now => {
                remarks.push(format!("{}: the certificate cannot be signed anew: {why}", dir.display()));
                Ok(kept.shown(remarks))
            }
            (Err(why), _) => Err(format!("{}: {why}", dir.display())),
        },
    }
}

/// What of the host's names the authority may not sign for. Addresses of IPv6 come and go by themselves.
fn left_out(names: &BTreeSet<String>, wanted: &BTreeSet<String>) -> Option<String> {
    let matters = |name: &&&str| !matches!(name.parse(), Ok(IpAddr::V6(_)));
    let left: Vec<_> = names.difference(wanted).map(String::as_str).collect();
    let left: Vec<_> = left.iter().filter(matters).copied().collect();
    (!left.is_empty()).then(|| {
        format!(
            "the certificate does not name {}: the local authority was made before this host was called that, and may not \
             sign for it; move {} and {} away and restart for a new one, which every program must be taught to trust \
             (`gateway ca`), or configure a pair (GATEWAY_TLS_CERT_PATH)",
            left.join(", "),
            authority::CERTIFICATE,
            authority::KEY,
        )
    })
}

fn sign(
    dir: &Path,
    now: SystemTime,
    authority: &Authority,
    names: &BTreeSet<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let since = now.duration_since(UNIX_EPOCH)?;
    let end = (since + LIFE).min(authority.facts.ends.duration_since(UNIX_EPOCH)?);
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    set_life(&mut params, since.saturating_sub(DAY), end);
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
    place(&dir.join(KEY), pair.serialize_pem().as_bytes(), 0o600)?;
    let chain = format!("{EXPIRES}{}\n{}{}", end.as_secs(), made.pem(), pem_of(&authority.certificate));
    place(&dir.join(CERTIFICATE), chain.as_bytes(), 0o644)?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    tracing::info!(
        names = names.join(", "),
        ends = date(UNIX_EPOCH + end),
        "the local authority signed a certificate"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
