//! Certificates and keys of our own on the disk.

use std::{
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;

/// A day.
pub(super) const DAY: Duration = Duration::from_hours(24);

/// Written whole under another name first, so that no reader sees half a file.
pub(super) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut temporary = PathBuf::from(path);
    temporary.set_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // Whatever the process masks: what is for everybody must be readable.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Whether nobody but its owner can read it.
pub(super) fn is_private(path: &Path) -> bool {
    const OTHERS: u32 = 0o077;
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & OTHERS == 0)
}

/// A certificate as text.
pub(crate) fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let base64 = base64_simd::STANDARD.encode_to_string(certificate);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

/// A day as people write it: `06 Nov 1994`.
pub(crate) fn format_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)[5..16].to_owned()
}

/// From when until when, in times since 1970.
pub(super) fn set_validity(params: &mut rcgen::CertificateParams, begins: Duration, ends: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + begins, epoch + ends);
}
