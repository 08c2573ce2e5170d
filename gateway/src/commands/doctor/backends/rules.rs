//! Findings about the backends. Pure.

use service::{doctor::Finding, text::shell_quoted};

use super::{BackendFacts, ClockOffset, HostAddresses};
use crate::{
    client::connect_error::is_local,
    health::state::{Evidence, ProbeFailure, Readiness, limit_warning},
};

/// Seconds; smaller differences do no harm.
const MAX_CLOCK_OFFSET: f64 = 5.0;
const PRIVACY: &str = "System Settings > Privacy & Security > Local Network: allow it for the gateway; or run it as a LaunchDaemon, which \
                       needs no permission: sudo ./install.sh (from the package)";
const DOCTOR: &str = "sudo ada2-sidecar doctor";
const LOGS: &str = "on that host: systemctl status ada2-sidecar; journalctl -u ada2-sidecar";

/// `reported_error` returns the running gateway's error for a class.
pub(in super::super) fn findings(
    all: &[BackendFacts],
    reported_error: &dyn Fn(&str) -> Option<String>,
    own_version: &str,
    is_mac: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for facts in all {
        findings.extend(address(facts, is_mac));
        findings.extend(backend(facts, is_mac));
        if facts.is_other_program() {
            continue;
        }
        findings.extend(facts.health.warnings.iter().map(|message| warning(facts, message)));
        findings.extend(limits(facts));
        findings.extend(clock(facts));
        findings.extend(version(facts, own_version));
        findings.extend(local_network(facts, reported_error(&facts.class), is_mac));
    }
    findings
}

/// Whether its name resolves.
fn address(facts: &BackendFacts, is_mac: bool) -> Option<Finding> {
    let name = "backend_address";
    let (class, host) = (&facts.class, &facts.host);
    match &facts.addresses {
        HostAddresses::Literal => None,
        HostAddresses::Resolved(found, silent) if silent.is_empty() => {
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            Some(Finding::ok(name, format!("{class}: {host} is {}", found.join(", "))))
        }
        HostAddresses::Resolved(found, silent) => {
            let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
            Some(Finding::warn(
                name,
                format!(
                    "{class}: {host} has {} addresses, and {} does not answer: new connections are slow",
                    found.len(),
                    silent.join(", ")
                ),
                format!("the address that answers in place of {host} in backends_config.yaml"),
            ))
        }
        HostAddresses::Unresolved(other) => {
            let message = format!("{class}: the name {host} does not resolve");
            let fix = match other {
                Some(other) => format!(
                    "{other}, which resolves, in place of {host} in backends_config.yaml (or ADA2_HOST={other})"
                ),
                None if host.strip_suffix(".local").is_some() && !is_mac => {
                    "sudo apt install libnss-mdns, or the host's IP address in backends_config.yaml"
                        .to_owned()
                }
                None => {
                    "check the name, or put the host's IP address into backends_config.yaml (or ADA2_HOST)"
                        .to_owned()
                }
            };
            Some(Finding::fail(name, message, fix))
        }
        HostAddresses::TimedOut => Some(Finding::fail(
            name,
            format!("{class}: looking up {host} took more than 5 s"),
            "check the name server (macOS: scutil --dns), or put the host's IP address into backends_config.yaml",
        )),
    }
}

fn backend(facts: &BackendFacts, is_mac: bool) -> Option<Finding> {
    let (name, class, origin) = ("backend", &facts.class, &facts.origin);
    match &facts.evidence {
        // Reported as `backend_address`.
        _ if matches!(facts.addresses, HostAddresses::Unresolved(_) | HostAddresses::TimedOut) => None,
        Evidence::Answered(_) if facts.health.ready => {
            let gpu = facts.health.gpu().map(|gpu| format!(", {}", gpu.name)).unwrap_or_default();
            Some(Finding::ok(name, format!("{class} at {origin} is ready{gpu}")))
        }
        Evidence::Answered(_) if facts.is_other_program() => {
            let why = facts.health.error.as_deref().unwrap_or("it does not say why");
            Some(Finding::fail(
                name,
                format!("{class}: no sidecar answers at {origin}, but another program: {why}"),
                format!("correct its base_url in backends_config.yaml; or on that host: {DOCTOR}"),
            ))
        }
        Evidence::Answered(_) => {
            let why = facts.health.error.as_deref().unwrap_or("it does not say why");
            let message = format!("{class} at {origin} is not ready: {why}");
            Some(Finding::fail(name, message, facts.fix(&facts.readyz(), "read its own log")))
        }
        _ => unanswered(facts, is_mac),
    }
}

