//! The gateway's certificate: expiry, names, whether it is the configured one, and whether this Mac trusts it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use service::doctor::Finding;

use super::{
    launchd::{RELOAD, RESTART},
    quoted,
    tools::{CommandOutput, SystemTools},
};
use crate::{
    blocking::blocking,
    config::Config,
    tls::{
        Tls,
        files::format_date,
        inspect::{CertificateInfo, StoredCertificate, inspect},
        local_ca,
    },
};

/// A running gateway renews its own certificate 30 days before it expires.
const RENEWAL_OVERDUE: Duration = Duration::from_hours(24 * 25);
/// The check of the running gateway's certificate.
pub(super) const SERVED_CHECK: &str = "certificate_shown";

#[derive(Debug)]
pub(super) enum ConfiguredCertificate {
    /// Plain HTTP.
    Off,
    /// The user's, with its file.
    Pair(CertificateInfo, PathBuf),
    /// The one in the data directory.
    SelfMade(StoredCertificate, PathBuf),
    /// It cannot be read, which the check of the configuration reports.
    Unknown,
}

impl ConfiguredCertificate {
    /// `path` is the configured file.
    pub(super) async fn inspect(config: Option<&Config>, path: Option<&str>) -> Self {
        let now = SystemTime::now();
        match config.map(|config| (&config.tls, config.data_dir.clone())) {
            None => Self::Unknown,
            Some((Tls::Off, _)) => Self::Off,
            Some((Tls::Pair(pair), _)) => match CertificateInfo::from_chain(&pair.cert, now) {
                Some(pair) => Self::Pair(pair, path.unwrap_or_default().into()),
                None => Self::Unknown,
            },
            Some((Tls::LocalCa, dir)) => {
                let data_dir = dir.clone();
                Self::SelfMade(blocking(move || inspect(&data_dir, now)).await, dir)
            }
        }
    }

    /// The certificate that clients should get.
    pub(super) fn own(&self) -> Option<&CertificateInfo> {
        match self {
            Self::Pair(pair, _) | Self::SelfMade(StoredCertificate::UserProvided(pair, _), _) => Some(pair),
            Self::SelfMade(StoredCertificate::Issued { certificate, .. }, _) => Some(certificate),
            _ => None,
        }
    }

    /// Whether it cannot be read from this account, or at all.
    pub(super) const fn is_hidden(&self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::SelfMade(StoredCertificate::Unreadable(_) | StoredCertificate::Damaged(_), _)
        )
    }

    /// The local authority's certificate, and whether macOS trusts it.
    pub(super) async fn trust(&self, tools: &SystemTools) -> Option<(PathBuf, CommandOutput)> {
        // Which clients trust the user's own certificate is their business.
        let Self::SelfMade(StoredCertificate::Issued { .. }, dir) = self else { return None };
        let path = dir.join(local_ca::CA_CERT_FILE);
        let output = tools.run("security", &["verify-cert", "-L", "-p", "basic", "-c", path.to_str()?]).await;
        Some((path, output))
    }
}

/// `served` is the running gateway's certificate, `public_host` the host of `PUBLIC_BASE_URL`.
pub(super) fn findings(
    configured: &ConfiguredCertificate,
    served: Option<&CertificateDer<'_>>,
    public_host: Option<&str>,
    now: SystemTime,
) -> Vec<Finding> {
    let name = "certificate";
    let finding = match configured {
        ConfiguredCertificate::Off => Some(Finding::ok(name, "none: GATEWAY_TLS is off")),
        ConfiguredCertificate::Unknown => None,
        ConfiguredCertificate::SelfMade(stored, dir) => Some(stored_finding(stored, dir, now)),
        ConfiguredCertificate::Pair(pair, path) => Some(pair_finding(pair, path, now)),
    };
    let mut findings: Vec<_> = finding.into_iter().collect();
    let is_good = findings.iter().all(|finding| finding.fix.is_none());
    let own = configured.own();
    if let Some((own, host)) = own.zip(public_host).filter(|(own, host)| is_good && !own.is_valid_for(host)) {
        findings = vec![Finding::warn(
            name,
            format!(
                "clients use {host} (PUBLIC_BASE_URL), which the certificate does not name: {}",
                list(own)
            ),
            "a certificate that names it (GATEWAY_TLS_CERT_PATH), or a PUBLIC_BASE_URL that this one names",
        )];
    }
    if own.zip(served).is_some_and(|(own, served)| own.leaf != *served) {
        // A reload reads the user's certificate again, but cannot change the data directory.
        let fix = match configured {
            ConfiguredCertificate::Pair(..) => format!("{RELOAD} (elsewhere: kill -HUP PID)"),
            _ => format!("gateway check-config, then restart: {RESTART}"),
        };
        findings.push(Finding::warn(
            SERVED_CHECK,
            "the running gateway serves another certificate than the configured one; the file may have been replaced after the \
             gateway read it",
            fix,
        ));
    }
    findings
}

