//! What is wrong with the servers behind. Pure.

use service::doctor::Finding;

use super::{super::escaped, BackendFacts, ClockOffset, HostAddresses};
use crate::{
    client::connect_error::is_local,
    health::state::{Evidence, ProbeFailure, Readiness, limit_warning},
};

/// Clocks that are less apart disturb nobody.
const MAX_CLOCK_OFFSET: f64 = 5.0;
const PRIVACY: &str = "System Settings > Privacy & Security > Local Network: allow it for the gateway; or run it as a LaunchDaemon, which \
                       needs no permission: sudo ./install.sh (from the package)";
const DOCTOR: &str = "sudo ada2-sidecar doctor";
const LOGS: &str = "on that host: systemctl status ada2-sidecar; journalctl -u ada2-sidecar";

/// What is wrong with them. `gateway_sees` is what the running gateway says of each class: an error, or nothing.
pub(in super::super) fn findings(
    all: &[BackendFacts],
    gateway_sees: &dyn Fn(&str) -> Option<String>,
    own_version: &str,
    is_mac: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for seen in all {
        findings.extend(address(seen, is_mac));
        findings.extend(backend(seen, is_mac));
        if seen.is_other_program() {
            continue;
        }
        findings.extend(seen.health.warnings.iter().map(|message| warning(seen, message)));
        findings.extend(limits(seen));
        findings.extend(clock(seen));
        findings.extend(version(seen, own_version));
        findings.extend(local_network(seen, gateway_sees(&seen.class), is_mac));
    }
    findings
}

