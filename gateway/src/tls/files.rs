//! Certificates and keys in the data directory.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;

/// The certificate in use, followed by the authority's, so that a client which trusts this file trusts the authority.
pub(crate) const CERT_FILE: &str = "gateway-cert.pem";
pub(super) const KEY_FILE: &str = "gateway-key.pem";
/// Starts the line in a certificate file that says when it expires, in Unix seconds. PEM readers skip it; earlier
/// versions recognise our certificates by it.
pub(super) const EXPIRY_MARKER: &str = "# made by gateway; expires ";

pub(super) const DAY: Duration = Duration::from_hours(24);

/// Writes under another name first, so that no reader sees an incomplete file.
pub(super) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut temporary = PathBuf::from(path);
    temporary.set_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // Despite the umask: clients must be able to read the certificates.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// A warning unless only the owner can read a private key.
pub(super) fn readable_key_warning(path: &Path) -> Option<String> {
    const OTHERS: u32 = 0o077;
    let is_private = fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS == 0);
    let path = path.display();
    (!is_private).then(|| format!("other users can read the private key {path}; run: chmod 600 {path}"))
}

pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = base64_simd::STANDARD.encode_to_string(certificate);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// As in `06 Nov 1994`.
pub(crate) fn format_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)[5..16].to_owned()
}

/// Both times count from 1970.
pub(super) fn set_validity(params: &mut rcgen::CertificateParams, begins: Duration, ends: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + begins, epoch + ends);
}
