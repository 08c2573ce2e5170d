//! A certificate of our own making: it names this host in every way it is called, lasts 397 days (the most that Apple's
//! clients take without fuss is 825) and is remade before it ends.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::sign::CertifiedKey;

use super::read_pair;

const DAY: Duration = Duration::from_hours(24);
/// It begins a day early, for clients whose clock is behind, and lasts 397 days in all.
const LIFE: Duration = Duration::from_hours(24 * 396);
/// A certificate this close to its end is remade.
const RENEW: Duration = Duration::from_hours(24 * 30);
/// Its file, for clients to pin.
pub(crate) const CERTIFICATE: &str = "gateway-cert.pem";
/// The line in our own certificate file that says when it ends, in Unix seconds. PEM readers skip it.
const EXPIRES: &str = "# made by gateway; expires ";

/// The pair kept in `dir`, made anew if there is none, or none that still lasts.
pub(super) fn self_made(dir: &Path, now: SystemTime) -> Result<Arc<CertifiedKey>, String> {
    let (certificate, key) = (dir.join(CERTIFICATE), dir.join("gateway-key.pem"));
    let lasts = expiry(&certificate).is_some_and(|end| end > now + RENEW);
    if lasts && let Ok(pair) = read_pair(&certificate, &key) {
        return Ok(pair);
    }
    make(dir, &certificate, &key, now).map_err(|why| format!("{}: {why}", dir.display()))?;
    tracing::info!(certificate = %certificate.display(), "made a self-signed certificate; clients may pin it");
    read_pair(&certificate, &key).map_err(|fault| fault.to_string())
}

pub(super) fn expiry(certificate: &Path) -> Option<SystemTime> {
    let text = fs::read_to_string(certificate).ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix(EXPIRES))?.trim().parse().ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn make(
    dir: &Path,
    certificate: &Path,
    key: &Path,
    now: SystemTime,
) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    let since = now.duration_since(UNIX_EPOCH)?;
    let mut params = rcgen::CertificateParams::new(names())?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(DAY);
    params.not_after = epoch + since + LIFE;
    params.distinguished_name.push(rcgen::DnType::CommonName, "gateway");
    params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let pair = rcgen::KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    // The key first: a certificate without its key would be taken for a whole pair.
    place(key, pair.serialize_pem().as_bytes(), 0o600)?;
    let end = (since + LIFE).as_secs();
    place(certificate, format!("{EXPIRES}{end}\n{}", made.pem()).as_bytes(), 0o644)?;
    Ok(())
}

/// Written whole under another name first, so that no reader sees half a file.
fn place(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut temporary = PathBuf::from(path);
    temporary.set_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Every name and address that this host is called by.
fn names() -> Vec<String> {
    let host =
        hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default().to_lowercase();
    let short = host.split('.').next().unwrap_or_default().to_owned();
    let local = if short.is_empty() { String::new() } else { format!("{short}.local") };
    let mut names = BTreeSet::from(["localhost".to_owned(), host, short, local]);
    names.extend(["127.0.0.1".to_owned(), "::1".to_owned()]);
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    names.extend(interfaces.iter().map(|interface| interface.ip().to_string()));
    names.retain(|name| !name.is_empty() && name.is_ascii());
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::tests::temporary;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_self_made_certificate_is_kept_private_and_remade_when_it_ends() {
        let dir = temporary("tls");
        let now = SystemTime::now();
        self_made(&dir, now).unwrap();
        let certificate = fs::read(dir.join("gateway-cert.pem")).unwrap();
        let key = fs::metadata(dir.join("gateway-key.pem")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        self_made(&dir, now + DAY).unwrap();
        assert_eq!(fs::read(dir.join("gateway-cert.pem")).unwrap(), certificate, "kept while it lasts");
        self_made(&dir, now + LIFE).unwrap();
        assert_ne!(fs::read(dir.join("gateway-cert.pem")).unwrap(), certificate, "remade at its end");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn the_names_hold_localhost_and_loopback() {
        let names = names();
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
    }
}
