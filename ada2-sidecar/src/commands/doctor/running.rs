//! The service that runs: what it reports, and whether it is the installed version.

use std::{net::SocketAddr, path::Path};

use service::doctor::Finding;
use wire::health::{CheckStatus, ReadyReport};

use super::{configuration::DoctorContext, service_state::RESTART};
use crate::commands::{
    client::{SidecarClient, block_on, reachable, running_address},
    systemd::SystemdUnit,
};

/// The service that runs on this host.
pub(super) struct RunningService {
    pub(super) client: SidecarClient,
    pub(super) report: ReadyReport,
    /// `/metrics`.
    pub(super) metrics: Option<String>,
}

impl RunningService {
    /// None if it does not answer. A stopped service is not asked: a connection to its socket would start it.
    pub(super) fn query(context: &DoctorContext, addresses: &[SocketAddr]) -> Option<Self> {
        if context.units.as_ref().is_some_and(|units| !units.service.is_active()) {
            return None;
        }
        let listen_is_explicit = context.units.is_none() && context.listen_is_set;
        let reported = if listen_is_explicit { None } else { running_address(&context.sockets) };
        let client = SidecarClient::new(reported.or_else(|| addresses.first().map(reachable))?).ok()?;
        let (report, metrics) = block_on(async {
            let report = client.readiness().await.ok()?;
            let metrics = client.get("/metrics", false).await.ok().flatten();
            Some((report, metrics.map(|response| response.body)))
        })
        .ok()??;
        Some(Self { client, report, metrics })
    }

    /// Whether a check passes or warns.
    pub(super) fn passes(&self, name: &str) -> bool {
        let mut checks = self.report.checks.iter();
        checks
            .any(|check| check.name == name && matches!(check.status, CheckStatus::Pass | CheckStatus::Warn))
    }
}

/// A service that was upgraded and not restarted.
pub(super) struct VersionFacts {
    /// According to `/metrics`.
    pub(super) running: Option<String>,
    /// Whether its program file was replaced; none if this user may not know.
    pub(super) exe_replaced: Option<bool>,
    /// The package's upgrade was refused, and the previous version is still installed.
    pub(super) upgrade_refused: bool,
}

/// Where the package keeps a binary that it could not install.
const REFUSED_BINARY_DIR: &str = "/usr/lib/ada2-sidecar/refused";

impl VersionFacts {
    pub(super) fn gather(metrics: Option<&str>, service: Option<&SystemdUnit>) -> Self {
        let pid = service.map(|service| service.get("MainPID")).filter(|pid| !matches!(*pid, "" | "0"));
        let program = pid.and_then(|pid| std::fs::read_link(Path::new("/proc").join(pid).join("exe")).ok());
        let replaced = program.map(|program| program.to_string_lossy().ends_with(" (deleted)"));
        Self {
            running: metrics.and_then(parse_version),
            exe_replaced: replaced,
            upgrade_refused: Path::new(REFUSED_BINARY_DIR).exists(),
        }
    }

    pub(super) fn evaluate(&self) -> Option<Finding> {
        const NAME: &str = "version";
        let installed = env!("CARGO_PKG_VERSION");
        if self.upgrade_refused {
            let message =
                format!("an upgrade is incomplete: the previous version {installed} is still in place");
            return Some(Finding::fail(NAME, message, "sudo dpkg --configure ada2-sidecar"));
        }
        match (&self.running, self.exe_replaced) {
            (Some(running), _) if running != installed => {
                let message = format!("{running} runs, {installed} is installed");
                Some(Finding::warn(NAME, message, RESTART))
            }
            (_, Some(true)) => {
                let message =
                    format!("the program was replaced after the service started ({installed} is installed)");
                Some(Finding::warn(NAME, message, RESTART))
            }
            (Some(running), _) => Some(Finding::ok(NAME, format!("{running} runs and is installed"))),
            (None, _) => None,
        }
    }
}

/// Of `ada2_sidecar_build_info{version="0.1.0"} 1`.
fn parse_version(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| line.starts_with("ada2_sidecar_build_info{"))?;
    let (_, rest) = line.split_once("version=\"")?;
    rest.split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn a_service_that_was_not_restarted_after_an_upgrade_is_reported() {
        let metrics = "# HELP x\nada2_sidecar_build_info{version=\"0.0.9\"} 1\n";
        let judge = |running: Option<&str>, replaced| {
            VersionFacts {
                running: running.map(str::to_owned),
                exe_replaced: replaced,
                upgrade_refused: false,
            }
            .evaluate()
            .map(|finding| finding.verdict)
        };
        let unfinished =
            VersionFacts { running: None, exe_replaced: None, upgrade_refused: true }.evaluate().unwrap();
        let finish = Some("sudo dpkg --configure ada2-sidecar");
        assert_eq!((unfinished.verdict, unfinished.fix.as_deref()), (Verdict::Fail, finish));
        assert_eq!(parse_version(metrics).as_deref(), Some("0.0.9"));
        let own = Some(env!("CARGO_PKG_VERSION"));
        assert_eq!(judge(Some("0.0.9"), None), Some(Verdict::Warn));
        assert_eq!(judge(own, Some(true)), Some(Verdict::Warn));
        assert_eq!(judge(own, Some(false)), Some(Verdict::Ok));
        assert_eq!((judge(own, None), judge(None, None)), (Some(Verdict::Ok), None));
    }
}
