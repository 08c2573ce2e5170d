//! The configuration: what is wrong with it, what in it has no effect, and what of it contradicts itself.

mod secrets;

use std::{net::IpAddr, time::Duration};

use reqwest::Url;
use service::{
    doctor::Finding,
    guard::{is_in_ranges, is_private_name},
    secret::redact,
    settings::{Problem, SettingSource},
};

pub(super) use self::secrets::{inspect_secret_files, secret_files};
use crate::{
    config::{Config, ConfigReport, ImageEngine, Token},
    tls::Tls,
};

/// Shorter tokens can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
/// Node's clients give up after so long without an answer.
const NODE_CLIENT_TIMEOUT: Duration = Duration::from_mins(5);
/// Places are looked at by themselves.
const PATH_SETTINGS: [&str; 3] = ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"];

/// What is wrong with it. `hidden` is the command that can read what this account may not.
pub(super) fn findings(examined: &ConfigReport, hidden: Option<&str>) -> Vec<Finding> {
    let (name, env) = ("configuration", examined.env.path.display());
    if let Some(command) = hidden {
        let message = format!("you cannot read {env}, and most checks need it; run: {command}");
        return vec![Finding::skip(name, message)];
    }
    let mut findings: Vec<_> = examined
        .problems
        .iter()
        .filter(|problem| !is_of_a_place(problem))
        .map(|wrong| problem(wrong, &env.to_string()))
        .collect();
    if let (Some(_), true) = (&examined.config, findings.is_empty()) {
        findings.push(Finding::ok(name, read(examined)));
    }
    findings.extend(misspelled(examined));
    findings.extend(without_effect(examined));
    if let Some(config) = &examined.config {
        findings.push(tokens(config, examined.warnings.owners.first()));
        findings.push(listener(config));
        findings.extend(images(config, examined.warnings.images.as_deref()));
        findings.extend(limits(config));
        findings.extend(routing(examined));
    }
    findings
}

fn is_of_a_place(problem: &Problem) -> bool {
    PATH_SETTINGS.contains(&problem.source.as_str())
}

fn problem(problem: &Problem, env: &str) -> Finding {
    // A misspelling in a file that is broken otherwise may be why.
    if problem.expected.starts_with("is not a setting") {
        return spelling(problem);
    }
    let what = if problem.source == SettingSource::Default.to_string() {
        format!("set {} in {env}", problem.key)
    } else {
        format!("correct {} in {}", problem.key, problem.source)
    };
    Finding::fail("configuration", problem.to_string(), format!("{what}, then: gateway check-config"))
}

fn spelling(problem: &Problem) -> Finding {
    let message = format!("{}: {} {}", problem.source, problem.key, problem.expected);
    Finding::warn("spelling", message, format!("rename {} in {}", problem.key, problem.source))
}

/// In a line, what was read.
fn read(examined: &ConfigReport) -> String {
    let env = &examined.env.path;
    let env = if env.exists() { env.display().to_string() } else { format!("{} (not there)", env.display()) };
    let backends = examined
        .backends_file()
        .map_or_else(|| "the built-in backends".to_owned(), |path| path.display().to_string());
    let notes = examined.warnings.foreign.iter().chain(&examined.warnings.disabled_backends);
    [format!("sound: {env}, {backends}")]
        .iter()
        .chain(notes)
        .map(String::as_str)
        .map(redact)
        .collect::<Vec<_>>()
        .join("; ")
}

fn misspelled(examined: &ConfigReport) -> Vec<Finding> {
    examined.misspelled.iter().chain(&examined.misspelled_backends).map(spelling).collect()
}

fn without_effect(examined: &ConfigReport) -> Vec<Finding> {
    let notes = &examined.warnings;
    let message =
        |note: &String| Finding::warn("no_effect", redact(note), "remove the one that should not count");
    notes.without_effect.iter().chain(&notes.overridden).map(message).collect()
}

fn routing(examined: &ConfigReport) -> Vec<Finding> {
    let notes = &examined.warnings;
    let is_told =
        |note: &&String| !examined.misspelled_backends.iter().any(|problem| problem.to_string() == **note);
    let of_file = notes.backends.iter().filter(is_told).filter(|note| note.contains("legacy_mapping"));
    let message = |note: &String| {
        Finding::warn("routing", redact(note), "name a class that is configured, or remove the name")
    };
    of_file.chain(&notes.routing).map(message).collect()
}

fn tokens(config: &Config, owners: Option<&String>) -> Finding {
    let name = "tokens";
    let access = &config.access;
    if !access.auth_required {
        return Finding::ok(name, "none required (GATEWAY_AUTH=off, loopback only)");
    }
    let short: Vec<_> = access
        .tokens
        .iter()
        .filter(|token| token.secret.expose().chars().count() < MIN_TOKEN_CHARS)
        .map(|token| token.name.as_str())
        .collect();
    if !short.is_empty() {
        return Finding::warn(
            name,
            format!(
                "{} shorter than {MIN_TOKEN_CHARS} characters, and can be guessed: {}",
                are(short.len()),
                short.join(", ")
            ),
            "gateway token new NAME, and put the line that it prints into the env file",
        );
    }
    if let Some(note) = owners {
        let (message, fix) = note.rsplit_once("; ").unwrap_or((note, "name the tokens that see all"));
        return Finding::warn(name, message, format!("GATEWAY_OWNER_TOKENS=NAME in the env file: {fix}"));
    }
    Finding::ok(name, token_summary(&access.tokens.iter().map(AsRef::as_ref).collect::<Vec<_>>()))
}

