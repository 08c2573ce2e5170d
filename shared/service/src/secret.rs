//! A text that must not be seen: it prints as `[redacted]` and compares in constant time. And the one path that messages
//! take which may carry configuration: [`redact`].

use axum::http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, Entry},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A token or password.
#[derive(Clone)]
pub struct Secret(String);

/// Why an empty text is no token.
pub const EMPTY_TOKEN: &str = "expected a token, found an empty one; remove the setting if there is none";
/// Why a text is no token that a caller could show.
pub const INVALID_TOKEN: &str = "expected a token of printable ASCII characters: no header can carry a line end, a control character or a \
     letter outside ASCII, and it holds one";
/// What is shown in a secret's place.
const REDACTED: &str = "[redacted]";
/// How a key or certificate begins that stands where its path should.
const PEM_BEGIN: &str = "-----BEGIN";

impl Secret {
    /// Wraps a token: not an empty one, and one that a header can carry. White space around it is not part of it.
    pub fn token(text: &str) -> Result<Self, &'static str> {
        let secret = Self::new(text).ok_or(EMPTY_TOKEN)?;
        let sendable = secret.0.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if sendable { Ok(secret) } else { Err(INVALID_TOKEN) }
    }

    /// Wraps it. An empty or blank secret is none: it would match an empty credential.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The text, for sending it to the one it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a caller's credential is this one. Both are hashed first, so neither length nor content shows
    /// in the time taken.
    pub fn matches(&self, credential: &str) -> bool {
        Sha256::digest(&self.0).as_slice().ct_eq(Sha256::digest(credential).as_slice()).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The one credential of a request: of two, nobody knows which is meant.
pub fn bearer_credential(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let credential = bearer(given.next()?.to_str().ok()?);
    credential.filter(|_| given.next().is_none())
}

/// Drops every `Authorization` line that shows a credential of ours, which nobody behind us may see. Other credentials
/// are the caller's business.
pub fn strip_credentials(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let is_own_credential = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        // Somebody on the way may have made one line of two.
        bearer(&text).is_some_and(&is_ours) || text.split(',').any(|part| bearer(part).is_some_and(&is_ours))
    };
    if let Entry::Occupied(given) = headers.entry(AUTHORIZATION)
        && given.iter().any(is_own_credential)
    {
        let (_, values) = given.remove_entry_mult();
        let others: Vec<_> = values.filter(|value| !is_own_credential(value)).collect();
        for other in others {
            headers.append(AUTHORIZATION, other);
        }
    }
}

/// The credential of an `Authorization: Bearer …` header's value, if it is one.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, credential) = authorization.trim().split_once([' ', '\t'])?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// An address for logs and answers: without user, password, query and fragment, where secrets ride.
pub fn redact_url(url: &reqwest::Url) -> String {
    let mut redacted = url.clone();
    let hidden = !url.username().is_empty() || url.password().is_some();
    if hidden && (redacted.set_username("").is_err() || redacted.set_password(None).is_err()) {
        return REDACTED.to_owned();
    }
    redacted.set_query(None);
    redacted.set_fragment(None);
    redacted.to_string()
}

/// A message without what could be a secret in it: user name, password, query and fragment of every address, and any key
/// or certificate. Whatever may quote configuration goes through here.
pub fn redact(text: &str) -> String {
    let (text, pem) = match text.find(PEM_BEGIN) {
        Some(at) => (&text[..at], REDACTED),
        None => (text, ""),
    };
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, behind) = rest.split_at(at + 3);
        let before =
            scheme[..at].trim_end_matches(|ch: char| ch.is_ascii_alphanumeric() || "+-.".contains(ch));
        let quoted = before.ends_with('"');
        // What is quoted is one value, with whatever is in it.
        let ends = |ch: char| ch == '"' || !quoted && (ch.is_whitespace() || "`<>".contains(ch));
        let (address, further) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        redacted.push_str(scheme);
        redacted.push_str(&redact_url_rest(address));
        rest = further;
    }
    redacted + rest + pem
}

/// A value that is an address, or was meant to be one: what does not parse as one hides its secrets all the same.
pub fn redact_url_text(text: &str) -> String {
    if text.contains(PEM_BEGIN) {
        return REDACTED.to_owned();
    }
    let (scheme, address) = text.find("://").map_or(("", text), |at| text.split_at(at + 3));
    format!("{scheme}{}", redact_url_rest(address))
}

