//! Who may come: tokens, addresses, hosts and origins.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use service::{
    guard::Guard,
    secret::Secret,
    settings::{Problem, Settings, boolean, list},
};

use super::tokens::{ParsedTokens, Token, apply_owner_tokens, merge, parse_list, single};

/// Who may come.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// The callers' tokens; none where nobody is asked for one.
    pub tokens: Vec<Arc<Token>>,
    /// Whether a token is asked for.
    pub auth_required: bool,
    /// Ranges that may use the API; none is any.
    pub api_ranges: Vec<IpNet>,
    /// Ranges that may fetch pictures; none is nobody.
    pub ui_ranges: Vec<IpNet>,
    /// Ranges of proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Hosts and origins.
    pub guard: Guard,
}

impl AccessConfig {
    /// Reads the section. `loopback` is whether the gateway listens on loopback only.
    pub(super) fn read(settings: &mut Settings, loopback: bool, warnings: &mut Vec<String>) -> Option<Self> {
        let asks_tokens = settings.required("GATEWAY_AUTH", "on or off", boolean);
        settings.secret_from_file("GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKEN_FILE");
        settings.secret_from_file("GATEWAY_BEARER_TOKENS", "GATEWAY_BEARER_TOKENS_FILE");
        let single = tokens(settings, "GATEWAY_BEARER_TOKEN", &single);
        let several = tokens(settings, "GATEWAY_BEARER_TOKENS", &parse_list);
        let tokens: Option<Vec<Token>> = single.zip(several).map(|(single, several)| merge(&single, several));
        if asks_tokens == Some(true) && tokens.as_ref().is_some_and(Vec::is_empty) {
            settings.add_problem(
                "GATEWAY_BEARER_TOKEN",
                "expected a token here or in GATEWAY_BEARER_TOKENS; only GATEWAY_AUTH=off on a loopback address \
                 serves without one",
            );
        }
        // Where nobody is asked for a token, everybody sees everything.
        let tokens = match tokens {
            Some(tokens) if asks_tokens == Some(true) => Some(apply_owner_tokens(settings, tokens, warnings)),
            tokens => tokens.map(|tokens| tokens.into_iter().map(Arc::new).collect()),
        };
        if asks_tokens == Some(false) && !loopback {
            settings.add_problem("GATEWAY_AUTH", "expected `on`: GATEWAY_HOST is not a loopback address");
        }
        let api_ranges = ranges(settings, "IP_ALLOWLIST");
        let ui_ranges = ranges(settings, "UI_IP_ALLOWLIST");
        let proxies = ranges(settings, "TRUST_PROXY_CIDRS");
        let guard = Guard::from_settings(settings, "GATEWAY_ALLOWED_HOSTS", "GATEWAY_ALLOWED_ORIGINS");
        Some(Self {
            tokens: tokens?,
            auth_required: asks_tokens?,
            api_ranges: api_ranges?,
            ui_ranges: ui_ranges?,
            trusted_proxies: proxies?,
            guard: guard?,
        })
    }
}

fn tokens(settings: &mut Settings, name: &str, read: &dyn Fn(&str) -> ParsedTokens) -> Option<Vec<Token>> {
    match settings.raw(name).map(read) {
        None => Some(Vec::new()),
        Some(Ok(tokens)) => Some(tokens),
        Some(Err(expected)) => {
            settings.add_problem(name, expected);
            None
        }
    }
}

/// Where a value may come from, and the value of a name there.
pub(super) type TokenSource<'a> = (String, &'a dyn Fn(&str) -> Option<String>);

/// Why a text is no token.
type TokenCheck<'a> = &'a dyn Fn(&str) -> Result<(), Cow<'static, str>>;

/// A token that is none (blank, or one that no header can carry), in a place that another place overrules, is a forgotten
/// one all the same.
pub(super) fn invalid_tokens(sources: &[TokenSource<'_>]) -> Vec<Problem> {
    let one = |text: &str| Secret::token(text).map(drop).map_err(Cow::from);
    let settings: [(&str, TokenCheck<'_>); 3] = [
        ("GATEWAY_BEARER_TOKEN", &one),
        ("GATEWAY_BEARER_TOKENS", &|text| parse_list(text).map(drop)),
        ("GATEWAY_LEGACY_BEARER_TOKEN", &one),
    ];
    let mut problems = Vec::new();
    for (name, check) in settings {
        for (place, read) in sources {
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
