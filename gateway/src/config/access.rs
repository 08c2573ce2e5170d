//! Who may come: tokens, addresses, hosts and origins.

use std::net::IpAddr;

use ipnet::IpNet;
use shared::service::{
    guard::Guard,
    secret::{EMPTY_TOKEN as EMPTY, Secret},
    settings::{Problem, Settings, list, truth},
};

/// A token and the name of who holds it, for the log.
#[derive(Debug, Clone)]
pub struct Token {
    /// `name=token` names it, else it is numbered.
    pub name: String,
    /// The token.
    pub secret: Secret,
}

/// Who may come.
#[derive(Debug, Clone)]
pub struct Access {
    /// The callers' tokens; none where nobody is asked for one.
    pub tokens: Vec<Token>,
    /// Whether a token is asked for.
    pub asks_tokens: bool,
    /// Ranges that may use the API; none is any.
    pub api_ranges: Vec<IpNet>,
    /// Ranges that may fetch pictures; none is nobody.
    pub ui_ranges: Vec<IpNet>,
    /// Ranges of proxies whose forwarding headers are trusted.
    pub proxies: Vec<IpNet>,
    /// Hosts and origins.
    pub guard: Guard,
}

impl Access {
    /// Reads the section. `loopback` is whether the gateway listens on loopback only.
    pub(super) fn read(settings: &mut Settings, loopback: bool) -> Option<Self> {
        let asks_tokens = settings.take("GATEWAY_AUTH", "on or off", truth);
        settings.secret_from_file("GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKEN_FILE");
        settings.secret_from_file("GATEWAY_BEARER_TOKENS", "GATEWAY_BEARER_TOKENS_FILE");
        let single = tokens(settings, "GATEWAY_BEARER_TOKEN", &|text| Ok(vec![token("token", text)?]));
        let several = tokens(settings, "GATEWAY_BEARER_TOKENS", &named_tokens);
        let tokens: Option<Vec<Token>> =
            single.zip(several).map(|(single, several)| [single, several].concat());
        if asks_tokens == Some(true) && tokens.as_ref().is_some_and(Vec::is_empty) {
            settings.complain(
                "GATEWAY_BEARER_TOKEN",
                "expected a token here or in GATEWAY_BEARER_TOKENS; only GATEWAY_AUTH=off on a loopback address \
                 serves without one",
            );
        }
        if asks_tokens == Some(false) && !loopback {
            settings.complain("GATEWAY_AUTH", "expected `on`: GATEWAY_HOST is not a loopback address");
        }
        let api_ranges = ranges(settings, "IP_ALLOWLIST");
        let ui_ranges = ranges(settings, "UI_IP_ALLOWLIST");
        let proxies = ranges(settings, "TRUST_PROXY_CIDRS");
        let guard = Guard::read(settings, "GATEWAY_ALLOWED_HOSTS", "GATEWAY_ALLOWED_ORIGINS");
        Some(Self {
            tokens: tokens?,
            asks_tokens: asks_tokens?,
            api_ranges: api_ranges?,
            ui_ranges: ui_ranges?,
            proxies: proxies?,
            guard: guard?,
        })
    }
}

type TokensRead = Result<Vec<Token>, &'static str>;

fn tokens(settings: &mut Settings, name: &str, read: &dyn Fn(&str) -> TokensRead) -> Option<Vec<Token>> {
    match settings.raw(name).map(read) {
        None => Some(Vec::new()),
        Some(Ok(tokens)) => Some(tokens),
        Some(Err(expected)) => {
            settings.complain(name, expected);
            None
        }
    }
}

/// Where a value may come from, and the value of a name there.
pub(super) type Place<'a> = (String, &'a dyn Fn(&str) -> Option<String>);

/// Why a text is no token.
type Check<'a> = &'a dyn Fn(&str) -> Result<(), &'static str>;

/// A token that is none (blank, or one that no header can carry), in a place that another place overrules, is a forgotten
/// one all the same.
pub(super) fn unusable_tokens(places: &[Place<'_>]) -> Vec<Problem> {
    let one = |text: &str| Secret::token(text).map(drop);
    let settings: [(&str, Check<'_>); 3] = [
        ("GATEWAY_BEARER_TOKEN", &one),
        ("GATEWAY_BEARER_TOKENS", &|text| named_tokens(text).map(drop)),
        ("GATEWAY_LEGACY_BEARER_TOKEN", &one),
    ];
    let mut problems = Vec::new();
    for (name, check) in settings {
        for (place, read) in places {
            if let Some(Err(why)) = read(name).map(|value| check(&value)) {
                problems.push(Problem::new(place, name, why));
            }
        }
    }
    problems
}

fn token(name: &str, text: &str) -> Result<Token, &'static str> {
    Ok(Token { name: name.to_owned(), secret: Secret::token(text)? })
}

/// Separated by commas or, as files have them, by line ends. `name=token` where the name is `[a-z0-9_-]{1,32}` and at least 16 characters follow;
/// anything else is a bare token, since tokens in base64 end with `=`.
fn named_tokens(text: &str) -> TokensRead {
    let read = |(at, item): (usize, &str)| {
        let item = item.trim();
        let named = item.split_once('=').filter(|(name, _)| is_name(name));
        match named {
            Some((_, "")) => Err(EMPTY),
            Some((name, secret)) if secret.chars().count() >= 16 => token(name, secret),
            _ => token(&format!("token{}", at + 1), item),
        }
    };
    text.split([',', '\n']).enumerate().map(read).collect()
}

/// Whether it can name a token.
pub fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

fn ranges(settings: &mut Settings, name: &str) -> Option<Vec<IpNet>> {
    let expected = "addresses and CIDR ranges, comma-separated";
    settings.optional(name, expected, |text| list(text, range)).map(Option::unwrap_or_default)
}

/// A range, or an address as the range of itself alone.
fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

#[cfg(test)]
mod tests {
    use shared::service::secret::UNSENDABLE_TOKEN;

    use super::*;

    #[test]
    fn a_name_is_a_name_only_before_a_long_token() {
        for (text, expected) in [
            ("alice=0123456789abcdef", &[("alice", "0123456789abcdef")][..]),
            ("short=012345", &[("token1", "short=012345")]),
            ("Alice=0123456789abcdef", &[("token1", "Alice=0123456789abcdef")]),
            ("bare, bob=0123456789abcdefg", &[("token1", "bare"), ("bob", "0123456789abcdefg")]),
            ("a1\nbob=0123456789abcdefg", &[("token1", "a1"), ("bob", "0123456789abcdefg")]),
            ("c2VjcmV0LXRva2Vu==", &[("token1", "c2VjcmV0LXRva2Vu==")]),
        ] {
            let tokens = named_tokens(text).unwrap();
            let read: Vec<_> =
                tokens.iter().map(|token| (token.name.as_str(), token.secret.expose())).collect();
            assert_eq!(read, expected, "{text}");
        }
        for bad in ["", "a,", ",a", "a, ,b", "alice="] {
            assert_eq!(named_tokens(bad).err(), Some(EMPTY), "{bad:?}");
        }
        for bad in ["a,schl\u{fc}ssel", "bob=0123456789abcde\u{7f}", "a\u{1}"] {
            assert_eq!(named_tokens(bad).err(), Some(UNSENDABLE_TOKEN), "{bad:?}");
        }
    }
}
