use super::*;
use crate::store::disk::tests::temporary;

/// What is kept in a folder, made if needed.
fn made(dir: &Path, now: SystemTime) -> Arc<CertifiedKey> {
    self_made(dir, now).unwrap().pair
}

#[test]
fn a_pair_that_cannot_be_read_names_the_setting() {
    let dir = temporary("pair");
    made(&dir, SystemTime::now());
    let (certificate, key) = (dir.join("gateway-cert.pem"), dir.join("gateway-key.pem"));
    assert!(read_pair(&certificate, &key).is_ok());
    let none = dir.join("none");
    assert_eq!(read_pair(&none, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
    assert_eq!(read_pair(&key, &key).unwrap_err().setting(), "GATEWAY_TLS_CERT_PATH");
    assert_eq!(read_pair(&certificate, &certificate).unwrap_err().setting(), "GATEWAY_TLS_KEY_PATH");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_near_its_end_is_renewed_while_it_is_shown() {
    let dir = temporary("renewed");
    let first = made(&dir, SystemTime::now());
    let authority = std::fs::read(dir.join("gateway-ca.pem")).unwrap();
    let shown = Arc::new(Shown::new(first.clone()));
    let two_looks = async || {
        let worker = renew(shown.clone(), || Some(dir.clone()));
        let _ = tokio::time::timeout(LOOK * 2 + LOOK / 2, worker).await;
    };
    two_looks().await;
    assert_eq!(shown.0.now().cert, first.cert, "it lasts");
    let old = SystemTime::now() - Duration::from_hours(24 * 370);
    std::fs::remove_file(dir.join("gateway-cert.pem")).unwrap();
    made(&dir, old);
    two_looks().await;
    let kept = read_pair(&dir.join("gateway-cert.pem"), &dir.join("gateway-key.pem")).unwrap();
    assert_ne!(shown.0.now().cert, first.cert);
    assert_eq!(shown.0.now().cert, kept.cert, "what is shown is what is kept");
    let whole = SystemTime::now() + Duration::from_hours(24 * 300);
    assert!(facts::Facts::of(&kept.cert[0]).unwrap().ends > whole);
    assert_eq!(std::fs::read(dir.join("gateway-ca.pem")).unwrap(), authority, "trust is given once");
}

#[test]
fn a_pair_whose_halves_do_not_fit_is_refused() {
    let (one, other) = (temporary("one"), temporary("other"));
    made(&one, SystemTime::now());
    made(&other, SystemTime::now());
    let fault = read_pair(&one.join("gateway-cert.pem"), &other.join("gateway-key.pem")).unwrap_err();
    assert_eq!(fault.setting(), "GATEWAY_TLS_KEY_PATH");
}
