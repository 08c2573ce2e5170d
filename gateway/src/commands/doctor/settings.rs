//! The configuration: problems, settings without effect, and contradictions.

mod secrets;

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::Url;
use service::{
    client_info::is_in_ranges,
    doctor::Finding,
    guard::is_private_name,
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
/// Node's clients give up after this time without an answer.
const NODE_CLIENT_TIMEOUT: Duration = Duration::from_mins(5);
/// These paths have checks of their own.
const PATH_SETTINGS: [&str; 3] = ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"];

/// `readable_by` is the command that can read the env file if this account cannot.
pub(super) fn findings(report: &ConfigReport, readable_by: Option<&str>) -> Vec<Finding> {
    let (name, env) = ("configuration", report.env.path.display());
    if let Some(command) = readable_by {
        let message = format!("you cannot read {env}, and most checks need it; run: {command}");
        return vec![Finding::skip(name, message)];
    }
    let problems = report.problems.iter().filter(|problem| !PATH_SETTINGS.contains(&problem.source.as_str()));
    let mut findings: Vec<_> = problems.map(|problem| problem_finding(problem, &env.to_string())).collect();
    if let (Some(_), true) = (&report.config, findings.is_empty()) {
        findings.push(Finding::ok(name, summary(report)));
    }
    findings.extend(report.misspelled.iter().chain(&report.misspelled_backends).map(misspelling));
    findings.extend(without_effect(report));
    if let Some(config) = &report.config {
        findings.push(tokens(config, report.warnings.owners.first()));
        findings.push(listener(config));
        findings.extend(images(config, report.warnings.images.as_deref()));
        findings.extend(limits(config));
        findings.extend(routing(report));
    }
    findings
}

fn problem_finding(problem: &Problem, env: &str) -> Finding {
    // Possibly the cause of the other problems.
    if problem.expected.starts_with("is not a setting") {
        return misspelling(problem);
    }
    let fix = if problem.source == SettingSource::Default.to_string() {
        format!("set {} in {env}", problem.key)
    } else {
        format!("correct {} in {}", problem.key, problem.source)
    };
    Finding::fail("configuration", problem.to_string(), format!("{fix}, then: gateway check-config"))
}

fn misspelling(problem: &Problem) -> Finding {
    let message = format!("{}: {} {}", problem.source, problem.key, problem.expected);
    Finding::warn("spelling", message, format!("rename {} in {}", problem.key, problem.source))
}

/// The files that were read.
fn summary(report: &ConfigReport) -> String {
    let env = &report.env.path;
    let env = if env.exists() { env.display().to_string() } else { format!("{} (not found)", env.display()) };
    let backends = report
        .backends_file()
        .map_or_else(|| "the built-in backends".to_owned(), |path| path.display().to_string());
    let files = format!("valid: {env}, {backends}");
    let warnings = report.warnings.foreign.iter().chain(&report.warnings.disabled_backends);
    [&files].into_iter().chain(warnings).map(|text| redact(text)).collect::<Vec<_>>().join("; ")
}

fn without_effect(report: &ConfigReport) -> Vec<Finding> {
    let warnings = report.warnings.without_effect.iter().chain(&report.warnings.overridden);
    let fix = "remove the one that should not apply";
    warnings.map(|warning| Finding::warn("no_effect", redact(warning), fix)).collect()
}

fn routing(report: &ConfigReport) -> Vec<Finding> {
    let is_reported =
        |warning: &String| report.misspelled_backends.iter().any(|problem| problem.to_string() == *warning);
    let of_file = report.warnings.backends.iter();
    let of_file = of_file.filter(|warning| !is_reported(warning) && warning.contains("legacy_mapping"));
    let fix = "name a configured class, or remove the name";
    of_file
        .chain(&report.warnings.routing)
        .map(|warning| Finding::warn("routing", redact(warning), fix))
        .collect()
}

/// `owners` is the warning about `GATEWAY_OWNER_TOKENS`.
fn tokens(config: &Config, owners: Option<&String>) -> Finding {
    let name = "tokens";
    let access = &config.access;
    if !access.auth_required {
        return Finding::ok(name, "none required (GATEWAY_AUTH=off, loopback only)");
    }
    let is_short = |token: &&Arc<Token>| token.secret.expose().chars().count() < MIN_TOKEN_CHARS;
    let short: Vec<_> = access.tokens.iter().filter(is_short).map(|token| token.name.as_str()).collect();
    if !short.is_empty() {
        let are =
            if short.len() == 1 { "1 token is".to_owned() } else { format!("{} tokens are", short.len()) };
        return Finding::warn(
            name,
            format!(
                "{are} shorter than {MIN_TOKEN_CHARS} characters and can be guessed: {}",
                short.join(", ")
            ),
            "gateway token new NAME, and put the line that it prints into the env file",
        );
    }
    if let Some(warning) = owners {
        let (message, fix) = warning.rsplit_once("; ").unwrap_or((warning, "name the tokens that see all"));
        return Finding::warn(name, message, format!("GATEWAY_OWNER_TOKENS=NAME in the env file: {fix}"));
    }
    Finding::ok(name, token_summary(&access.tokens))
}

fn token_summary(tokens: &[Arc<Token>]) -> String {
    let unnamed = tokens.iter().filter(|token| !token.is_named()).count();
    let names: Vec<_> = tokens.iter().map(|token| token.name.as_str()).collect();
    let hint = if unnamed == 0 {
        String::new()
    } else {
        format!(" ({unnamed} without a name: `gateway token new NAME` creates a named one)")
    };
    format!(
        "{}: {}{hint}",
        if tokens.len() == 1 { "1 token".to_owned() } else { format!("{} tokens", tokens.len()) },
        names.join(", ")
    )
}

/// Whether only this machine can connect to that host.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether the allowlist excludes this machine itself.
pub(super) fn leaves_out_this_machine(config: &Config) -> bool {
    let ranges = &config.access.api_ranges;
    !ranges.is_empty() && !is_in_ranges(IpAddr::from([127, 0, 0, 1]), ranges)
}

/// Which clients can connect.
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
        return Finding::warn(name, message, "add 127.0.0.1 and ::1 to IP_ALLOWLIST");
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
    if let Some(public) = public_host.filter(|public| !accepts_host(config, public)) {
        let message = format!("PUBLIC_BASE_URL points to {public}, which the gateway refuses with 421");
        return Finding::warn(name, message, format!("GATEWAY_ALLOWED_HOSTS={public} in the env file"));
    }
    if matches!(config.tls, Tls::Off) && !is_loopback(host) && !behind_proxy {
        let message =
            format!("{host}:{port} serves plain HTTP: anyone on the network can read tokens and images");
        return Finding::warn(name, message, "GATEWAY_TLS=on in the env file, then restart");
    }
    let clients = if is_loopback(host) {
        "this machine only (for other machines: GATEWAY_HOST=0.0.0.0)"
    } else {
        "other machines"
    };
    Finding::ok(name, format!("{host}:{port}, open to {clients}"))
}

