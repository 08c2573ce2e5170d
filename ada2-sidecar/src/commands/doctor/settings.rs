//! Settings that contradict each other or what the host has.

use std::{net::SocketAddr, time::Duration};

use service::{
    doctor::Finding,
    settings::{SettingSource, duration},
};

use super::fixes::FixHints;
use crate::{commands::systemd::SystemdUnit, config::Config};

const NAME: &str = "settings";
/// The gateway's `IMAGES_HTTP_TIMEOUT_SEC`, unless it is set.
const GATEWAY_TIMEOUT: Duration = Duration::from_secs(280);
const MIB: u64 = 1 << 20;

/// What is judged.
pub(super) struct SettingsFacts<'a> {
    pub(super) config: &'a Config,
    /// Where the socket unit listens, if it is what decides.
    pub(super) sockets: Option<&'a [SocketAddr]>,
    pub(super) service: Option<&'a SystemdUnit>,
    /// The card's memory in MiB.
    pub(super) gpu_memory_mib: Option<u64>,
    pub(super) fixes: &'a FixHints,
}

impl SettingsFacts<'_> {
    pub(super) fn evaluate(&self) -> Vec<Finding> {
        let found: Vec<_> =
            [self.listen(), self.open_access(), self.grace(), self.floor()].into_iter().flatten().collect();
        if found.is_empty() { vec![Finding::ok(NAME, self.notes())] } else { found }
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
            "sudo systemctl edit ada2-sidecar.socket, or take listen out of {}",
            self.fixes.file.display()
        );
        Some(Finding::warn(NAME, message, fix))
    }

    fn open_access(&self) -> Option<Finding> {
        let open = self.config.access.allow_from.iter().find(|range| range.prefix_len() == 0)?;
        let message = format!(
            "allow_from lets everybody in ({open}): whoever reaches this host can run workflows on it"
        );
        Some(Finding::warn(
            NAME,
            message,
            self.fixes.edit("name your own network in allow_from, or take it out, in"),
        ))
    }

    fn grace(&self) -> Option<Finding> {
        let limit = parse_time_span(self.service?.get("TimeoutStopUSec"))?;
        let grace = self.config.shutdown_grace;
        (grace >= limit).then(|| {
            let message = format!(
                "shutdown_grace is {} s, and systemd kills the service {} s after asking it to stop: running pictures are lost",
                grace.as_secs(),
                limit.as_secs()
            );
            Finding::warn(NAME, message, self.fixes.setting("shutdown_grace", "30s"))
        })
    }

    fn floor(&self) -> Option<Finding> {
        let (floor, card) = (self.config.min_free_vram / MIB, self.gpu_memory_mib?);
        (floor > card).then(|| {
            let message =
                format!("min_free_vram is {floor} MiB, more than the card has ({card} MiB): never ready");
            Finding::fail(NAME, message, self.fixes.setting("min_free_vram", "8GiB"))
        })
    }

    /// Nothing wrong, and worth knowing.
    fn notes(&self) -> String {
        let mut notes = vec!["none contradicts another".to_owned()];
        if self.config.request_timeout >= GATEWAY_TIMEOUT {
            notes.push(format!(
                "request_timeout is {} s: on the Mac IMAGES_HTTP_TIMEOUT_SEC (280 unless set) must be above it",
                self.config.request_timeout.as_secs()
            ));
        }
        if !self.config.warn_only.is_empty() {
            notes.push(format!("warn_only: {}", self.config.warn_only.join(", ")));
        }
        notes.join("; ")
    }
}

/// `45s`, `1min 30s`, as systemd writes them; none for `infinity`.
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

    fn judge(flags: &[&str], stop: &str, card: Option<u64>) -> Vec<Finding> {
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
    fn contradictions_are_told_each_with_its_setting() {
        use Verdict::{Fail, Ok, Warn};
        for (flags, stop, card, verdict, says) in [
            (&[][..], "45s", Some(46_068), Ok, "none contradicts"),
            (&[], "infinity", None, Ok, "none contradicts"),
            (&["--listen", "127.0.0.1:7999"], "45s", None, Warn, "listen (127.0.0.1:7999) has no effect"),
            (&["--listen", "0.0.0.0:7860"], "45s", None, Ok, "none"),
            (&["--allow-from", "0.0.0.0/0"], "45s", None, Warn, "lets everybody in (0.0.0.0/0)"),
            (&["--shutdown-grace", "90s"], "1min 30s", None, Warn, "shutdown_grace is 90 s"),
            (&["--min-free-vram", "48GiB"], "45s", Some(46_068), Fail, "more than the card has (46068 MiB)"),
            (&["--request-timeout", "10m"], "45s", None, Ok, "IMAGES_HTTP_TIMEOUT_SEC"),
            (&["--warn-only", "ecc"], "45s", None, Ok, "warn_only: ecc"),
        ] {
            let found = judge(flags, stop, card);
            assert_eq!((found.len(), found[0].verdict), (1, verdict), "{flags:?}: {found:?}");
            assert!(found[0].message.contains(says), "{found:?}");
        }
    }

    #[test]
    fn systemds_spans_are_read() {
        assert_eq!(parse_time_span("1min 30s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_time_span("45s"), Some(Duration::from_secs(45)));
        assert_eq!(parse_time_span("infinity"), None);
    }
}
