use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use super::{super::host_names::PermittedSubtrees, *};
use crate::store::disk::tests::temporary;

const YEAR: Duration = Duration::from_hours(24 * 365);
const AUTHORITY: &str = local_ca::CA_CERT_FILE;

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

fn made(dir: &Path, now: SystemTime) -> ServedCertificate {
    load_or_issue(dir, now).unwrap()
}

fn leaf(made: &ServedCertificate) -> ParsedCertificate {
    ParsedCertificate::parse(&made.pair.cert[0]).unwrap()
}

/// A folder in which a pair was made just now.
fn folder(purpose: &str) -> (PathBuf, ServedCertificate) {
    let dir = temporary(purpose);
    let made = made(&dir, SystemTime::now());
    (dir, made)
}

/// The pair that earlier versions made: it signed itself.
fn earlier(dir: &Path, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::new(host_names().into_iter().collect::<Vec<_>>()).unwrap();
    set_validity(&mut params, since.saturating_sub(DAY), since + VALIDITY);
    params.distinguished_name.push(DnType::CommonName, "gateway");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let pair = KeyPair::generate().unwrap();
    let made = params.self_signed(&pair).unwrap();
    fs::write(dir.join(KEY_FILE), pair.serialize_pem()).unwrap();
    let end = (since + VALIDITY).as_secs();
    fs::write(dir.join(CERT_FILE), format!("{EXPIRY_MARKER}{end}\n{}", made.pem())).unwrap();
}