/// Whether the gateway accepts this `Host`.
fn accepts_host(config: &Config, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    is_address
        || is_private_name(&host)
        || config.access.guard.allowed_hosts.iter().any(|allowed| allowed.matches(&host))
}

/// `warning` says that no backend makes images.
fn images(config: &Config, warning: Option<&str>) -> Option<Finding> {
    let name = "images";
    if config.images.engine == ImageEngine::Mock {
        let message = "IMAGES_BACKEND=mock: every image is a placeholder";
        return Some(Finding::warn(
            name,
            message,
            "IMAGES_BACKEND=http_openai_images (from the package: sudo ./rollback.sh http)",
        ));
    }
    warning.map(|warning| {
        let (message, fix) = warning.rsplit_once("; ").unwrap_or((warning, "give the class a base_url"));
        Finding::warn(name, message, fix)
    })
}

fn limits(config: &Config) -> Option<Finding> {
    let timeout = config.images.timeout;
    (timeout >= NODE_CLIENT_TIMEOUT).then(|| {
        Finding::warn(
            "limits",
            format!(
                "IMAGES_HTTP_TIMEOUT_SEC is {} s, but Node's clients give up after 300 s without an answer",
                timeout.as_secs()
            ),
            "IMAGES_HTTP_TIMEOUT_SEC=280 in the env file",
        )
    })
}

#[cfg(test)]
mod tests;
