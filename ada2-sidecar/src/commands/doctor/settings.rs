//! Settings that conflict with each other, the units or the card.

use std::{net::SocketAddr, time::Duration};

use service::{
    doctor::Finding,
    settings::{SettingSource, duration},
};

use super::fixes::FixHints;
use crate::{commands::systemd::SystemdUnit, config::Config};

const NAME: &str = "settings";
/// The default of the gateway's `IMAGES_HTTP_TIMEOUT_SEC`.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(280);
const MIB: u64 = 1 << 20;

/// The facts.
pub(super) struct SettingsFacts<'a> {
    pub(super) config: &'a Config,
    /// The addresses of the socket unit, if there is one.
    pub(super) sockets: Option<&'a [SocketAddr]>,
    pub(super) service: Option<&'a SystemdUnit>,
    pub(super) gpu_memory_mib: Option<u64>,
    pub(super) fixes: &'a FixHints,
}

impl SettingsFacts<'_> {
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let problems: Vec<_> =
            [self.listen(), self.open_access(), self.shutdown_grace(), self.min_free_vram()]
                .into_iter()
                .flatten()
                .collect();
        if problems.is_empty() { vec![Finding::ok(NAME, self.summary())] } else { problems }
    }

    fn listen(&self) -> Option<Finding> {
        let sockets = self.sockets.filter(|sockets| !sockets.is_empty())?;
        let listen = &self.config.listen;
        let same = listen.len() == sockets.len() && listen.iter().all(|one| sockets.contains(one));
        if self.config.listen_source == SettingSource::Default || same {
            return None;
        }
        let all = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let message = format!(
            "listen ({}) has no effect: ada2-sidecar.socket listens at {}",
            all(listen),
            all(sockets)
        );
        let fix = format!(
            "sudo systemctl edit ada2-sidecar.socket, or remove listen from {}",
            self.fixes.file.display()
        );
        Some(Finding::warn(NAME, message, fix))
    }

    fn open_access(&self) -> Option<Finding> {
        let range = self.config.allow_from.iter().find(|range| range.prefix_len() == 0)?;
        let message = format!(
            "allow_from admits everybody ({range}): any client that reaches this host can run workflows on it"
        );
        Some(Finding::warn(
            NAME,
            message,
            self.fixes.edit("set allow_from to your own network, or remove it, in"),
        ))
    }

    fn shutdown_grace(&self) -> Option<Finding> {
        let limit = parse_time_span(self.service?.get("TimeoutStopUSec"))?;
        let grace = self.config.shutdown_grace;
        (grace >= limit).then(|| {
            let message = format!(
                "shutdown_grace is {} s, but systemd kills the service after {} s: running images are lost",
                grace.as_secs(),
                limit.as_secs()
            );
            Finding::warn(NAME, message, self.fixes.setting("shutdown_grace", "30s"))
        })
    }

    fn min_free_vram(&self) -> Option<Finding> {
        let (min_free, total) = (self.config.min_free_vram / MIB, self.gpu_memory_mib?);
        (min_free > total).then(|| {
            let message =
                format!("min_free_vram is {min_free} MiB, more than the card has ({total} MiB): never ready");
            Finding::fail(NAME, message, self.fixes.setting("min_free_vram", "8GiB"))
        })
    }

    /// What is not wrong, but worth knowing.
    fn summary(&self) -> String {
        let mut parts = vec!["no conflicting settings".to_owned()];
        if self.config.request_timeout >= GATEWAY_TIMEOUT {
            parts.push(format!(
                "request_timeout is {} s: the gateway's IMAGES_HTTP_TIMEOUT_SEC (default 280) must be longer",
                self.config.request_timeout.as_secs()
            ));
        }
        if !self.config.warn_only.is_empty() {
            parts.push(format!("warn_only: {}", self.config.warn_only.join(", ")));
        }
        parts.join("; ")
    }
}

/// Of `45s` or `1min 30s`, as systemd prints them; none for `infinity`.
fn parse_time_span(text: &str) -> Option<Duration> {
    text.split_whitespace().try_fold(Duration::ZERO, |sum, part| {
        let part = match part.strip_suffix("min") {
            Some(minutes) => format!("{minutes}m"),
            None => part.to_owned(),
        };
        Some(sum + duration(&part)?)
    })
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    fn evaluate(flags: &[&str], stop: &str, card: Option<u64>) -> Vec<Finding> {
        let all = [&["ada2-sidecar", "--engine", "builtin"], flags].concat();
        let flags = crate::cli::command().get_matches_from(all);
        let config = crate::config::load_for_reload(&flags, &|_| None, &[]).unwrap().config;
        let service = SystemdUnit::parse("ada2-sidecar.service", &format!("TimeoutStopUSec={stop}"));
        let fixes = FixHints { file: "/etc/c.yaml".into(), managed_by_unit: true };
        let sockets = ["0.0.0.0:7860".parse().unwrap()];
        SettingsFacts {
            config: &config,
            sockets: Some(&sockets),
            service: Some(&service),
            gpu_memory_mib: card,
            fixes: &fixes,
        }
        .evaluate()
    }

    #[test]
    fn each_conflict_is_reported_with_its_setting() {
        use Verdict::{Fail, Ok, Warn};
        for (flags, stop, card, verdict, expected) in [
            (&[][..], "45s", Some(46_068), Ok, "no conflicting"),
            (&[], "infinity", None, Ok, "no conflicting"),
            (&["--listen", "127.0.0.1:7999"], "45s", None, Warn, "listen (127.0.0.1:7999) has no effect"),
            (&["--listen", "0.0.0.0:7860"], "45s", None, Ok, "no conflicting"),
            (&["--allow-from", "0.0.0.0/0"], "45s", None, Warn, "admits everybody (0.0.0.0/0)"),
            (&["--shutdown-grace", "90s"], "1min 30s", None, Warn, "shutdown_grace is 90 s"),
            (&["--min-free-vram", "48GiB"], "45s", Some(46_068), Fail, "more than the card has (46068 MiB)"),
            (&["--request-timeout", "10m"], "45s", None, Ok, "IMAGES_HTTP_TIMEOUT_SEC"),
            (&["--warn-only", "ecc"], "45s", None, Ok, "warn_only: ecc"),
        ] {
            let findings = evaluate(flags, stop, card);
            assert_eq!((findings.len(), findings[0].verdict), (1, verdict), "{flags:?}: {findings:?}");
            assert!(findings[0].message.contains(expected), "{findings:?}");
        }
    }

    #[test]
    fn time_spans_of_systemd_are_read() {
        assert_eq!(parse_time_span("1min 30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_time_span("45s"), Some(Duration::from_secs(45)));
        assert_eq!(parse_time_span("infinity"), None);
    }
}