/// A name that leads nowhere is why its backend does not answer.
fn address(seen: &BackendFacts, is_mac: bool) -> Option<Finding> {
    let name = "backend_address";
    let (class, host) = (&seen.class, escaped(&seen.host));
    match &seen.addresses {
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
                    "{class}: {host} has {} addresses, of which {} does not answer: new connections are slow",
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

fn backend(seen: &BackendFacts, is_mac: bool) -> Option<Finding> {
    let (name, class, origin) = ("backend", &seen.class, &seen.origin);
    match &seen.evidence {
        // That is reported of its address.
        _ if matches!(seen.addresses, HostAddresses::Unresolved(_) | HostAddresses::TimedOut) => None,
        Evidence::Answered(_) if seen.health.ready => {
            let gpu =
                seen.health.gpu.as_ref().map(|gpu| format!(", {}", escaped(&gpu.name))).unwrap_or_default();
            Some(Finding::ok(name, format!("{class} at {origin} is ready{gpu}")))
        }
        Evidence::Answered(_) if seen.is_other_program() => {
            let why = seen.health.error.as_deref().unwrap_or("it does not say why");
            Some(Finding::fail(
                name,
                format!("{class}: no sidecar answers at {origin}, but another program: {}", escaped(why)),
                format!("correct its base_url in backends_config.yaml; or on that host: {DOCTOR}"),
            ))
        }
        Evidence::Answered(_) => {
            let why = seen.health.error.as_deref().unwrap_or("it does not say why");
            let message = format!("{class} at {origin} is not ready: {}", escaped(why));
            Some(Finding::fail(name, message, seen.fix(&seen.readyz(), "read its own log")))
        }
        _ => unanswered(seen, is_mac),
    }
}

/// One that gives no answer.
fn unanswered(seen: &BackendFacts, is_mac: bool) -> Option<Finding> {
    let (name, class, origin) = ("backend", &seen.class, &seen.origin);
    let is_withheld = is_mac && is_local(&seen.host);
    let privacy = if is_withheld { format!("; if that works: {PRIVACY}") } else { String::new() };
    let ping = format!("is it on? ping {}{privacy}", escaped(&seen.host));
    Some(match &seen.evidence {
        Evidence::Answered(_) | Evidence::ProbeFailed(ProbeFailure::Unresolved(_)) => return None,
        Evidence::Refused => {
            let fix = seen.fix(LOGS, "start it, or take it out of backends_config.yaml (base_url: \"\")");
            Finding::fail(name, format!("{class}: nothing listens at {origin}"), fix)
        }
        Evidence::NoRoute(_) if is_withheld => {
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
            Finding::skip(name, format!("{class}: no file descriptor is left here"))
        }
        Evidence::ProbeFailed(ProbeFailure::Broken) => Finding::fail(
            name,
            format!(
                "{class}: {origin} closed the connection without an answer (another protocol, or a TLS fault)"
            ),
            "check the scheme and port of its base_url, and BACKEND_CA_BUNDLE where it is https",
        ),
    })
}

impl BackendFacts {
    /// What is done on the graphics host, or elsewhere.
    fn fix(&self, images: &str, other: &str) -> String {
        if self.makes_images { images.to_owned() } else { other.to_owned() }
    }

    /// Whether something else than a sidecar answers where pictures are to come from, and cannot make any.
    fn is_other_program(&self) -> bool {
        let is_report = matches!(&self.evidence, Evidence::Answered(seen) if matches!(seen.readiness, Readiness::Report(_)));
        self.makes_images
            && matches!(self.evidence, Evidence::Answered(_))
            && !is_report
            && !self.health.ready
    }

    /// The command that shows what its sidecar reports.
    fn readyz(&self) -> String {
        format!("curl '{}/readyz?verbose' says what to do", self.origin)
    }
}

fn warning(seen: &BackendFacts, message: &str) -> Finding {
    let message = escaped(message);
    if message.starts_with("wrong probe") {
        let (message, fix) =
            message.split_once("; ").unwrap_or((&message, "name its own path under `health`"));
        return Finding::warn("probe_path", format!("{}: {message}", seen.class), fix);
    }
    Finding::warn("backend_warning", format!("{}: {message}", seen.class), seen.readyz())
}

fn limits(seen: &BackendFacts) -> Option<Finding> {
    let message = limit_warning(seen.limit, seen.health.max_inflight)?;
    let most = seen.health.max_inflight?;
    let message = message.split(';').next().unwrap_or(&message).to_owned();
    let fix = format!(
        "concurrency_limits: {{images: {most}}} for {} in backends_config.yaml, or a higher max_inflight on the sidecar",
        seen.class
    );
    Some(Finding::warn("limits", format!("{}: {message}", seen.class), fix))
}

fn clock(seen: &BackendFacts) -> Option<Finding> {
    let name = "clock";
    let ClockOffset(least, most) = seen.clock?;
    let (apart, which) = match (least, most) {
        (least, _) if least > MAX_CLOCK_OFFSET => (least, "ahead of"),
        (_, most) if most < -MAX_CLOCK_OFFSET => (-most, "behind"),
        _ => {
            return Some(Finding::ok(
                name,
                format!("{}: clock within {MAX_CLOCK_OFFSET} s of this machine's", seen.class),
            ));
        }
    };
    Some(Finding::warn(
        name,
        format!("{}: clock {apart:.0} s {which} this machine's", seen.class),
        "timedatectl set-ntp true on a Linux host; sudo systemsetup -setusingnetworktime on, on a Mac",
    ))
}

/// The programs are released together; what differs in the last figure goes together.
fn version(seen: &BackendFacts, own: &str) -> Option<Finding> {
    let name = "sidecar_version";
    let theirs = seen.version.as_deref()?;
    let kin = |version: &str| version.split('.').take(2).map(str::to_owned).collect::<Vec<_>>();
    Some(if kin(theirs) == kin(own) {
        Finding::ok(name, format!("{}: sidecar {theirs}, gateway {own}", seen.class))
    } else {
        Finding::warn(
            name,
            format!("{}: the sidecar is {theirs}, the gateway {own}", seen.class),
            "upgrade the older one: both are released together",
        )
    })
}

/// This command reaches the backend and the gateway does not: something stands between that looks at the program.
fn local_network(seen: &BackendFacts, gateway_sees: Option<String>, is_mac: bool) -> Option<Finding> {
    let message = gateway_sees?;
    let is_kept_from =
        ["no route to host", "timed out", "cannot be resolved"].iter().any(|part| message.contains(part));
    let reaches = matches!(seen.evidence, Evidence::Answered(_));
    (is_mac && reaches && is_kept_from && is_local(&seen.host)).then(|| {
        Finding::fail(
            "local_network",
            format!(
                "{}: this command reaches {}, and the running gateway does not ({}): macOS's Local Network Privacy keeps it from there",
                seen.class,
                escaped(&seen.host),
                escaped(&message)
            ),
            PRIVACY,
        )
    })
}

/// The old gateway behind.
pub(in super::super) fn legacy(asked: &Result<String, String>) -> Finding {
    let name = "legacy_upstream";
    match asked {
        Ok(place) => Finding::ok(name, format!("{place} answers")),
        Err(why) => Finding::fail(
            name,
            format!("the old gateway does not answer: {why}"),
            "start it, or remove GATEWAY_LEGACY_UPSTREAM from the env file",
        ),
    }
}

#[cfg(test)]
mod tests;
