//! Who may use the gateway: tokens, addresses, hosts and origins.

use std::{borrow::Cow, sync::Arc};

use service::{
    guard::Guard,
    secret::Secret,
    settings::{Problem, Settings, boolean},
};

use super::{
    AccessConfig,
    tokens::{ParsedTokens, Token, apply_owner_tokens, merge, parse_list, single},
};

/// `loopback`: the gateway listens on loopback only.
pub(super) fn read(
    settings: &mut Settings,
    loopback: bool,
    warnings: &mut Vec<String>,
) -> Option<AccessConfig> {
    let auth_required = settings.raw("GATEWAY_AUTH").and_then(boolean);
    let tokens = read_tokens(settings, auth_required, warnings);
    if auth_required == Some(false) && !loopback {
        settings.add_problem("GATEWAY_AUTH", "expected `on`: GATEWAY_HOST is not a loopback address");
    }
    let guard = Guard::from_settings(settings, "GATEWAY_ALLOWED_HOSTS", "GATEWAY_ALLOWED_ORIGINS");
    AccessConfig::read(settings, tokens, guard)
}

fn read_tokens(
    settings: &mut Settings,
    auth_required: Option<bool>,
    warnings: &mut Vec<String>,
) -> Option<Vec<Arc<Token>>> {
    settings.secret_from_file("GATEWAY_BEARER_TOKEN", "GATEWAY_BEARER_TOKEN_FILE");
    settings.secret_from_file("GATEWAY_BEARER_TOKENS", "GATEWAY_BEARER_TOKENS_FILE");
    let single = tokens(settings, "GATEWAY_BEARER_TOKEN", &single);
    let several = tokens(settings, "GATEWAY_BEARER_TOKENS", &parse_list);
    let tokens = merge(&single?, several?);
    if auth_required != Some(true) {
        // Without authentication everybody sees everything.
        return Some(tokens.into_iter().map(Arc::new).collect());
    }
    if tokens.is_empty() {
        settings.add_problem(
            "GATEWAY_BEARER_TOKEN",
            "expected a token here or in GATEWAY_BEARER_TOKENS; running without one requires \
             GATEWAY_AUTH=off and a loopback address",
        );
    }
    Some(apply_owner_tokens(settings, tokens, warnings))
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

/// The name of a source, and how to look up a variable there.
pub(super) type TokenSource<'a> = (String, &'a dyn Fn(&str) -> Option<String>);

/// Why a text is not a token.
type TokenCheck<'a> = &'a dyn Fn(&str) -> Result<(), Cow<'static, str>>;

/// An invalid token (blank, or one that no header can carry) is reported even if another source overrides it: it was left
/// there by mistake.
pub(super) fn invalid_tokens(sources: &[TokenSource<'_>]) -> Vec<Problem> {
    let check_one = |text: &str| Secret::token(text).map(drop).map_err(Cow::from);
    let settings: [(&str, TokenCheck<'_>); 3] = [
        ("GATEWAY_BEARER_TOKEN", &check_one),
        ("GATEWAY_BEARER_TOKENS", &|text| parse_list(text).map(drop)),
        ("GATEWAY_LEGACY_BEARER_TOKEN", &check_one),
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
