use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use super::{super::names::Permitted, *};
use crate::store::disk::tests::temporary;

const YEAR: Duration = Duration::from_hours(24 * 365);
const AUTHORITY: &str = authority::CERTIFICATE;

fn read(dir: &Path, name: &str) -> Vec<u8> {
    fs::read(dir.join(name)).unwrap()
}

fn made(dir: &Path, now: SystemTime) -> SelfMade {
    self_made(dir, now).unwrap()
}

fn leaf(made: &SelfMade) -> Facts {
    Facts::of(&made.pair.cert[0]).unwrap()
}

/// A folder in which a pair was made just now.
fn folder(purpose: &str) -> (PathBuf, SelfMade) {
    let dir = temporary(purpose);
    let made = made(&dir, SystemTime::now());
    (dir, made)
}

/// The pair that earlier versions made: it signed itself.
fn earlier(dir: &Path, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap();
    let mut params = CertificateParams::new(names().into_iter().collect::<Vec<_>>()).unwrap();
    set_life(&mut params, since.saturating_sub(DAY), since + LIFE);
    params.distinguished_name.push(DnType::CommonName, "gateway");
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    let pair = KeyPair::generate().unwrap();
    let made = params.self_signed(&pair).unwrap();
    fs::write(dir.join(KEY), pair.serialize_pem()).unwrap();
    let end = (since + LIFE).as_secs();
    fs::write(dir.join(CERTIFICATE), format!("{EXPIRES}{end}\n{}", made.pem())).unwrap();
}

