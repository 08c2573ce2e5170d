use std::collections::BTreeSet;

use rcgen::{CertificateParams, KeyPair};
use service::doctor::Verdict::{self, Fail, Ok, Skip, Warn};

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn inspected(warnings: &[&str], not_after: SystemTime) -> CertificateInfo {
    let params = CertificateParams::new(vec!["ai2.local".to_owned()]).unwrap();
    let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    let names = BTreeSet::from(["ai2.local".to_owned(), "localhost".to_owned()]);
    CertificateInfo {
        leaf,
        not_after,
        names,
        warnings: warnings.iter().map(|warning| (*warning).to_owned()).collect(),
    }
}

fn own(
    not_after: SystemTime,
    unsignable: &[&str],
    ca_error: Option<&str>,
    ca_warnings: &[&str],
) -> ConfiguredCertificate {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let stored = StoredCertificate::Issued {
        certificate: inspected(&[], not_after),
        unsignable_names: texts(unsignable),
        ca_error: ca_error.map(str::to_owned),
        ca_warnings: texts(ca_warnings),
    };
    ConfiguredCertificate::SelfMade(stored, "/data".into())
}

fn given(warnings: &[&str], not_after: SystemTime) -> ConfiguredCertificate {
    ConfiguredCertificate::Pair(inspected(warnings, not_after), "/tls/ai2.pem".into())
}

#[test]
fn a_good_certificate_has_no_findings_and_each_fault_is_reported_once() {
    let now = SystemTime::now();
    let later = now + DAY * 300;
    let expired = "the certificate expired on Tue, 01 Oct 2024 00:00:00 GMT (3 days ago): clients reject it; renew it, then send SIGHUP";
    let soon =
        "the certificate expires on Sat, 05 Oct 2024 00:00:00 GMT (in 1 day): renew it, then send SIGHUP";
    let table: [(ConfiguredCertificate, Verdict, &str); 14] = [
        (ConfiguredCertificate::Off, Ok, ""),
        (own(later, &[], None, &[]), Ok, ""),
        (given(&[], later), Ok, ""),
        (ConfiguredCertificate::SelfMade(StoredCertificate::Missing, "/data".into()), Skip, ""),
        (
            ConfiguredCertificate::SelfMade(
                StoredCertificate::Unreadable(std::io::Error::other("no")),
                "/data".into(),
            ),
            Skip,
            "",
        ),
        (
            ConfiguredCertificate::SelfMade(
                StoredCertificate::Damaged("x: damaged".to_owned()),
                "/data".into(),
            ),
            Fail,
            "sudo rm /data/gateway-cert.pem",
        ),
        (own(now - DAY, &[], None, &[]), Fail, "kill TERM"),
        (own(now - DAY, &[], Some("the key is missing; put both back"), &[]), Fail, "put both back"),
        (own(later, &[], Some("the key is missing; put both back"), &[]), Warn, "put both back"),
        (own(now + DAY * 20, &[], None, &[]), Warn, "kill TERM"),
        (own(later, &["203.0.113.7"], None, &[]), Warn, "move gateway-ca.pem"),
        (
            own(later, &[], None, &["other users can read the private key /data/k; run: chmod 600 /data/k"]),
            Warn,
            "chmod 600",
        ),
        (given(&[expired], now - DAY), Fail, "renew it, then: sudo launchctl kill HUP"),
        (given(&[soon], now + DAY), Warn, "renew it"),
    ];
    for (nth, (configured, verdict, fix)) in table.into_iter().enumerate() {
        let served = configured.own().map(|own| own.leaf.clone());
        let found = findings(&configured, served.as_ref(), Some("ai2.local"), now);
        assert_eq!((found.len(), found[0].verdict), (1, verdict), "{nth} {found:?}");
        assert!(found[0].fix.as_deref().unwrap_or_default().contains(fix), "{nth} {found:?}");
    }
    assert!(findings(&ConfiguredCertificate::Unknown, None, None, now).is_empty());
}

#[test]
fn a_missing_public_name_and_another_served_certificate_are_reported() {
    let now = SystemTime::now();
    let configured = given(&[], now + DAY * 300);
    let found = findings(&configured, None, Some("ai.example.org"), now);
    assert!(found.len() == 1 && found[0].message.contains("ai.example.org (PUBLIC_BASE_URL)"), "{found:?}");
    let other = inspected(&[], now).leaf;
    let found = findings(&configured, Some(&other), None, now);
    let finding: Vec<_> = found.iter().map(|finding| (finding.name, finding.verdict)).collect();
    assert_eq!(finding, [("certificate", Ok), ("certificate_shown", Warn)]);
}

#[test]
fn trust_is_reported_only_if_macos_is_clear() {
    let exited = |code, text: &str| CommandOutput::Done { code: Some(code), text: text.to_owned() };
    for (output, verdict) in [
        (exited(0, "...certificate verification successful.\n"), Ok),
        (exited(1, "Cert Verify Result: CSSMERR_TP_NOT_TRUSTED\n"), Warn),
        (exited(1, "Cert Verify Result: CSSMERR_TP_INVALID_CERTIFICATE\n"), Skip),
        (CommandOutput::NotFound, Skip),
        (CommandOutput::Failed, Skip),
    ] {
        assert_eq!(trust(Path::new("/data/gateway-ca.pem"), &output).verdict, verdict, "{output:?}");
    }
}
