use super::*;
use crate::store::disk::tests::temporary;

/// The certificate in a directory, issued if needed.
fn issued(dir: &Path, now: SystemTime) -> Arc<CertifiedKey> {
    load_or_issue(dir, now).unwrap().pair
}

#[test]
fn an_unreadable_file_is_reported_with_its_setting() {
    let dir = temporary("pair");
    issued(&dir, SystemTime::now());
    let (certificate, key) = (dir.join("gateway-cert.pem"), dir.join("gateway-key.pem"));
    assert!(load_key_pair(&certificate, &key).is_ok());
    let none = dir.join("none");
    assert_eq!(load_key_pair(&none, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
    assert_eq!(load_key_pair(&key, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
    assert_eq!(load_key_pair(&certificate, &certificate).unwrap_err().setting(), "GATEWAY_TLS_KEY_PATH");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_while_it_is_served() {
    let dir = temporary("renewed");
    let first = issued(&dir, SystemTime::now());
    let authority = std::fs::read(dir.join("gateway-ca.pem")).unwrap();
    let resolver = Arc::new(CertResolver::new(first.clone()));
    let two_checks = async || {
        let worker = run_renewal(resolver.clone(), || Some(dir.clone()));
        let _ = tokio::time::timeout(RENEWAL_CHECK_INTERVAL * 2 + RENEWAL_CHECK_INTERVAL / 2, worker).await;
    };
    two_checks().await;
    assert_eq!(resolver.0.load().cert, first.cert, "still valid");
    let old = SystemTime::now() - Duration::from_hours(24 * 370);
    std::fs::remove_file(dir.join("gateway-cert.pem")).unwrap();
    issued(&dir, old);
    two_checks().await;
    let stored = load_key_pair(&dir.join("gateway-cert.pem"), &dir.join("gateway-key.pem")).unwrap();
    assert_ne!(resolver.0.load().cert, first.cert);
    assert_eq!(resolver.0.load().cert, stored.cert, "the stored certificate is served");
    let in_300_days = SystemTime::now() + Duration::from_hours(24 * 300);
    assert!(parsed::ParsedCertificate::parse(&stored.cert[0]).unwrap().not_after > in_300_days);
    assert_eq!(std::fs::read(dir.join("gateway-ca.pem")).unwrap(), authority, "the authority stays");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (one, other) = (temporary("one"), temporary("other"));
    issued(&one, SystemTime::now());
    issued(&other, SystemTime::now());
    let error = load_key_pair(&one.join("gateway-cert.pem"), &other.join("gateway-key.pem")).unwrap_err();
    assert_eq!(error.setting(), "GATEWAY_TLS_KEY_PATH");
    assert!(error.to_string().contains("it is the key of another certificate"), "{error}");
}

#[test]
fn a_chain_in_the_wrong_order_is_reported_and_the_right_key_of_several_is_used() {
    let dir = temporary("order");
    let made = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key);
        (certificate.unwrap().pem(), key.serialize_pem())
    };
    let ((own, own_key), (other, other_key)) = (made("ai2.local"), made("authority"));
    let read = |certificates: &[&str], keys: &[&str]| {
        let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, certificates.concat()).unwrap();
        std::fs::write(&key, keys.concat()).unwrap();
        load_key_pair(&certificate, &key)
    };
    let error = read(&[&other, &own], &[&own_key]).unwrap_err();
    assert_eq!(error.setting(), "GATEWAY_TLS_CERT_PATH");
    let message = error.to_string();
    assert!(message.contains("certificate.pem: its certificates are in the wrong order"), "{message}");
    assert!(message.contains("the key belongs to number 2 of 2"), "{message}");
    assert!(read(&[&own, &other], &[&own_key]).is_ok());
    assert!(read(&[&own], &[&other_key, &own_key]).is_ok(), "after another key");
    assert!(read(&[&own_key, &own], &[&own, &own_key]).is_ok(), "both in each file");
    assert!(read(&["\u{feff}", &own], &["\u{feff}", &own_key]).is_ok(), "as Windows' editors write them");
}
