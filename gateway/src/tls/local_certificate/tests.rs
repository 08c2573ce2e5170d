use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use super::{super::host_names::PermittedSubtrees, *};
use crate::store::disk::tests::temporary;

const YEAR: Duration = Duration::from_hours(24 * 365);
const AUTHORITY: &str = local_ca::CA_CERT_FILE;

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

fn issued(dir: &Path, now: SystemTime) -> ServedCertificate {
    load_or_issue(dir, now).unwrap()
}

fn leaf(served: &ServedCertificate) -> ParsedCertificate {
    ParsedCertificate::parse(&served.pair.cert[0]).unwrap()
}

/// A directory with a new certificate.
fn dir_with_certificate(purpose: &str) -> (PathBuf, ServedCertificate) {
    let dir = temporary(purpose);
    let served = issued(&dir, SystemTime::now());
    (dir, served)
}

/// A self-signed certificate as earlier versions created it.
fn self_signed(dir: &Path, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::new(host_names().into_iter().collect::<Vec<_>>()).unwrap();
    set_validity(&mut params, since.saturating_sub(DAY), since + VALIDITY);
    params.distinguished_name.push(DnType::CommonName, "gateway");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let pair = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    fs::write(dir.join(KEY_FILE), pair.serialize_pem()).unwrap();
    let end = (since + VALIDITY).as_secs();
    fs::write(dir.join(CERT_FILE), format!("{EXPIRY_MARKER}{end}\n{}", certificate.pem())).unwrap();
}

