//! Secrets, which print as `[redacted]` and compare in constant time, and [`redact`], which every message passes that may
//! quote configuration.

use axum::http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, Entry},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A token or password.
#[derive(Clone)]
pub struct Secret(String);

/// The error for an empty token.
pub const EMPTY_TOKEN: &str =
    "expected a token, found an empty value; remove the setting if you use no token";
/// The error for a token that no header can carry.
pub const INVALID_TOKEN: &str = "expected a token of printable ASCII characters: a header cannot carry line breaks, control characters or \
     characters outside ASCII";
const REDACTED: &str = "[redacted]";
/// The start of a key or certificate that somebody gave in place of its path.
const PEM_BEGIN: &str = "-----BEGIN";

impl Secret {
    /// A token: not empty, and such that a header can carry it. Surrounding white space is removed.
    pub fn token(text: &str) -> Result<Self, &'static str> {
        let secret = Self::new(text).ok_or(EMPTY_TOKEN)?;
        let sendable = secret.0.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if sendable { Ok(secret) } else { Err(INVALID_TOKEN) }
    }

    /// `None` for an empty or blank text, which would match an empty credential.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The text, to be sent to the server it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a credential is this secret. Both are hashed first, so that the time taken depends on neither length nor
    /// content.
    pub fn matches(&self, credential: &str) -> bool {
        Sha256::digest(&self.0).as_slice().ct_eq(Sha256::digest(credential).as_slice()).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(REDACTED)
    }
}

/// The credential of a request, if there is exactly one `Authorization` header: of two, nobody knows which counts.
pub fn bearer_credential(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let credential = bearer(lines.next()?.to_str().ok()?);
    credential.filter(|_| lines.next().is_none())
}

/// Removes every `Authorization` line with a credential of ours, which no server behind us may see. The client's other
/// credentials pass.
pub fn strip_credentials(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let is_own_credential = |value: &HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes());
        // A proxy may have joined two lines.
        bearer(&text).is_some_and(&is_ours) || text.split(',').any(|part| bearer(part).is_some_and(&is_ours))
    };
    if let Entry::Occupied(lines) = headers.entry(AUTHORIZATION)
        && lines.iter().any(is_own_credential)
    {
        let (_, values) = lines.remove_entry_mult();
        let others: Vec<_> = values.filter(|value| !is_own_credential(value)).collect();
        for other in others {
            headers.append(AUTHORIZATION, other);
        }
    }
}

/// The credential in a value of the form `Bearer …`.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, credential) = authorization.trim().split_once([' ', '\t'])?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// A URL for logs and responses: without user name, password, query and fragment, which may hold secrets.
pub fn redact_url(url: &reqwest::Url) -> String {
    let mut redacted = url.clone();
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user && (redacted.set_username("").is_err() || redacted.set_password(None).is_err()) {
        return REDACTED.to_owned();
    }
    redacted.set_query(None);
    redacted.set_fragment(None);
    redacted.to_string()
}

/// A message without what could be a secret: user name, password, query and fragment of every URL, and any key or
/// certificate. Every message that may quote configuration passes here.
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
        // A quoted text is one value, whatever it contains.
        let ends = |ch: char| ch == '"' || !quoted && (ch.is_whitespace() || "`<>".contains(ch));
        let (address, further) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        redacted.push_str(scheme);
        redacted.push_str(&redact_url_rest(address));
        rest = further;
    }
    redacted + rest + pem
}

/// A value that should be a URL, without its secrets even if it does not parse.
pub fn redact_url_text(text: &str) -> String {
    if text.contains(PEM_BEGIN) {
        return REDACTED.to_owned();
    }
    let (scheme, address) = text.find("://").map_or(("", text), |at| text.split_at(at + 3));
    format!("{scheme}{}", redact_url_rest(address))
}

/// What follows `://`. A password may contain an unescaped `@` or `/`, so the last `@` counts.
fn redact_url_rest(address: &str) -> String {
    let (user, host_and_path) = address.rsplit_once('@').map_or(("", address), |(_, host)| (REDACTED, host));
    let at = if user.is_empty() { "" } else { "@" };
    match host_and_path.split_once(['?', '#']) {
        Some((host, _)) => format!("{user}{at}{host}?{REDACTED}"),
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
    fn a_message_shows_no_secret_of_any_url_in_it() {
        for (text, redacted) in [
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
            assert_eq!(redact(text), redacted);
        }
        for (text, redacted) in [
            ("me:hush@ada2:9090", "[redacted]@ada2:9090"),
            ("http://me:hu sh@ada2", "http://[redacted]@ada2"),
            ("ada2:9090?token=hush", "ada2:9090?[redacted]"),
            ("nowhere", "nowhere"),
            ("-----BEGIN hush", "[redacted]"),
        ] {
            assert_eq!(redact_url_text(text), redacted);
        }
    }

    #[test]
    fn two_credentials_are_rejected_and_ours_is_never_forwarded() {
        let is_ours = |credential: &str| credential == "ours";
        for (lines, credential, passed) in [
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
            for line in lines {
                headers.append(AUTHORIZATION, HeaderValue::from_static(line));
            }
            assert_eq!(bearer_credential(&headers), credential, "{lines:?}");
            strip_credentials(&mut headers, is_ours);
            assert_eq!(headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), passed, "{lines:?}");
        }
    }

    #[test]
    fn a_url_loses_its_secrets() {
        let url = "http://me:pass@ada2:7860/x?key=1#frag".parse().unwrap();
        assert_eq!(redact_url(&url), "http://ada2:7860/x");
    }
}