#[test]
fn the_authority_is_made_once_and_signs_every_certificate_that_is_shown() {
    let (dir, first) = folder("authority");
    for (name, mode) in
        [("gateway-ca.pem", 0o644), ("gateway-ca-key.pem", 0o600), (CERTIFICATE, 0o644), (KEY, 0o600)]
    {
        let found = fs::metadata(dir.join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
    let (certificate, facts) = authority::shown(&dir).unwrap();
    let now = SystemTime::now();
    assert!(facts.is_authority && facts.is_self_signed && facts.ends > now + YEAR * 10 - DAY);
    assert!(facts.subject.starts_with("gateway on ") && facts.subject.ends_with(" (local authority)"));
    assert_eq!(facts.permitted, Permitted::private_and(&names()));
    assert!(first.remarks.is_empty() && first.pair.cert[1] == certificate, "{:?}", first.remarks);
    let own = leaf(&first);
    assert!(!own.is_authority && !own.is_self_signed && own.names == names());
    assert_eq!(own.ends.duration_since(own.begins).unwrap(), DAY * 397);
    let again = made(&dir, now + DAY);
    assert_eq!(again.pair.cert, first.pair.cert, "kept while it lasts");
    let renewed = made(&dir, now + LIFE);
    assert_ne!(renewed.pair.cert[0], first.pair.cert[0]);
    assert!(is_signed_by(&renewed.pair.cert[0], &certificate) && renewed.pair.cert[1] == certificate);
}

#[test]
fn a_certificate_without_a_name_that_the_host_has_now_is_signed_anew() {
    let (dir, first) = folder("names");
    let authority = Authority::open(&dir, SystemTime::now(), &names(), None).unwrap();
    let mut fewer = names();
    fewer.remove("::1");
    sign(&dir, SystemTime::now(), &authority, &fewer).unwrap();
    let again = made(&dir, SystemTime::now());
    assert_eq!(leaf(&again).names, names());
    assert_ne!(again.pair.cert[0], first.pair.cert[0]);
    let mut more = names();
    more.insert("old.local".to_owned());
    sign(&dir, SystemTime::now(), &authority, &more).unwrap();
    let kept = read(&dir, CERTIFICATE);
    made(&dir, SystemTime::now());
    assert_eq!(read(&dir, CERTIFICATE), kept, "a name that is gone does no harm");
}

#[test]
fn a_name_that_the_authority_may_not_sign_for_is_left_out_and_told() {
    let (dir, _) = folder("outside");
    let authority = Authority::open(&dir, SystemTime::now(), &names(), None).unwrap();
    let mut called = names();
    called.extend(["ai2.example.org".to_owned(), "203.0.113.9".to_owned(), "2001:db8::9".to_owned()]);
    let shown = with_authority(&dir, SystemTime::now(), None, &authority, &called).unwrap();
    assert_eq!(leaf(&shown).names, names());
    let told = shown.remarks.concat();
    assert!(told.contains("does not name 203.0.113.9, ai2.example.org: "), "{told}");
    assert!(told.contains("move gateway-ca.pem and gateway-ca-key.pem away"), "{told}");
}

#[test]
fn a_pair_of_an_earlier_version_is_shown_until_a_month_before_its_end() {
    let dir = temporary("earlier");
    let now = SystemTime::now();
    earlier(&dir, now);
    let pinned = read(&dir, CERTIFICATE);
    let shown = made(&dir, now + DAY);
    assert!(leaf(&shown).is_self_signed && read(&dir, CERTIFICATE) == pinned);
    let told = shown.remarks.concat();
    assert!(told.contains("earlier version") && told.contains("`gateway ca`"), "{told}");
    let authority = read(&dir, AUTHORITY);
    let after = made(&dir, now + LIFE - RENEW);
    assert!(!leaf(&after).is_self_signed && after.remarks.is_empty(), "{:?}", after.remarks);
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
        (
            "a certificate that is no authority's",
            AUTHORITY,
            "gateway-ca.pem: it is damaged, or no authority's",
        ),
    ] {
        let (dir, first) = folder("lost");
        match case {
            "key lost" => fs::remove_file(dir.join(spoil)).unwrap(),
            "another's key" => fs::write(dir.join(spoil), read(&one, spoil)).unwrap(),
            "a certificate that is no authority's" => {
                fs::write(dir.join(spoil), pem_of(&first.pair.cert[0])).unwrap();
            }
            _ => fs::write(dir.join(spoil), "-----BEGIN").unwrap(),
        }
        let before = (read(&dir, CERTIFICATE), fs::read(dir.join(spoil)).ok());
        let shown = made(&dir, now + LIFE - DAY);
        assert_eq!(shown.pair.cert, first.pair.cert, "{case}: shown while it lasts");
        let told = shown.remarks.concat();
        assert!(told.contains(words) && told.contains("from a backup"), "{case}: {told}");
        assert!(told.contains("lasts until "), "{case}: {told}");
        let refused = self_made(&dir, now + LIFE + DAY).unwrap_err();
        assert!(refused.contains(words) && refused.contains("move both away"), "{case}: {refused}");
        assert_eq!((read(&dir, CERTIFICATE), fs::read(dir.join(spoil)).ok()), before, "{case}");
    }
}

#[test]
fn what_can_be_put_back_is_and_what_was_moved_away_is_made_anew() {
    let (dir, first) = folder("back");
    let authority = read(&dir, AUTHORITY);
    fs::remove_file(dir.join(AUTHORITY)).unwrap();
    let again = made(&dir, SystemTime::now());
    assert_eq!((read(&dir, AUTHORITY), &again.pair.cert), (authority.clone(), &first.pair.cert));
    for name in [AUTHORITY, authority::KEY] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let anew = made(&dir, SystemTime::now());
    assert_ne!(read(&dir, AUTHORITY), authority);
    assert_ne!(anew.pair.cert, first.pair.cert, "the new authority signs what is shown at once");
    for name in [AUTHORITY, CERTIFICATE] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let key = read(&dir, authority::KEY);
    let again = made(&dir, SystemTime::now());
    assert_eq!(read(&dir, authority::KEY), key, "what an interrupted start left is gone on with");
    assert!(
        is_signed_by(&again.pair.cert[0], &anew.pair.cert[1]),
        "who trusts the key's authority goes on to"
    );
}

#[test]
fn an_authority_that_cannot_be_looked_at_is_not_taken_for_gone() {
    for names in [&[AUTHORITY, authority::KEY][..], &[authority::KEY]] {
        let dir = temporary("links");
        for name in names {
            std::os::unix::fs::symlink(dir.join("not mounted").join(name), dir.join(name)).unwrap();
        }
        let refused = self_made(&dir, SystemTime::now()).unwrap_err();
        assert!(refused.contains("the local authority cannot sign"), "{refused}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), names.len());
    }
}

#[test]
fn an_authority_near_its_end_is_told_and_no_certificate_outlasts_it() {
    let (dir, _) = folder("end");
    let (_, facts) = authority::shown(&dir).unwrap();
    let late = facts.ends - DAY * 100;
    let shown = made(&dir, late);
    assert_eq!(leaf(&shown).ends, facts.ends);
    let told = shown.remarks.concat();
    assert!(told.contains(&format!("the local authority ends on {}", date(facts.ends))), "{told}");
    let last = made(&dir, facts.ends - DAY);
    assert_eq!(last.pair.cert, shown.pair.cert, "a new one would last no longer");
    assert!(self_made(&dir, facts.ends + DAY).unwrap_err().contains("the authority ended on"));
}

#[test]
fn keys_that_others_can_read_are_told() {
    let (dir, _) = folder("modes");
    for name in [authority::KEY, KEY] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o640)).unwrap();
    }
    let told = made(&dir, SystemTime::now()).remarks;
    assert_eq!(told.iter().filter(|remark| remark.ends_with("chmod 600 it")).count(), 2, "{told:?}");
}