#[test]
fn the_authority_is_created_once_and_signs_every_certificate() {
    let (dir, first) = dir_with_certificate("authority");
    for (name, mode) in
        [("gateway-ca.pem", 0o644), ("gateway-ca-key.pem", 0o600), (CERT_FILE, 0o644), (KEY_FILE, 0o600)]
    {
        let actual = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(actual & 0o777, mode, "{name}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    let (certificate, facts) = local_ca::read_certificate(&dir).unwrap();
    let now = SystemTime::now();
    assert!(facts.is_ca && facts.is_self_signed && facts.not_after > now + YEAR * 10 - DAY);
    assert!(facts.subject.starts_with("gateway on ") && facts.subject.ends_with(" (local authority)"));
    assert_eq!(facts.permitted, PermittedSubtrees::private_plus(&host_names()));
    assert!(first.warnings.is_empty() && first.pair.cert[1] == certificate, "{:?}", first.warnings);
    let own = leaf(&first);
    assert!(!own.is_ca && !own.is_self_signed && own.subject_alt_names == host_names());
    assert_eq!(own.not_after.duration_since(own.not_before).unwrap(), DAY * 397);
    let again = issued(&dir, now + DAY);
    assert_eq!(again.pair.cert, first.pair.cert, "reused while it is valid");
    let renewed = issued(&dir, now + VALIDITY);
    assert_ne!(renewed.pair.cert[0], first.pair.cert[0]);
    assert!(is_signed_by(&renewed.pair.cert[0], &certificate) && renewed.pair.cert[1] == certificate);
}

#[test]
fn a_certificate_without_a_current_name_is_renewed() {
    let (dir, first) = dir_with_certificate("names");
    let authority = LocalCa::load_or_create(&dir, SystemTime::now(), &host_names(), None).unwrap();
    let mut fewer = host_names();
    fewer.remove("::1");
    issue(&dir, SystemTime::now(), &authority, &fewer).unwrap();
    let again = issued(&dir, SystemTime::now());
    assert_eq!(leaf(&again).subject_alt_names, host_names());
    assert_ne!(again.pair.cert[0], first.pair.cert[0]);
    let mut more = host_names();
    more.insert("old.local".to_owned());
    issue(&dir, SystemTime::now(), &authority, &more).unwrap();
    let kept = read(&dir, CERT_FILE);
    issued(&dir, SystemTime::now());
    assert_eq!(read(&dir, CERT_FILE), kept, "a superfluous name does no harm");
}

#[test]
fn a_name_that_the_authority_may_not_sign_for_is_left_out_with_a_warning() {
    let (dir, _) = dir_with_certificate("outside");
    let authority = LocalCa::load_or_create(&dir, SystemTime::now(), &host_names(), None).unwrap();
    let mut names = host_names();
    names.extend(["ai2.example.org".to_owned(), "203.0.113.9".to_owned(), "2001:db8::9".to_owned()]);
    let served = reuse_or_issue(&dir, SystemTime::now(), None, &authority, &names).unwrap();
    assert_eq!(leaf(&served).subject_alt_names, host_names());
    let warnings = served.warnings.concat();
    assert!(warnings.contains("does not name 203.0.113.9, ai2.example.org: "), "{warnings}");
    assert!(warnings.contains("move gateway-ca.pem and gateway-ca-key.pem away"), "{warnings}");
}

#[test]
fn a_certificate_of_an_earlier_version_is_served_until_a_month_before_it_expires() {
    let dir = temporary("earlier");
    let now = SystemTime::now();
    self_signed(&dir, now);
    let pinned = read(&dir, CERT_FILE);
    let served = issued(&dir, now + DAY);
    assert!(leaf(&served).is_self_signed && read(&dir, CERT_FILE) == pinned);
    let warnings = served.warnings.concat();
    assert!(warnings.contains("earlier version") && warnings.contains("`gateway ca`"), "{warnings}");
    let authority = read(&dir, AUTHORITY);
    let after = issued(&dir, now + VALIDITY - RENEW_BEFORE);
    assert!(!leaf(&after).is_self_signed && after.warnings.is_empty(), "{:?}", after.warnings);
    assert_eq!(read(&dir, AUTHORITY), authority, "the authority of the first start");
}

#[test]
fn a_lost_authority_is_never_replaced_automatically() {
    let now = SystemTime::now();
    let (one, _) = dir_with_certificate("another");
    for (case, damaged_file, expected) in [
        ("key lost", "gateway-ca-key.pem", "gateway-ca-key.pem is missing"),
        ("key damaged", "gateway-ca-key.pem", "gateway-ca-key.pem: "),
        ("another's key", "gateway-ca-key.pem", "it is not the key of gateway-ca.pem"),
        ("certificate damaged", AUTHORITY, "gateway-ca.pem: "),
        ("not a CA certificate", AUTHORITY, "gateway-ca.pem: it is damaged, or not a CA certificate"),
    ] {
        let (dir, first) = dir_with_certificate("lost");
        match case {
            "key lost" => fs::remove_file(dir.join(damaged_file)).unwrap(),
            "another's key" => fs::write(dir.join(damaged_file), read(&one, damaged_file)).unwrap(),
            "not a CA certificate" => {
                fs::write(dir.join(damaged_file), to_pem(&first.pair.cert[0])).unwrap();
            }
            _ => fs::write(dir.join(damaged_file), "-----BEGIN").unwrap(),
        }
        let before = (read(&dir, CERT_FILE), fs::read(dir.join(damaged_file)).ok());
        let served = issued(&dir, now + VALIDITY - DAY);
        assert_eq!(served.pair.cert, first.pair.cert, "{case}: served while it is valid");
        let warnings = served.warnings.concat();
        assert!(warnings.contains(expected) && warnings.contains("from a backup"), "{case}: {warnings}");
        assert!(warnings.contains("is valid until "), "{case}: {warnings}");
        let refused = load_or_issue(&dir, now + VALIDITY + DAY).unwrap_err();
        assert!(refused.contains(expected) && refused.contains("move both away"), "{case}: {refused}");
        assert_eq!((read(&dir, CERT_FILE), fs::read(dir.join(damaged_file)).ok()), before, "{case}");
    }
}

#[test]
fn a_recoverable_authority_is_restored_and_a_removed_one_replaced() {
    let (dir, first) = dir_with_certificate("back");
    let authority = read(&dir, AUTHORITY);
    fs::remove_file(dir.join(AUTHORITY)).unwrap();
    let again = issued(&dir, SystemTime::now());
    assert_eq!((read(&dir, AUTHORITY), &again.pair.cert), (authority.clone(), &first.pair.cert));
    for name in [AUTHORITY, local_ca::CA_KEY_FILE] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let renewed = issued(&dir, SystemTime::now());
    assert_ne!(read(&dir, AUTHORITY), authority);
    assert_ne!(renewed.pair.cert, first.pair.cert, "the new authority issues a certificate at once");
    for name in [AUTHORITY, CERT_FILE] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let key = read(&dir, local_ca::CA_KEY_FILE);
    let again = issued(&dir, SystemTime::now());
    assert_eq!(read(&dir, local_ca::CA_KEY_FILE), key, "the key of an interrupted start is used");
    assert!(
        is_signed_by(&again.pair.cert[0], &renewed.pair.cert[1]),
        "clients that trust the key continue to"
    );
}

#[test]
fn an_inaccessible_authority_is_not_taken_for_deleted() {
    for names in [&[AUTHORITY, local_ca::CA_KEY_FILE][..], &[local_ca::CA_KEY_FILE]] {
        let dir = temporary("links");
        for name in names {
            std::os::unix::fs::symlink(dir.join("not mounted").join(name), dir.join(name)).unwrap();
        }
        let refused = load_or_issue(&dir, SystemTime::now()).unwrap_err();
        assert!(refused.contains("the local certificate authority cannot sign"), "{refused}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len());
    }
}

#[test]
fn an_expiring_authority_is_a_warning_and_no_certificate_outlasts_it() {
    let (dir, _) = dir_with_certificate("end");
    let (_, facts) = local_ca::read_certificate(&dir).unwrap();
    let late = facts.not_after - DAY * 100;
    let served = issued(&dir, late);
    assert_eq!(leaf(&served).not_after, facts.not_after);
    let warnings = served.warnings.concat();
    assert!(
        warnings.contains(&format!(
            "the local certificate authority expires on {}",
            format_date(facts.not_after)
        )),
        "{warnings}"
    );
    let last = issued(&dir, facts.not_after - DAY);
    assert_eq!(last.pair.cert, served.pair.cert, "a new one would not last longer");
    assert!(
        load_or_issue(&dir, facts.not_after + DAY)
            .unwrap_err()
            .contains("the certificate authority expired on")
    );
}

#[test]
fn keys_that_others_can_read_are_warnings() {
    let (dir, _) = dir_with_certificate("modes");
    for name in [local_ca::CA_KEY_FILE, KEY_FILE] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    let warnings = issued(&dir, SystemTime::now()).warnings;
    assert_eq!(
        warnings.iter().filter(|warning| warning.contains("; run: chmod 600 ")).count(),
        2,
        "{warnings:?}"
    );
}