/// What stands behind `://`. A password may hold an `@` or a `/` that nobody escaped, so the last `@` counts.
fn redact_url_rest(address: &str) -> String {
    let (user, host_and_path) =
        address.rsplit_once('@').map_or(("", address), |(_, place)| (REDACTED, place));
    let at = if user.is_empty() { "" } else { "@" };
    match host_and_path.split_once(['?', '#']) {
        Some((place, _)) => format!("{user}{at}{place}?{REDACTED}"),
        None => format!("{user}{at}{host_and_path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_and_an_empty_one_never_matches() {
        let secret = Secret::new(" token-1 ").unwrap();
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert!(secret.matches("token-1"));
        for other in ["", " ", "token-2", "token-1 ", "token-11"] {
            assert!(!secret.matches(other), "{other:?}");
        }
        assert!(Secret::new("").is_none() && Secret::new(" \t").is_none());
    }

    #[test]
    fn only_a_bearer_credential_is_read() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_token_is_what_a_header_can_carry() {
        for good in ["abc", " abc ", "a b", "c2VjcmV0==", "~!@#$%^&*()"] {
            assert_eq!(Secret::token(good).unwrap().expose(), good.trim());
        }
        for (bad, why) in [
            ("", EMPTY_TOKEN),
            (" \t\n", EMPTY_TOKEN),
            ("schl\u{fc}ssel", INVALID_TOKEN),
            ("a\nb", INVALID_TOKEN),
            ("a\tb", INVALID_TOKEN),
            ("a\u{7f}b", INVALID_TOKEN),
            ("a\0b", INVALID_TOKEN),
            ("\u{fffd}", INVALID_TOKEN),
        ] {
            assert_eq!(Secret::token(bad).unwrap_err(), why, "{bad:?}");
        }
    }

    #[test]
    fn a_message_shows_no_secret_of_any_address_in_it() {
        for (text, shown) in [
            ("plain words, a@b and what?", "plain words, a@b and what?"),
            ("at http://ada2:7860/x", "at http://ada2:7860/x"),
            ("found \"http://me:hush@ada2:1\"; so", "found \"http://[redacted]@ada2:1\"; so"),
            (
                "http://me:hu@sh@a and https://b/?key=hush#x end",
                "http://[redacted]@a and https://b/?[redacted] end",
            ),
            ("http://me:hu/sh@a", "http://[redacted]@a"),
            ("http://a,http://me:hush@b", "http://[redacted]@b"),
            ("found \"http://me:hu sh@a\" there", "found \"http://[redacted]@a\" there"),
            ("key: -----BEGIN PRIVATE KEY-----hush", "key: [redacted]"),
        ] {
            assert_eq!(redact(text), shown);
        }
        for (text, shown) in [
            ("me:hush@ada2:9090", "[redacted]@ada2:9090"),
            ("http://me:hu sh@ada2", "http://[redacted]@ada2"),
            ("ada2:9090?token=hush", "ada2:9090?[redacted]"),
            ("nowhere", "nowhere"),
            ("-----BEGIN hush", "[redacted]"),
        ] {
            assert_eq!(redact_url_text(text), shown);
        }
    }

    #[test]
    fn of_two_credentials_none_counts_and_ours_is_never_passed_on() {
        let is_ours = |credential: &str| credential == "ours";
        for (given, one, passed) in [
            (&["Bearer ours"][..], Some("ours"), &[][..]),
            (&["bearer\tours "], Some("ours"), &[]),
            (&["Bearer theirs"], Some("theirs"), &["Bearer theirs"]),
            (&["Basic ours"], None, &["Basic ours"]),
            (&["Bearer ours", "Basic x"], None, &["Basic x"]),
            (&["Basic x", "Bearer ours", "Bearer theirs"], None, &["Basic x", "Bearer theirs"]),
            (&["Bearer ours", "Bearer ours"], None, &[]),
            (&["Bearer x, Bearer ours"], Some("x, Bearer ours"), &[]),
            (&[], None, &[]),
        ] {
            let mut headers = HeaderMap::new();
            for line in given {
                headers.append(AUTHORIZATION, HeaderValue::from_static(line));
            }
            assert_eq!(bearer_credential(&headers), one, "{given:?}");
            strip_credentials(&mut headers, is_ours);
            assert_eq!(headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), passed, "{given:?}");
        }
    }

    #[test]
    fn an_address_loses_its_secrets() {
        let url = "http://me:pass@ada2:7860/x?key=1#frag".parse().unwrap();
        assert_eq!(redact_url(&url), "http://ada2:7860/x");
    }
}
