//! A text that must not be seen: it prints as `[redacted]` and compares in constant time.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A token or password.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
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
        f.write_str("[redacted]")
    }
}

/// The credential of an `Authorization: Bearer …` header's value, if it is one.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, credential) = authorization.split_once(' ')?;
    let credential = credential.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !credential.is_empty()).then_some(credential)
}

/// An address for logs and answers: without user, password, query and fragment, where secrets ride.
pub fn redacted_url(url: &reqwest::Url) -> String {
    let mut shown = url.clone();
    let hidden = !url.username().is_empty() || url.password().is_some();
    if hidden && (shown.set_username("").is_err() || shown.set_password(None).is_err()) {
        return "[redacted]".to_owned();
    }
    shown.set_query(None);
    shown.set_fragment(None);
    shown.to_string()
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
    fn an_address_loses_its_secrets() {
        let url = "http://me:pass@ada2:7860/x?key=1#frag".parse().unwrap();
        assert_eq!(redacted_url(&url), "http://ada2:7860/x");
    }
}
