//! Who may come: tokens, addresses, hosts and origins.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use service::{
    guard::Guard,
    secret::Secret,
    settings::{Problem, Settings, list, truth},
};

use super::tokens::{Token, TokensRead, named_tokens, single, together, with_owners};

/// Who may come.
#[derive(Debug, Clone)]
pub struct Access {
    /// The callers' tokens; none where nobody is asked for one.
    pub tokens: Vec<Arc<Token>>,
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
    pub(super) fn read(settings: &mut Settings, loopback: bool, notes: &mut Vec<String>) -> Option<Self> {
        let asks_tokens = settings.take("GATEWAY_AUTH", "on or off", truth);
        settings.secret_from_file("GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKEN_FILE");
        settings.secret_from_file("GATEWAY_BEARER_TOKENS", "GATEWAY_BEARER_TOKENS_FILE");
        let single = tokens(settings, "GATEWAY_BEARER_TOKEN", &single);
        let several = tokens(settings, "GATEWAY_BEARER_TOKENS", &named_tokens);
        let tokens: Option<Vec<Token>> =
            single.zip(several).map(|(single, several)| together(&single, several));
        if asks_tokens == Some(true) && tokens.as_ref().is_some_and(Vec::is_empty) {
            settings.complain(
                "GATEWAY_BEARER_TOKEN",
                "expected a token here or in GATEWAY_BEARER_TOKENS; only GATEWAY_AUTH=off on a loopback address \
                 serves without one",
            );
        }
        // Where nobody is asked for a token, everybody sees everything.
        let tokens = match tokens {
            Some(tokens) if asks_tokens == Some(true) => Some(with_owners(settings, tokens, notes)),
            tokens => tokens.map(|tokens| tokens.into_iter().map(Arc::new).collect()),
        };
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
type Check<'a> = &'a dyn Fn(&str) -> Result<(), Cow<'static, str>>;

/// A token that is none (blank, or one that no header can carry), in a place that another place overrules, is a forgotten
/// one all the same.
pub(super) fn unusable_tokens(places: &[Place<'_>]) -> Vec<Problem> {
    let one = |text: &str| Secret::token(text).map(drop).map_err(Cow::from);
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

fn ranges(settings: &mut Settings, name: &str) -> Option<Vec<IpNet>> {
    let expected = "addresses and CIDR ranges, comma-separated";
    settings.optional(name, expected, |text| list(text, range)).map(Option::unwrap_or_default)
}

/// A range, or an address as the range of itself alone.
fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