fn list(certificate: &CertificateInfo) -> String {
    certificate.names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn stored_finding(stored: &StoredCertificate, dir: &Path, now: SystemTime) -> Finding {
    let name = "certificate";
    let dir = quoted(dir);
    match stored {
        StoredCertificate::Missing => {
            Finding::skip(name, format!("none in {dir} yet: the gateway's first start creates it"))
        }
        StoredCertificate::Unreadable(error) => Finding::skip(name, format!("{dir}: {error}")),
        StoredCertificate::Damaged(why) => Finding::fail(
            name,
            why.clone(),
            format!("sudo rm {dir}/gateway-cert.pem, then restart: the gateway issues a new one"),
        ),
        StoredCertificate::UserProvided(_, why) => {
            let (message, fix) = why.split_once("; ").unwrap_or((why, "move both files away"));
            Finding::warn(name, message, fix)
        }
        StoredCertificate::Issued { certificate, unsignable_names, ca_error, ca_warnings } => {
            let problem = expiry_finding(certificate, ca_error.as_deref(), now)
                .or_else(|| missing_names_finding(unsignable_names, &dir))
                .or_else(|| ca_finding(ca_warnings));
            problem.unwrap_or_else(|| {
                let (until, names) = (format_date(certificate.not_after), list(certificate));
                Finding::ok(
                    name,
                    format!("signed by the local authority, valid until {until}, names: {names}"),
                )
            })
        }
    }
}

fn expiry_finding(certificate: &CertificateInfo, ca_error: Option<&str>, now: SystemTime) -> Option<Finding> {
    let (name, until) = ("certificate", format_date(certificate.not_after));
    if certificate.not_after <= now {
        let fix = ca_error.map_or_else(|| format!("{RESTART} (the start issues another)"), str::to_owned);
        return Some(Finding::fail(
            name,
            format!("the certificate expired on {until}: clients reject it"),
            fix,
        ));
    }
    if let Some(why) = ca_error {
        let (message, fix) = why.rsplit_once("; ").unwrap_or((why, "restore both files"));
        let message = format!("{message}; the current certificate is valid until {until}");
        return Some(Finding::warn(name, message, fix));
    }
    (certificate.not_after < now + RENEWAL_OVERDUE).then(|| {
        let message = format!("the certificate expires on {until}, and should have been renewed by now");
        Finding::warn(name, message, format!("{RESTART}, then read the log"))
    })
}

fn missing_names_finding(names: &[String], dir: &str) -> Option<Finding> {
    (!names.is_empty()).then(|| {
        let names = names.join(", ");
        Finding::warn(
            "certificate",
            format!("the certificate does not name {names}: the local authority may not sign for it"),
            format!(
                "your own certificate (GATEWAY_TLS_CERT_PATH); or move gateway-ca.pem and gateway-ca-key.pem out of {dir}, \
                 restart, and make every client trust the new authority (gateway ca)"
            ),
        )
    })
}

fn ca_finding(warnings: &[String]) -> Option<Finding> {
    (!warnings.is_empty()).then(|| {
        let message = warnings.join("; ");
        let (message, fix) = message.split_once("; ").unwrap_or((&message, "gateway ca"));
        Finding::warn("certificate", message, fix)
    })
}

fn pair_finding(pair: &CertificateInfo, path: &Path, now: SystemTime) -> Finding {
    let name = "certificate";
    let path = quoted(path);
    if let Some(warning) = pair.warnings.first() {
        let (message, fix) = warning.rsplit_once(": ").unwrap_or((warning, "renew it, then send SIGHUP"));
        let message = format!("{path}: {message}");
        return if pair.not_after <= now {
            Finding::fail(name, message, format!("renew it, then: {RELOAD}"))
        } else {
            Finding::warn(name, message, fix)
        };
    }
    let missing = pair.missing_names();
    let hint = if missing.is_empty() {
        String::new()
    } else {
        format!("; clients that use {} would reject it", missing.join(", "))
    };
    Finding::ok(
        name,
        format!("{path}, valid until {}, names: {}{hint}", format_date(pair.not_after), list(pair)),
    )
}

/// Whether this Mac trusts it.
pub(super) fn trust(path: &Path, output: &CommandOutput) -> Finding {
    let (name, path) = ("trust", quoted(path));
    match output {
        CommandOutput::Done { code: Some(0), .. } => Finding::ok(name, format!("this Mac trusts {path}")),
        CommandOutput::Done { text, .. } if text.contains("CSSMERR_TP_NOT_TRUSTED") => Finding::warn(
            name,
            format!(
                "this Mac does not trust {path}: its programs and browsers reject the gateway's certificate"
            ),
            format!(
                "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {path} (other systems: gateway ca)"
            ),
        ),
        _ => Finding::skip(name, format!("`security verify-cert -c {path}` gave no clear answer")),
    }
}

#[cfg(test)]
mod tests;
