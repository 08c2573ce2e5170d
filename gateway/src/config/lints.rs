//! Warnings about a valid configuration: unknown or misspelled names, and values without effect.

use std::{collections::BTreeSet, time::SystemTime};

use service::settings::{Problem, Settings};

use super::{KEYS, LoadedEnvFile, keys};
use crate::tls::{Tls, lints};

/// The names in the env file that look like a misspelling of ours.
pub(super) fn misspelled(env: &LoadedEnvFile, used: &BTreeSet<String>) -> Vec<Problem> {
    let problem = |name: &String| {
        let suggestion = keys::nearest_key(name)?;
        let message = format!("is not a setting; did you mean {suggestion}?");
        Some(Problem::new(env.path.display(), escaped(name), message))
    };
    unknown_names(env, used).filter_map(problem).collect()
}

/// One line for the other unknown names. A name that is not written like a variable is only counted: it may be the second
/// line of a secret.
pub(super) fn foreign_variables(env: &LoadedEnvFile, used: &BTreeSet<String>) -> Option<String> {
    let mut foreign: Vec<_> = unknown_names(env, used)
        .filter(|name| keys::nearest_key(name).is_none())
        .map(|name| escaped(name))
        .collect();
    let count = foreign.len();
    foreign.retain(|name| looks_like_variable(name));
    if foreign.len() < count {
        foreign.push(format!("{} written unlike a variable", count - foreign.len()));
    }
    let names = foreign.join(", ");
    (count > 0)
        .then(|| format!("{}: {count} variables are no settings of the gateway: {names}", env.path.display()))
}

/// A line for each variable of the backends' file whose value in the env file the environment overrides.
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
        // It may hold a token.
        format!("{}: {name}: this has no effect: the environment has another value of it", env.path.display())
    };
    used.iter().filter(differs).map(line).collect()
}

/// What clients reject or will reject in the given certificate.
pub(super) fn certificate_warnings(tls: &Tls, settings: &Settings) -> Vec<String> {
    let Tls::Pair(pair) = tls else { return Vec::new() };
    let path = settings.raw("GATEWAY_TLS_CERT_PATH").unwrap_or_default();
    let warnings = lints::warnings(&pair.cert, SystemTime::now());
    warnings.iter().map(|remark| format!("GATEWAY_TLS_CERT_PATH: {path}: {remark}")).collect()
}

/// The setting that the file of a token gives, by the setting that names the file.
pub(super) fn token_setting_for(key: &str) -> Option<&'static str> {
    // A missing token is reported under the first.
    const TOKENS: [&str; 3] =
        ["GATEWAY_BEARER_TOKEN_FILE", "GATEWAY_BEARER_TOKENS_FILE", "GATEWAY_BEARER_TOKENS"];
    TOKENS.contains(&key).then_some("GATEWAY_BEARER_TOKEN")
}

fn unknown_names<'a>(env: &'a LoadedEnvFile, used: &'a BTreeSet<String>) -> impl Iterator<Item = &'a String> {
    let unread = env.file.errors.iter().filter_map(|fault| fault.key.as_ref());
    let ours = |name: &str| KEYS.iter().any(|key| key.env == name) || used.contains(name);
    env.file.values.keys().chain(unread).filter(move |name| !ours(name))
}

fn escaped(name: &str) -> String {
    name.escape_debug().take(64).collect()
}

/// Whether it is written as variables are: `OLLAMA_HOST`.
fn looks_like_variable(name: &str) -> bool {
    let known = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(known)
}
