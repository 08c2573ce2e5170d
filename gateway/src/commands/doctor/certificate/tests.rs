use std::collections::BTreeSet;

use rcgen::{CertificateParams, KeyPair};
use service::doctor::Verdict::{self, Fail, Ok, Skip, Warn};

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn inspected(remarks: &[&str], ends: SystemTime) -> CertificateInfo {
    let made = CertificateParams::new(vec!["ai2.local".to_owned()]).unwrap();
    let own = made.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    let names = BTreeSet::from(["ai2.local".to_owned(), "localhost".to_owned()]);
    CertificateInfo {
        leaf: own,
        not_after: ends,
        names,
        warnings: remarks.iter().map(|remark| (*remark).to_owned()).collect(),
    }
}

fn own(ends: SystemTime, unsigned: &[&str], fault: Option<&str>, remarks: &[&str]) -> ConfiguredCertificate {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let kept = StoredCertificate::Issued {
        certificate: inspected(&[], ends),
        unsignable_names: texts(unsigned),
        ca_error: fault.map(str::to_owned),
        ca_warnings: texts(remarks),
    };
    ConfiguredCertificate::SelfMade(kept, "/data".into())
}

fn given(remarks: &[&str], ends: SystemTime) -> ConfiguredCertificate {
    ConfiguredCertificate::Pair(inspected(remarks, ends), "/tls/ai2.pem".into())
}

#[test]
fn a_good_certificate_has_nothing_to_look_at_and_each_fault_is_told_once() {
    let now = SystemTime::now();
    let later = now + DAY * 300;
    let expired = "the certificate expired on Tue, 01 Oct 2024 00:00:00 GMT (3 days ago): clients reject it; renew it, then send SIGHUP";
    let soon = "the certificate expires on Sat, 05 Oct 2024 00:00:00 GMT (in 1 day): renew it, then send SIGHUP";
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
        let shown = configured.own().map(|own| own.leaf.clone());
        let found = findings(&configured, shown.as_ref(), Some("ai2.local"), now);
        assert_eq!((found.len(), found[0].verdict), (1, verdict), "{nth} {found:?}");
        assert!(found[0].fix.as_deref().unwrap_or_default().contains(fix), "{nth} {found:?}");
    }
    assert!(findings(&ConfiguredCertificate::Unknown, None, None, now).is_empty());
}

#[test]
fn a_name_that_clients_use_and_a_file_that_is_not_shown_are_told() {
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
fn trust_is_told_only_where_macos_tells_it() {
    let said = |code, text: &str| CommandOutput::Done { code: Some(code), text: text.to_owned() };
    for (ran, verdict) in [
        (said(0, "...certificate verification successful.\n"), Ok),
        (said(1, "Cert Verify Result: CSSMERR_TP_NOT_TRUSTED\n"), Warn),
        (said(1, "Cert Verify Result: CSSMERR_TP_INVALID_CERTIFICATE\n"), Skip),
        (CommandOutput::NotFound, Skip),
        (CommandOutput::Failed, Skip),
    ] {
        assert_eq!(trust(Path::new("/data/gateway-ca.pem"), &ran).verdict, verdict, "{ran:?}");
    }
}
