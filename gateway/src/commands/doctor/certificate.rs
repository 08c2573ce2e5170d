//! The certificate that callers are shown: how long it lasts, whom it names, whether it is the configured one, and whether this
//! Mac trusts it.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use service::doctor::Finding;

use super::{
    launchd::LABEL,
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

/// A certificate of the gateway's own is signed anew 30 days before its end, while the gateway runs.
const RENEWAL_OVERDUE: Duration = Duration::from_hours(24 * 25);
/// The check of what the running gateway shows.
pub(super) const SERVED_CHECK: &str = "certificate_shown";
const HANGUP: &str = "sudo launchctl kill HUP system/";

/// What is configured.
#[derive(Debug)]
pub(super) enum ConfiguredCertificate {
    /// Plain HTTP.
    Off,
    /// A pair of somebody's own, with the file that it came from.
    Pair(CertificateInfo, PathBuf),
    /// The gateway's own.
    SelfMade(StoredCertificate, PathBuf),
    /// What is given cannot be read, which the configuration's check tells.
    Unknown,
}

impl ConfiguredCertificate {
    /// Looks at it. Without a configuration, at the gateway's own in its folder.
    pub(super) async fn inspect(config: Option<&Config>, named: Option<&str>) -> Self {
        let now = SystemTime::now();
        match config.map(|config| (&config.tls, config.data_dir.clone())) {
            None => Self::Unknown,
            Some((Tls::Off, _)) => Self::Off,
            Some((Tls::Pair(pair), _)) => match CertificateInfo::from_chain(&pair.cert, now) {
                Some(pair) => Self::Pair(pair, named.unwrap_or_default().into()),
                None => Self::Unknown,
            },
            Some((Tls::LocalCa, dir)) => {
                let looked = dir.clone();
                Self::SelfMade(blocking(move || inspect(&looked, now)).await, dir)
            }
        }
    }

    /// The one that callers are to be shown.
    pub(super) fn own(&self) -> Option<&CertificateInfo> {
        match self {
            Self::Pair(pair, _) | Self::SelfMade(StoredCertificate::UserProvided(pair, _), _) => Some(pair),
            Self::SelfMade(StoredCertificate::Issued { certificate, .. }, _) => Some(certificate),
            _ => None,
        }
    }

    /// Whether it cannot be seen from this account, or at all.
    pub(super) const fn is_hidden(&self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::SelfMade(StoredCertificate::Unreadable(_) | StoredCertificate::Damaged(_), _)
        )
    }

    /// The authority that clients are taught to trust, and whether macOS does.
    pub(super) async fn trust(&self, tools: &SystemTools) -> Option<(PathBuf, CommandOutput)> {
        // Who gives a pair knows whom its clients trust.
        let Self::SelfMade(StoredCertificate::Issued { .. }, dir) = self else { return None };
        let path = dir.join(local_ca::CA_CERT_FILE);
        let ran = tools.run("security", &["verify-cert", "-L", "-p", "basic", "-c", path.to_str()?]).await;
        Some((path, ran))
    }
}

/// What is wrong with it. `shown` is what the running gateway shows.
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
        ConfiguredCertificate::SelfMade(kept, dir) => Some(self_made(kept, dir, now)),
        ConfiguredCertificate::Pair(pair, path) => Some(pair_of(pair, path, now)),
    };
    let mut findings: Vec<_> = finding.into_iter().collect();
    let is_sound = findings.iter().all(|finding| finding.fix.is_none());
    let own = configured.own();
    if let Some((own, host)) = own.zip(public_host).filter(|(own, host)| is_sound && !own.is_valid_for(host))
    {
        findings = vec![Finding::warn(
            name,
            format!(
                "clients use {host} (PUBLIC_BASE_URL), which the certificate does not name: {}",
                list(own)
            ),
            "a certificate that names it (GATEWAY_TLS_CERT_PATH), or a PUBLIC_BASE_URL that this one names",
        )];
    }
    if own.zip(served).is_some_and(|(own, shown)| own.leaf != *shown) {
        // A pair is read again on SIGHUP; the folder of the own one is not.
        let fix = match configured {
            ConfiguredCertificate::Pair(..) => format!("{HANGUP}{LABEL} (elsewhere: kill -HUP PID)"),
            _ => format!("gateway check-config, then restart: sudo launchctl kill TERM system/{LABEL}"),
        };
        findings.push(Finding::warn(
            SERVED_CHECK,
            "the running gateway uses another certificate than the configured one: the file may have been replaced after it was read",
            fix,
        ));
    }
    findings
}

fn list(certificate: &CertificateInfo) -> String {
    let names: Vec<_> = certificate.names.iter().take(8).map(String::as_str).collect();
    super::escaped(&names.join(", "))
}