#[test]
fn the_authority_is_made_once_and_signs_every_certificate_that_is_shown() {
    let (dir, first) = folder("authority");
    for (name, mode) in
        [("gateway-ca.pem", 0o644), ("gateway-ca-key.pem", 0o600), (CERT_FILE, 0o644), (KEY_FILE, 0o600)]
    {
        let found = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
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
    let again = made(&dir, now + DAY);
    assert_eq!(again.pair.cert, first.pair.cert, "kept while it lasts");
    let renewed = made(&dir, now + VALIDITY);
    assert_ne!(renewed.pair.cert[0], first.pair.cert[0]);
    assert!(is_signed_by(&renewed.pair.cert[0], &certificate) && renewed.pair.cert[1] == certificate);
}

#[test]
fn a_certificate_without_a_name_that_the_host_has_now_is_signed_anew() {
    let (dir, first) = folder("names");
    let authority = LocalCa::load_or_create(&dir, SystemTime::now(), &host_names(), None).unwrap();
    let mut fewer = host_names();
    fewer.remove("::1");
    issue(&dir, SystemTime::now(), &authority, &fewer).unwrap();
    let again = made(&dir, SystemTime::now());
    assert_eq!(leaf(&again).subject_alt_names, host_names());
    assert_ne!(again.pair.cert[0], first.pair.cert[0]);
    let mut more = host_names();
    more.insert("old.local".to_owned());
    issue(&dir, SystemTime::now(), &authority, &more).unwrap();
    let kept = read(&dir, CERT_FILE);
    made(&dir, SystemTime::now());
    assert_eq!(read(&dir, CERT_FILE), kept, "a name that is gone does no harm");
}

#[test]
fn a_name_that_the_authority_may_not_sign_for_is_left_out_and_told() {
    let (dir, _) = folder("outside");
    let authority = LocalCa::load_or_create(&dir, SystemTime::now(), &host_names(), None).unwrap();
    let mut called = host_names();
    called.extend(["ai2.example.org".to_owned(), "203.0.113.9".to_owned(), "2001:db8::9".to_owned()]);
    let shown = reuse_or_issue(&dir, SystemTime::now(), None, &authority, &called).unwrap();
    assert_eq!(leaf(&shown).subject_alt_names, host_names());
    let told = shown.warnings.concat();
    assert!(told.contains("does not name 203.0.113.9, ai2.example.org: "), "{told}");
    assert!(told.contains("move gateway-ca.pem and gateway-ca-key.pem away"), "{told}");
}

#[test]
fn a_pair_of_an_earlier_version_is_shown_until_a_month_before_its_end() {
    let dir = temporary("earlier");
    let now = SystemTime::now();
    earlier(&dir, now);
    let pinned = read(&dir, CERT_FILE);
    let shown = made(&dir, now + DAY);
    assert!(leaf(&shown).is_self_signed && read(&dir, CERT_FILE) == pinned);
    let told = shown.warnings.concat();
    assert!(told.contains("earlier version") && told.contains("`gateway ca`"), "{told}");
    let authority = read(&dir, AUTHORITY);
    let after = made(&dir, now + VALIDITY - RENEW_BEFORE);
    assert!(!leaf(&after).is_self_signed && after.warnings.is_empty(), "{:?}", after.warnings);
    assert_eq!(read(&dir, AUTHORITY), authority, "the one that people could trust since the update");
}

#[test]
fn a_lost_authority_is_never_replaced_unasked() {
    let now = SystemTime::now();
    let (one, _) = folder("another");
    for (case, spoil, words) in [
        ("key lost", "gateway-ca-key.pem", "gateway-ca-key.pem is missing"),
        ("key damaged", "gateway-ca-key.pem", "gateway-ca-key.pem: "),
        ("another's key", "gateway-ca-key.pem", "it is not the key of gateway-ca.pem"),
        ("certificate damaged", AUTHORITY, "gateway-ca.pem: "),
        ("not a CA certificate", AUTHORITY, "gateway-ca.pem: it is damaged, or not a CA certificate"),
    ] {
        let (dir, first) = folder("lost");
        match case {
            "key lost" => fs::remove_file(dir.join(spoil)).unwrap(),
            "another's key" => fs::write(dir.join(spoil), read(&one, spoil)).unwrap(),
            "not a CA certificate" => {
                fs::write(dir.join(spoil), to_pem(&first.pair.cert[0])).unwrap();
            }
            _ => fs::write(dir.join(spoil), "-----BEGIN").unwrap(),
        }
        let before = (read(&dir, CERT_FILE), fs::read(dir.join(spoil)).ok());
        let shown = made(&dir, now + VALIDITY - DAY);
        assert_eq!(shown.pair.cert, first.pair.cert, "{case}: shown while it lasts");
        let told = shown.warnings.concat();
        assert!(told.contains(words) && told.contains("from a backup"), "{case}: {told}");
        assert!(told.contains("is valid until "), "{case}: {told}");
        let refused = load_or_issue(&dir, now + VALIDITY + DAY).unwrap_err();
        assert!(refused.contains(words) && refused.contains("move both away"), "{case}: {refused}");
        assert_eq!((read(&dir, CERT_FILE), fs::read(dir.join(spoil)).ok()), before, "{case}");
    }
}

#[test]
fn what_can_be_put_back_is_and_what_was_moved_away_is_made_anew() {
    let (dir, first) = folder("back");
    let authority = read(&dir, AUTHORITY);
    fs::remove_file(dir.join(AUTHORITY)).unwrap();
    let again = made(&dir, SystemTime::now());
    assert_eq!((read(&dir, AUTHORITY), &again.pair.cert), (authority.clone(), &first.pair.cert));
    for name in [AUTHORITY, local_ca::CA_KEY_FILE] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let anew = made(&dir, SystemTime::now());
    assert_ne!(read(&dir, AUTHORITY), authority);
    assert_ne!(anew.pair.cert, first.pair.cert, "the new authority signs what is shown at once");
    for name in [AUTHORITY, CERT_FILE] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let key = read(&dir, local_ca::CA_KEY_FILE);
    let again = made(&dir, SystemTime::now());
    assert_eq!(read(&dir, local_ca::CA_KEY_FILE), key, "what an interrupted start left is gone on with");
    assert!(
        is_signed_by(&again.pair.cert[0], &anew.pair.cert[1]),
        "who trusts the key's authority goes on to"
    );
}

#[test]
fn an_authority_that_cannot_be_looked_at_is_not_taken_for_gone() {
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
fn an_authority_near_its_end_is_told_and_no_certificate_outlasts_it() {
    let (dir, _) = folder("end");
    let (_, facts) = local_ca::read_certificate(&dir).unwrap();
    let late = facts.not_after - DAY * 100;
    let shown = made(&dir, late);
    assert_eq!(leaf(&shown).not_after, facts.not_after);
    let told = shown.warnings.concat();
    assert!(
        told.contains(&format!(
            "the local certificate authority expires on {}",
            format_date(facts.not_after)
        )),
        "{told}"
    );
    let last = made(&dir, facts.not_after - DAY);
    assert_eq!(last.pair.cert, shown.pair.cert, "a new one would last no longer");
    assert!(
        load_or_issue(&dir, facts.not_after + DAY)
            .unwrap_err()
            .contains("the certificate authority expired on")
    );
}

#[test]
fn keys_that_others_can_read_are_told() {
    let (dir, _) = folder("modes");
    for name in [local_ca::CA_KEY_FILE, KEY_FILE] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    let told = made(&dir, SystemTime::now()).warnings;
    assert_eq!(told.iter().filter(|warning| warning.contains("; run: chmod 600 ")).count(), 2, "{told:?}");
}
