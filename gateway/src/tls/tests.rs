use super::*;
use crate::store::disk::tests::temporary;

/// What is kept in a folder, made if needed.
fn made(dir: &Path, now: SystemTime) -> Arc<CertifiedKey> {
    load_or_issue(dir, now).unwrap().pair
}

#[test]
fn a_pair_that_cannot_be_read_names_the_setting() {
    let dir = temporary("pair");
    made(&dir, SystemTime::now());
    let (certificate, key) = (dir.join("gateway-cert.pem"), dir.join("gateway-key.pem"));
    assert!(load_key_pair(&certificate, &key).is_ok());
    let none = dir.join("none");
    assert_eq!(load_key_pair(&none, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
    assert_eq!(load_key_pair(&key, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
    assert_eq!(load_key_pair(&certificate, &certificate).unwrap_err().setting(), "GATEWAY_TLS_KEY_PATH");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_near_its_end_is_renewed_while_it_is_shown() {
    let dir = temporary("renewed");
    let first = made(&dir, SystemTime::now());
    let authority = std::fs::read(dir.join("gateway-ca.pem")).unwrap();
    let shown = Arc::new(CertResolver::new(first.clone()));
    let two_looks = async || {
        let worker = run_renewal(shown.clone(), || Some(dir.clone()));
        let _ = tokio::time::timeout(RENEWAL_CHECK_INTERVAL * 2 + RENEWAL_CHECK_INTERVAL / 2, worker).await;
    };
    two_looks().await;
    assert_eq!(shown.0.load().cert, first.cert, "it lasts");
    let old = SystemTime::now() - Duration::from_hours(24 * 370);
    std::fs::remove_file(dir.join("gateway-cert.pem")).unwrap();
    made(&dir, old);
    two_looks().await;
    let kept = load_key_pair(&dir.join("gateway-cert.pem"), &dir.join("gateway-key.pem")).unwrap();
    assert_ne!(shown.0.load().cert, first.cert);
    assert_eq!(shown.0.load().cert, kept.cert, "what is shown is what is kept");
    let whole = SystemTime::now() + Duration::from_hours(24 * 300);
    assert!(parsed::ParsedCertificate::parse(&kept.cert[0]).unwrap().not_after > whole);
    assert_eq!(std::fs::read(dir.join("gateway-ca.pem")).unwrap(), authority, "trust is given once");
}

#[test]
fn a_pair_whose_halves_do_not_fit_is_refused() {
    let (one, other) = (temporary("one"), temporary("other"));
    made(&one, SystemTime::now());
    made(&other, SystemTime::now());
    let fault = load_key_pair(&one.join("gateway-cert.pem"), &other.join("gateway-key.pem")).unwrap_err();
    assert_eq!(fault.setting(), "GATEWAY_TLS_KEY_PATH");
    assert!(fault.to_string().contains("it is the key of another certificate"), "{fault}");
}

#[test]
fn a_chain_in_the_wrong_order_is_told_and_the_right_one_of_several_keys_is_taken() {
    let folder = temporary("order");
    let made = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key);
        (certificate.unwrap().pem(), key.serialize_pem())
    };
    let ((own, own_key), (other, other_key)) = (made("ai2.local"), made("authority"));
    let read = |certificates: &[&str], keys: &[&str]| {
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, certificates.concat()).unwrap();
        std::fs::write(&key, keys.concat()).unwrap();
        load_key_pair(&certificate, &key)
    };
    let fault = read(&[&other, &own], &[&own_key]).unwrap_err();
    assert_eq!(fault.setting(), "GATEWAY_TLS_CERT_PATH");
    let told = fault.to_string();
    assert!(told.contains("certificate.pem: its certificates are in the wrong order"), "{told}");
    assert!(told.contains("the key belongs to number 2 of 2"), "{told}");
    assert!(read(&[&own, &other], &[&own_key]).is_ok());
    assert!(read(&[&own], &[&other_key, &own_key]).is_ok(), "a key of something else stands before it");
    assert!(read(&[&own_key, &own], &[&own, &own_key]).is_ok(), "all of it in each file");
    assert!(read(&["\u{feff}", &own], &["\u{feff}", &own_key]).is_ok(), "as Windows' editors write them");
}
