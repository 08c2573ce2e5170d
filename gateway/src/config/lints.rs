//! Warnings about a valid configuration: unknown or misspelled names, and values without effect.

use std::{collections::BTreeSet, time::SystemTime};

use service::settings::{Problem, Settings};

use super::{KEYS, env_file::LoadedEnvFile, keys};
use crate::tls::{Tls, lints};

/// Names in the env file that look like misspelled settings.
pub(super) fn misspelled(env: &LoadedEnvFile, used: &BTreeSet<String>) -> Vec<Problem> {
    let problem = |name: &String| {
        let suggestion = keys::nearest_key(name)?;
        let message = format!("is not a setting; did you mean {suggestion}?");
        Some(Problem::new(env.path.display(), escaped(name), message))
    };
    unknown_names(env, used).filter_map(problem).collect()
}

/// One warning for all other unknown names. A name that does not look like a variable is only counted: it may be the second
/// line of a secret.
pub(super) fn foreign_variables(env: &LoadedEnvFile, used: &BTreeSet<String>) -> Option<String> {
    let mut foreign: Vec<_> = unknown_names(env, used)
        .filter(|name| keys::nearest_key(name).is_none())
        .map(|name| escaped(name))
        .collect();
    let count = foreign.len();
    foreign.retain(|name| looks_like_variable(name));
    if foreign.len() < count {
        foreign.push(format!("{} not written like a variable", count - foreign.len()));
    }
    let names = foreign.join(", ");
    (count > 0).then(|| {
        format!("{}: ignored {count} variables that are not gateway settings: {names}", env.path.display())
    })
}

/// A warning for each variable of the backends file that the environment overrides.
pub(super) fn overridden_variables(
    env: &LoadedEnvFile,
    used: &BTreeSet<String>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let differs = |name: &&String| {
        let (real, here) = (environment(name), env.value(name));
        here.is_some() && real.is_some() && real != here
    };
    let line = |name: &String| {
        // Without the values: they may be tokens.
        format!("{}: {name}: this has no effect: the environment has another value", env.path.display())
    };
    used.iter().filter(differs).map(line).collect()
}

/// Why clients reject the user's certificate, or soon will.
pub(super) fn certificate_warnings(tls: &Tls, settings: &Settings) -> Vec<String> {
    let Tls::Pair(pair) = tls else { return Vec::new() };
    let path = settings.raw("GATEWAY_TLS_CERT_PATH").unwrap_or_default();
    let warnings = lints::warnings(&pair.cert, SystemTime::now());
    warnings.iter().map(|warning| format!("GATEWAY_TLS_CERT_PATH: {path}: {warning}")).collect()
}

/// The key that a missing token is reported under, for the other settings that could provide one.
pub(super) fn token_setting_for(key: &str) -> Option<&'static str> {
    const TOKENS: [&str; 3] =
        ["GATEWAY_BEARER_TOKEN_FILE", "GATEWAY_BEARER_TOKENS_FILE", "GATEWAY_BEARER_TOKENS"];
    TOKENS.contains(&key).then_some("GATEWAY_BEARER_TOKEN")
}

fn unknown_names<'a>(env: &'a LoadedEnvFile, used: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
    let invalid = env.file.errors.iter().filter_map(|error| error.key.as_ref());
    let ours = |name: &str| KEYS.iter().any(|key| key.env == name) || used.contains(name);
    env.file.values.keys().chain(invalid).filter(move |name| !ours(name))
}

fn escaped(name: &str) -> String {
    name.escape_debug().take(64).collect()
}

/// Such as `OLLAMA_HOST`.
fn looks_like_variable(name: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(is_allowed)
}