fn are(count: usize) -> String {
    if count == 1 { "1 token is".to_owned() } else { format!("{count} tokens are") }
}

/// Who has one.
fn token_summary(tokens: &[&Token]) -> String {
    let unnamed = tokens.iter().filter(|token| !token.is_named()).count();
    let names: Vec<_> = tokens.iter().map(|token| token.name.as_str()).collect();
    let hint = if unnamed == 0 {
        String::new()
    } else {
        format!(" ({unnamed} without a name: `gateway token new NAME` makes a named one)")
    };
    format!(
        "{}: {}{hint}",
        if tokens.len() == 1 { "1 token".to_owned() } else { format!("{} tokens", tokens.len()) },
        names.join(", ")
    )
}

/// Whether a host to listen on is this machine's alone.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the allowlist leaves out the machine that it is on.
pub(super) fn leaves_out_this_machine(config: &Config) -> bool {
    let ranges = &config.access.api_ranges;
    !ranges.is_empty() && !is_in_ranges(IpAddr::from([127, 0, 0, 1]), ranges)
}

/// Who can come.
fn listener(config: &Config) -> Finding {
    let name = "listener";
    let (host, port) = &config.listen;
    let access = &config.access;
    let public: Option<Url> = config.public_base_url.as_deref().and_then(|url| url.parse().ok());
    let public_host = public.as_ref().and_then(Url::host_str);
    let behind_proxy = !access.trusted_proxies.is_empty();
    if access.trusted_proxies.iter().any(|range| range.prefix_len() == 0) {
        let message = "TRUST_PROXY_CIDRS trusts every address: any client can forge its address";
        return Finding::warn(name, message, "the proxy's own address in TRUST_PROXY_CIDRS");
    }
    if leaves_out_this_machine(config) {
        let message = "IP_ALLOWLIST excludes 127.0.0.1: programs on this machine, `gateway verify` and deploy.sh get 403";
        return Finding::warn(name, message, "127.0.0.1 and ::1 beside the others in IP_ALLOWLIST");
    }
    if is_loopback(host) && !behind_proxy && public_host.is_some_and(|public| !is_loopback(public)) {
        let message =
            format!("PUBLIC_BASE_URL points to another host, but the gateway listens on {host} only");
        return Finding::warn(
            name,
            message,
            "GATEWAY_HOST=0.0.0.0, or TRUST_PROXY_CIDRS with the proxy's address",
        );
    }
    if let Some(public) = public_host.filter(|public| !is_answered(config, public)) {
        let message = format!("PUBLIC_BASE_URL points to {public}, which the gateway refuses with 421");
        return Finding::warn(name, message, format!("GATEWAY_ALLOWED_HOSTS={public} in the env file"));
    }
    if matches!(config.tls, Tls::Off) && !is_loopback(host) && !behind_proxy {
        let message =
            format!("{host}:{port} serves plain HTTP: anyone on the network can read tokens and pictures");
        return Finding::warn(name, message, "GATEWAY_TLS=on in the env file, then restart");
    }
    let whom = if is_loopback(host) {
        "this machine only (for other machines: GATEWAY_HOST=0.0.0.0)"
    } else {
        "other machines"
    };
    Finding::ok(name, format!("{host}:{port}, open to {whom}"))
}

/// Whether the gateway answers to this name.
fn is_answered(config: &Config, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    is_address
        || is_private_name(&host)
        || config.access.guard.allowed_hosts.iter().any(|allowed| allowed.matches(&host))
}

fn images(config: &Config, nobody: Option<&str>) -> Option<Finding> {
    let name = "images";
    if config.images.engine == ImageEngine::Mock {
        let message = "IMAGES_BACKEND=mock: every picture is a placeholder";
        return Some(Finding::warn(
            name,
            message,
            "IMAGES_BACKEND=http_openai_images (from the package: sudo ./rollback.sh http)",
        ));
    }
    nobody.map(|note| {
        let (message, fix) = note.rsplit_once("; ").unwrap_or((note, "give the class a base_url"));
        Finding::warn(name, message, fix)
    })
}

fn limits(config: &Config) -> Option<Finding> {
    let time = config.images.timeout;
    (time >= NODE_CLIENT_TIMEOUT).then(|| {
        Finding::warn(
            "limits",
            format!(
                "IMAGES_HTTP_TIMEOUT_SEC is {} s, and Node's clients give up after 300 s without an answer",
                time.as_secs()
            ),
            "IMAGES_HTTP_TIMEOUT_SEC=280 in the env file",
        )
    })
}

#[cfg(test)]
mod tests;