/// Why it gives no answer.
fn unanswered(facts: &BackendFacts, is_mac: bool) -> Option<Finding> {
    let (name, class, origin) = ("backend", &facts.class, &facts.origin);
    let may_be_blocked = is_mac && is_local(&facts.host);
    let privacy = if may_be_blocked { format!("; if that works: {PRIVACY}") } else { String::new() };
    let ping = format!("is it on? ping {}{privacy}", shell_quoted(&facts.host));
    Some(match &facts.evidence {
        Evidence::Answered(_) | Evidence::ProbeFailed(ProbeFailure::Unresolved(_)) => return None,
        Evidence::Refused => {
            let fix = facts.fix(LOGS, "start it, or remove it from backends_config.yaml (base_url: \"\")");
            Finding::fail(name, format!("{class}: nothing listens at {origin}"), fix)
        }
        Evidence::NoRoute(_) if may_be_blocked => {
            let message =
                format!("{class}: no route to {origin}: it is off, or macOS blocks the local network");
            Finding::fail(name, message, ping)
        }
        Evidence::NoRoute(_) => Finding::fail(name, format!("{class}: no route to {origin}"), ping),
        Evidence::ProbeFailed(ProbeFailure::TimedOut) => {
            let message = format!(
                "{class}: no answer from {origin} within 5 s: it is off, hangs, or a firewall drops packets"
            );
            Finding::fail(name, message, ping)
        }
        Evidence::ProbeFailed(ProbeFailure::NoDescriptor) => {
            Finding::skip(name, format!("{class}: this process has no file descriptor left"))
        }
        Evidence::ProbeFailed(ProbeFailure::Broken) => Finding::fail(
            name,
            format!(
                "{class}: {origin} closed the connection without an answer (another protocol, or a TLS error)"
            ),
            "check the scheme and port of its base_url, and BACKEND_CA_BUNDLE for https",
        ),
    })
}

impl BackendFacts {
    /// The fix for the images backend, or for another.
    fn fix(&self, images: &str, other: &str) -> String {
        if self.makes_images { images.to_owned() } else { other.to_owned() }
    }

    /// Whether another program answers in place of the sidecar.
    fn is_other_program(&self) -> bool {
        let is_report = matches!(&self.evidence, Evidence::Answered(report) if matches!(report.readiness, Readiness::Report(_)));
        self.makes_images
            && matches!(self.evidence, Evidence::Answered(_))
            && !is_report
            && !self.health.ready
    }

    /// The command that shows its sidecar's checks.
    fn readyz(&self) -> String {
        format!("curl '{}/readyz?verbose' says what to do", self.origin)
    }
}

fn warning(facts: &BackendFacts, message: &str) -> Finding {
    if message.starts_with("wrong probe") {
        let (message, fix) =
            message.split_once("; ").unwrap_or((message, "name its own path under `health`"));
        return Finding::warn("probe_path", format!("{}: {message}", facts.class), fix);
    }
    Finding::warn("backend_warning", format!("{}: {message}", facts.class), facts.readyz())
}

fn limits(facts: &BackendFacts) -> Option<Finding> {
    let message = limit_warning(facts.limit, facts.health.max_inflight)?;
    let max_inflight = facts.health.max_inflight?;
    let message = message.split(';').next().unwrap_or(&message).to_owned();
    let fix = format!(
        "concurrency_limits: {{images: {max_inflight}}} for {} in backends_config.yaml, or a higher max_inflight on the sidecar",
        facts.class
    );
    Some(Finding::warn("limits", format!("{}: {message}", facts.class), fix))
}

fn clock(facts: &BackendFacts) -> Option<Finding> {
    let name = "clock";
    let ClockOffset(least, most) = facts.clock?;
    let (offset, direction) = match (least, most) {
        (least, _) if least > MAX_CLOCK_OFFSET => (least, "ahead of"),
        (_, most) if most < -MAX_CLOCK_OFFSET => (-most, "behind"),
        _ => {
            return Some(Finding::ok(
                name,
                format!("{}: clock within {MAX_CLOCK_OFFSET} s of this machine's", facts.class),
            ));
        }
    };
    Some(Finding::warn(
        name,
        format!("{}: clock {offset:.0} s {direction} this machine's", facts.class),
        "timedatectl set-ntp true on a Linux host; sudo systemsetup -setusingnetworktime on, on a Mac",
    ))
}

/// Both programs are released together; versions that differ only in the last number are compatible.
fn version(facts: &BackendFacts, own: &str) -> Option<Finding> {
    let name = "sidecar_version";
    let theirs = facts.version.as_deref()?;
    let series = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    Some(if series(theirs) == series(own) {
        Finding::ok(name, format!("{}: sidecar {theirs}, gateway {own}", facts.class))
    } else {
        Finding::warn(
            name,
            format!("{}: the sidecar is {theirs}, the gateway {own}", facts.class),
            "upgrade the older one: both are released together",
        )
    })
}

/// If this command reaches the backend and the gateway does not, macOS blocks the gateway's program.
fn local_network(facts: &BackendFacts, reported_error: Option<String>, is_mac: bool) -> Option<Finding> {
    let error = reported_error?;
    let is_unreachable =
        ["no route to host", "timed out", "cannot be resolved"].iter().any(|part| error.contains(part));
    let reaches = matches!(facts.evidence, Evidence::Answered(_));
    (is_mac && reaches && is_unreachable && is_local(&facts.host)).then(|| {
        Finding::fail(
            "local_network",
            format!(
                "{}: this command reaches {}, but the running gateway does not ({error}): macOS Local Network Privacy blocks the \
                 gateway",
                facts.class, facts.host
            ),
            PRIVACY,
        )
    })
}

/// The legacy upstream.
pub(in super::super) fn legacy(answer: &Result<String, String>) -> Finding {
    let name = "legacy_upstream";
    match answer {
        Ok(address) => Finding::ok(name, format!("{address} answers")),
        Err(why) => Finding::fail(
            name,
            format!("the old gateway does not answer: {why}"),
            "start it, or remove GATEWAY_LEGACY_UPSTREAM from the env file",
        ),
    }
}

#[cfg(test)]
mod tests;
