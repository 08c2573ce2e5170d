//! Why clients reject a certificate, or soon will. It is served all the same, for clients that do not check.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time, x509::X509Version};

const EXPIRY_WARNING: Duration = Duration::from_hours(24 * 14);
const DAY: u64 = 86_400;

pub(crate) fn warnings(chain: &[CertificateDer<'_>], now: SystemTime) -> Vec<String> {
    let mut warnings = Vec::new();
    for (at, der) in chain.iter().enumerate() {
        let Some(certificate) = parse(der) else { continue };
        let name = match at {
            0 => "the certificate".to_owned(),
            _ => format!("certificate {} of the chain", at + 1),
        };
        warnings.extend(validity_warning(&certificate, now).map(|message| format!("{name} {message}")));
        if at == 0 && matches!(certificate.subject_alternative_name(), Ok(None)) {
            warnings.push("the certificate has no subjectAltName: clients reject it".to_owned());
        }
    }
    warnings
}

/// Why the TLS library cannot read it.
pub(super) fn unusable_reason(der: Option<&CertificateDer<'_>>) -> String {
    let version = der.and_then(|der| parse(der)).map(|certificate| certificate.version());
    match version {
        Some(X509Version::V1) => {
            "it is a version 1 certificate, which TLS does not accept: have it reissued as version 3 with a subjectAltName"
                .to_owned()
        }
        _ => "the certificate is damaged".to_owned(),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn validity_warning(certificate: &X509Certificate<'_>, now: SystemTime) -> Option<String> {
    let validity = certificate.validity();
    let (begin, end) = (system_time(validity.not_before)?, system_time(validity.not_after)?);
    let date = httpdate::fmt_http_date;
    if let Ok(since) = now.duration_since(end) {
        return Some(format!(
            "expired on {} ({} ago): clients reject it; renew it, then send SIGHUP",
            date(end),
            days(since)
        ));
    }
    if now < begin {
        return Some(format!(
            "is not valid before {}: clients reject it; check this machine's clock",
            date(begin)
        ));
    }
    let left = end.duration_since(now).unwrap_or_default();
    (left < EXPIRY_WARNING)
        .then(|| format!("expires on {} (in {}): renew it, then send SIGHUP", date(end), days(left)))
}

fn days(time: Duration) -> String {
    match time.as_secs() / DAY {
        0 => format!("{} h", time.as_secs() / 3600),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// Times before 1970 become 1970.
fn system_time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).filter(|_| time.to_datetime().year() < 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], begin: u64, end: u64) -> CertificateDer<'static> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let day = |days: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(days * DAY);
        (params.not_before, params.not_after) = (day(begin), day(end));
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_past_or_near_expiry_is_reported_with_its_date() {
        let now = UNIX_EPOCH + Duration::from_secs(20_000 * DAY);
        for (begin, end, expected) in [
            (19_000, 20_100, None),
            (
                19_000,
                19_997,
                Some(
                    "the certificate expired on Tue, 01 Oct 2024 00:00:00 GMT (3 days ago): clients reject it",
                ),
            ),
            (
                19_000,
                20_001,
                Some("the certificate expires on Sat, 05 Oct 2024 00:00:00 GMT (in 1 day): renew it"),
            ),
            (20_002, 21_000, Some("the certificate is not valid before Sun, 06 Oct 2024 00:00:00 GMT")),
        ] {
            let found_warnings = warnings(&[certificate(&["ai2.local"], begin, end)], now);
            match expected {
                None => assert_eq!(found_warnings, [""; 0]),
                Some(prefix) => assert!(
                    found_warnings.len() == 1 && found_warnings[0].starts_with(prefix),
                    "{found_warnings:?}"
                ),
            }
        }
        let chain = [certificate(&["ai2.local"], 1, 30_000), certificate(&[], 1, 19_999)];
        let found_warnings = warnings(&chain, now);
        assert!(
            found_warnings.len() == 1
                && found_warnings[0].starts_with("certificate 2 of the chain expired on "),
            "{found_warnings:?}"
        );
        let found_warnings = warnings(&chain[1..], now);
        assert!(
            found_warnings.len() == 2 && found_warnings[1].contains("has no subjectAltName"),
            "{found_warnings:?}"
        );
    }
}
