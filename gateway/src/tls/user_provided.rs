//! A certificate in the data directory, under the gateway's file names, that the gateway did not create. It is served unchanged and
//! never overwritten.

use std::{fs, path::Path, time::SystemTime};

use service::settings::describe_read_error;

use super::{
    ServedCertificate,
    files::{CERT_FILE, EXPIRY_MARKER, KEY_FILE, readable_key_warning},
    key_pair::load_key_pair,
    lints,
};

const REMEDY: &str = "to use your own certificate, store it elsewhere and set GATEWAY_TLS_CERT_PATH and GATEWAY_TLS_KEY_PATH; \
                      to have the gateway create one, move both files away";

/// The user's certificate, if there is one; an error if it cannot be served.
pub(super) fn load_user_provided(dir: &Path, now: SystemTime) -> Result<Option<ServedCertificate>, String> {
    let (certificate, key) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
    let cannot_serve = |why: &str| {
        let path = certificate.display();
        format!(
            "{path} was not created by the gateway, which does not overwrite it, and cannot be served: {why}; {REMEDY}"
        )
    };
    match fs::read(&certificate) {
        Ok(text) if text.trim_ascii().is_empty() || is_issued_by_gateway(&text) => return Ok(None),
        Ok(_) => {}
        // Not so for a link to a disk that is not mounted yet.
        Err(_) if fs::symlink_metadata(&certificate).is_err() => return Ok(None),
        Err(error) => {
            return Err(format!(
                "{}: {}; {REMEDY}",
                certificate.display(),
                describe_read_error(&certificate, &error)
            ));
        }
    }
    let pair = load_key_pair(&certificate, &key).map_err(|error| cannot_serve(&error.to_string()))?;
    let mut warnings = vec![format!(
        "{} was not created by the gateway: it is served unchanged, neither renewed nor overwritten; {REMEDY}",
        certificate.display()
    )];
    let lints = lints::warnings(&pair.cert, now).into_iter();
    warnings.extend(lints.map(|warning| format!("{}: {warning}", certificate.display())));
    warnings.extend(readable_key_warning(&key));
    Ok(Some(ServedCertificate { pair, warnings }))
}

fn is_issued_by_gateway(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.starts_with(EXPIRY_MARKER.as_bytes()))
}

/// A warning about such a certificate.
pub(crate) fn warning(dir: &Path, now: SystemTime) -> Option<String> {
    match load_user_provided(dir, now) {
        Ok(served) => served.map(|served| served.warnings.join("; ")),
        Err(why) => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::{super::local_certificate::load_or_issue, *};
    use crate::store::disk::tests::temporary;

    /// Writes a user's certificate into the directory and reads it back.
    fn put(dir: &Path, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 1, 1);
        fs::write(dir.join(CERT_FILE), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(dir.join(KEY_FILE), key.serialize_pem()).unwrap();
        both(dir)
    }

    fn both(dir: &Path) -> (Vec<u8>, Vec<u8>) {
        (fs::read(dir.join(CERT_FILE)).unwrap(), fs::read(dir.join(KEY_FILE)).unwrap())
    }

    #[test]
    fn a_users_certificate_is_served_and_never_overwritten() {
        let dir = temporary("foreign");
        let given = put(&dir, "ai2.example.org");
        for (later, expired) in [(Duration::ZERO, false), (Duration::from_hours(24 * 3650), true)] {
            let now = SystemTime::now() + later;
            let served = load_or_issue(&dir, now).unwrap();
            assert_eq!(both(&dir), given);
            let read = load_key_pair(&dir.join(CERT_FILE), &dir.join(KEY_FILE)).unwrap();
            assert_eq!(served.pair.cert, read.cert);
            let warning_text = served.warnings.join("; ");
            assert!(
                warning_text.contains("gateway-cert.pem was not created by the gateway"),
                "{warning_text}"
            );
            assert!(
                warning_text.contains("GATEWAY_TLS_CERT_PATH and GATEWAY_TLS_KEY_PATH"),
                "{warning_text}"
            );
            assert_eq!(warning_text.contains("expired on Wed, 01 Jan 2031"), expired, "{warning_text}");
            assert_eq!(warning(&dir, now), Some(warning_text), "as in the status");
        }
    }

    #[test]
    fn one_that_cannot_be_served_is_not_overwritten_either() {
        let dir = temporary("unfit");
        let (certificate, key) = put(&dir, "a");
        for (own, its_key, expected) in [
            (&b"\x30\x82\x01\x7f\x30\x82"[..], &key[..], "openssl x509 -inform DER"),
            (&certificate, b"-----BEGIN", "gateway-key.pem: "),
        ] {
            fs::write(dir.join(CERT_FILE), own).unwrap();
            fs::write(dir.join(KEY_FILE), its_key).unwrap();
            let why = load_or_issue(&dir, SystemTime::now()).unwrap_err();
            assert!(why.contains(expected) && why.contains("does not overwrite it"), "{why}");
            assert_eq!(both(&dir), (own.to_vec(), its_key.to_vec()));
            assert_eq!(warning(&dir, SystemTime::now()), Some(why));
        }
        fs::remove_file(dir.join(CERT_FILE)).unwrap();
        std::os::unix::fs::symlink(dir.join("not mounted/cert"), dir.join(CERT_FILE)).unwrap();
        assert!(load_or_issue(&dir, SystemTime::now()).is_err());
        assert!(fs::symlink_metadata(dir.join(CERT_FILE)).unwrap().is_symlink());
    }

    #[test]
    fn a_certificate_of_ours_is_not_taken_for_a_users() {
        let dir = temporary("own");
        assert!(load_or_issue(&dir, SystemTime::now()).unwrap().warnings.is_empty());
        assert_eq!(warning(&dir, SystemTime::now()), None);
        fs::write(dir.join(CERT_FILE), "\n").unwrap();
        assert!(
            load_or_issue(&dir, SystemTime::now()).is_ok(),
            "an empty file, as a full disk leaves it, is replaced"
        );
    }
}