fn self_made(stored: &StoredCertificate, dir: &Path, now: SystemTime) -> Finding {
    let name = "certificate";
    let folder = quoted(&dir.display().to_string());
    match stored {
        StoredCertificate::Missing => {
            Finding::skip(name, format!("none in {folder} yet: the gateway's first start makes it"))
        }
        StoredCertificate::Unreadable(error) => Finding::skip(name, format!("{folder}: {error}")),
        StoredCertificate::Damaged(why) => Finding::fail(
            name,
            why.clone(),
            format!("sudo rm {folder}/gateway-cert.pem, then restart: it is signed anew"),
        ),
        StoredCertificate::UserProvided(_, why) => {
            let (message, fix) = why.split_once("; ").unwrap_or((why, "move both files away"));
            Finding::warn(name, message, fix)
        }
        StoredCertificate::Issued { .. } => own(stored, &folder, now),
    }
}

/// One of the gateway's own.
fn own(stored: &StoredCertificate, folder: &str, now: SystemTime) -> Finding {
    let name = "certificate";
    let StoredCertificate::Issued {
        certificate,
        unsignable_names: unsigned,
        ca_error: fault,
        ca_warnings: remarks,
    } = stored
    else {
        return Finding::skip(name, format!("{folder} holds another certificate now"));
    };
    let ends = format_date(certificate.not_after);
    let restart = format!("sudo launchctl kill TERM system/{LABEL}");
    if certificate.not_after <= now {
        let fix = fault.clone().unwrap_or_else(|| format!("{restart} (its start signs another)"));
        return Finding::fail(name, format!("the certificate expired on {ends}: clients refuse it"), fix);
    }
    if let Some(why) = fault {
        let (message, fix) = why.rsplit_once("; ").unwrap_or((why, "put both files back"));
        return Finding::warn(name, format!("{message}; the current certificate is valid until {ends}"), fix);
    }
    if certificate.not_after < now + RENEWAL_OVERDUE {
        let message = format!("the certificate ends on {ends}, and should have been signed anew by now");
        return Finding::warn(name, message, format!("{restart}, then read the log"));
    }
    if !unsigned.is_empty() {
        let names = unsigned.join(", ");
        let message =
            format!("the certificate does not name {names}: the local authority may not sign for it");
        return Finding::warn(
            name,
            message,
            format!(
                "a pair of yours (GATEWAY_TLS_CERT_PATH); or move gateway-ca.pem and gateway-ca-key.pem out of {folder}, \
                 restart, and have every program trust the new one (gateway ca)"
            ),
        );
    }
    if !remarks.is_empty() {
        let message = remarks.join("; ");
        let (message, fix) = message.split_once("; ").unwrap_or((&message, "gateway ca"));
        return Finding::warn(name, message, fix);
    }
    Finding::ok(
        name,
        format!("signed by the local authority, valid until {ends}, names: {}", list(certificate)),
    )
}

fn pair_of(pair: &CertificateInfo, path: &Path, now: SystemTime) -> Finding {
    let name = "certificate";
    let path = quoted(&path.display().to_string());
    if let Some(remark) = pair.warnings.first() {
        let (message, fix) = remark.rsplit_once(": ").unwrap_or((remark, "renew it, then send SIGHUP"));
        let message = format!("{path}: {message}");
        return if pair.not_after <= now {
            Finding::fail(name, message, format!("renew it, then: {HANGUP}{LABEL}"))
        } else {
            Finding::warn(name, message, fix)
        };
    }
    let left_out = pair.missing_names();
    let hint = if left_out.is_empty() {
        String::new()
    } else {
        format!("; clients that use {} would refuse it", left_out.join(", "))
    };
    Finding::ok(
        name,
        format!("{path}, valid until {}, names: {}{hint}", format_date(pair.not_after), list(pair)),
    )
}

/// Whether this Mac trusts it.
pub(super) fn trust(path: &Path, ran: &CommandOutput) -> Finding {
    let (name, path) = ("trust", quoted(&path.display().to_string()));
    match ran {
        CommandOutput::Done { code: Some(0), .. } => Finding::ok(name, format!("this Mac trusts {path}")),
        CommandOutput::Done { text, .. } if text.contains("CSSMERR_TP_NOT_TRUSTED") => Finding::warn(
            name,
            format!("this Mac does not trust {path}: programs and browsers on it refuse the gateway"),
            format!(
                "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {path} (others: gateway ca)"
            ),
        ),
        _ => Finding::skip(name, format!("`security verify-cert -c {path}` gave no clear answer")),
    }
}

#[cfg(test)]
mod tests;
