//! A pair in the data folder, under the names of ours, that the gateway did not make: somebody put it there. It is shown as it
//! is and never written over.

use std::{fs, path::Path, time::SystemTime};

use service::settings::describe_read_error;

use super::{
    files::is_private,
    lints, load_key_pair,
    local_certificate::{CERT_FILE, EXPIRY_MARKER, KEY_FILE, ServedCertificate},
};

const REMEDY: &str = "to use a pair of your own, keep it elsewhere and name it (GATEWAY_TLS_CERT_PATH, GATEWAY_TLS_KEY_PATH); to have \
                    one made, move both files away";

/// The pair that is there and is not ours, if one is; why it cannot be shown, if it cannot.
pub(super) fn load_user_provided(dir: &Path, now: SystemTime) -> Result<Option<ServedCertificate>, String> {
    let (certificate, key) = (dir.join(CERT_FILE), dir.join(KEY_FILE));
    let cannot_serve = |why: &str| {
        let path = certificate.display();
        format!(
            "{path} was not made by the gateway, which does not write over it, and cannot be shown: {why}; {REMEDY}"
        )
    };
    match fs::read(&certificate) {
        Ok(text) if text.trim_ascii().is_empty() || is_issued_by_gateway(&text) => return Ok(None),
        Ok(_) => {}
        // A link into a disk that is not there yet is not taken for gone.
        Err(_) if fs::symlink_metadata(&certificate).is_err() => return Ok(None),
        Err(error) => {
            return Err(format!(
                "{}: {}; {REMEDY}",
                certificate.display(),
                describe_read_error(&certificate, &error)
            ));
        }
    }
    let pair = load_key_pair(&certificate, &key).map_err(|fault| cannot_serve(&fault.to_string()))?;
    let mut remarks = vec![format!(
        "{} was not made by the gateway: it is shown as it is, and neither renewed nor written over; {REMEDY}",
        certificate.display()
    )];
    let own = lints::warnings(&pair.cert, now).into_iter();
    remarks.extend(own.map(|remark| format!("{}: {remark}", certificate.display())));
    if !is_private(&key) {
        remarks.push(format!("{}: others can read the key: chmod 600 it", key.display()));
    }
    Ok(Some(ServedCertificate { pair, warnings: remarks }))
}

fn is_issued_by_gateway(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.starts_with(EXPIRY_MARKER.as_bytes()))
}

/// What people should know of such a pair, for as long as it is there.
pub(crate) fn warning(dir: &Path, now: SystemTime) -> Option<String> {
    match load_user_provided(dir, now) {
        Ok(shown) => shown.map(|shown| shown.warnings.join("; ")),
        Err(why) => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::{super::local_certificate::load_or_issue, *};
    use crate::store::disk::tests::temporary;

    /// The pair that somebody put into the folder, as it was read back.
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
    fn a_pair_that_somebody_put_there_is_shown_and_never_written_over() {
        let dir = temporary("foreign");
        let given = put(&dir, "ai2.example.org");
        for (later, expired) in [(Duration::ZERO, false), (Duration::from_hours(24 * 3650), true)] {
            let now = SystemTime::now() + later;
            let shown = load_or_issue(&dir, now).unwrap();
            assert_eq!(both(&dir), given);
            let read = load_key_pair(&dir.join(CERT_FILE), &dir.join(KEY_FILE)).unwrap();
            assert_eq!(shown.pair.cert, read.cert);
            let told = shown.warnings.join("; ");
            assert!(told.contains("gateway-cert.pem was not made by the gateway"), "{told}");
            assert!(told.contains("GATEWAY_TLS_CERT_PATH, GATEWAY_TLS_KEY_PATH"), "{told}");
            assert_eq!(told.contains("expired on Wed, 01 Jan 2031"), expired, "{told}");
            assert_eq!(warning(&dir, now), Some(told), "the status says it, too");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_not_written_over_either() {
        let dir = temporary("unfit");
        let (certificate, key) = put(&dir, "a");
        for (own, its_key, words) in [
            (&b"\x30\x82\x01\x7f\x30\x82"[..], &key[..], "openssl x509 -inform DER"),
            (&certificate, b"-----BEGIN", "gateway-key.pem: "),
        ] {
            fs::write(dir.join(CERT_FILE), own).unwrap();
            fs::write(dir.join(KEY_FILE), its_key).unwrap();
            let why = load_or_issue(&dir, SystemTime::now()).unwrap_err();
            assert!(why.contains(words) && why.contains("does not write over it"), "{why}");
            assert_eq!(both(&dir), (own.to_vec(), its_key.to_vec()));
            assert_eq!(warning(&dir, SystemTime::now()), Some(why));
        }
        fs::remove_file(dir.join(CERT_FILE)).unwrap();
        std::os::unix::fs::symlink(dir.join("not mounted/cert"), dir.join(CERT_FILE)).unwrap();
        assert!(load_or_issue(&dir, SystemTime::now()).is_err());
        assert!(fs::symlink_metadata(dir.join(CERT_FILE)).unwrap().is_symlink());
    }

    #[test]
    fn a_pair_of_ours_is_no_foreign_one() {
        let dir = temporary("own");
        assert!(load_or_issue(&dir, SystemTime::now()).unwrap().warnings.is_empty());
        assert_eq!(warning(&dir, SystemTime::now()), None);
        fs::write(dir.join(CERT_FILE), "\n").unwrap();
        assert!(load_or_issue(&dir, SystemTime::now()).is_ok(), "what a full disk left is made anew");
    }
}
