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
    tools::{CommandOutput, Tools},
};
use crate::{
    blocking::blocking,
    config::Config,
    tls::{
        Tls, authority,
        files::date,
        inspected::{CertificateInfo, StoredCertificate, kept},
    },
};

/// A certificate of the gateway's own is signed anew 30 days before its end, while the gateway runs.
const OVERDUE: Duration = Duration::from_hours(24 * 25);
/// The check of what the running gateway shows.
pub(super) const SHOWN: &str = "certificate_shown";
const HANGUP: &str = "sudo launchctl kill HUP system/";

/// What is configured.
#[derive(Debug)]
pub(super) enum Configured {
    /// Plain HTTP.
    Off,
    /// A pair of somebody's own, with the file that it came from.
    Pair(CertificateInfo, PathBuf),
    /// The gateway's own.
    SelfMade(StoredCertificate, PathBuf),
    /// What is given cannot be read, which the configuration's check tells.
    Unknown,
}

impl Configured {
    /// Looks at it. Without a configuration, at the gateway's own in its folder.
    pub(super) async fn look(config: Option<&Config>, named: Option<&str>) -> Self {
        let now = SystemTime::now();
        match config.map(|config| (&config.tls, config.data_dir.clone())) {
            None => Self::Unknown,
            Some((Tls::Off, _)) => Self::Off,
            Some((Tls::Pair(pair), _)) => match CertificateInfo::of(&pair.cert, now) {
                Some(pair) => Self::Pair(pair, named.unwrap_or_default().into()),
                None => Self::Unknown,
            },
            Some((Tls::SelfMade, dir)) => {
                let looked = dir.clone();
                Self::SelfMade(blocking(move || kept(&looked, now)).await, dir)
            }
        }
    }

    /// The one that callers are to be shown.
    pub(super) fn own(&self) -> Option<&CertificateInfo> {
        match self {
            Self::Pair(pair, _) | Self::SelfMade(StoredCertificate::Foreign(pair, _), _) => Some(pair),
            Self::SelfMade(StoredCertificate::Own { certificate, .. }, _) => Some(certificate),
            _ => None,
        }
    }

    /// Whether it cannot be seen from this account, or at all.
    pub(super) const fn is_hidden(&self) -> bool {
        matches!(
            self,
            Self::Unknown | Self::SelfMade(StoredCertificate::Hidden(_) | StoredCertificate::Damaged(_), _)
        )
    }

    /// The authority that clients are taught to trust, and whether macOS does.
    pub(super) async fn trust(&self, tools: &Tools) -> Option<(PathBuf, CommandOutput)> {
        // Who gives a pair knows whom its clients trust.
        let Self::SelfMade(StoredCertificate::Own { .. }, dir) = self else { return None };
        let path = dir.join(authority::CERTIFICATE);
        let ran = tools.run("security", &["verify-cert", "-L", "-p", "basic", "-c", path.to_str()?]).await;
        Some((path, ran))
    }
}

/// What is wrong with it. `shown` is what the running gateway shows.
pub(super) fn findings(
    configured: &Configured,
    shown: Option<&CertificateDer<'_>>,
    public_host: Option<&str>,
    now: SystemTime,
) -> Vec<Finding> {
    let name = "certificate";
    let finding = match configured {
        Configured::Off => Some(Finding::ok(name, "none: GATEWAY_TLS is off")),
        Configured::Unknown => None,
        Configured::SelfMade(kept, dir) => Some(self_made(kept, dir, now)),
        Configured::Pair(pair, path) => Some(pair_of(pair, path, now)),
    };
    let mut findings: Vec<_> = finding.into_iter().collect();
    let is_sound = findings.iter().all(|finding| finding.fix.is_none());
    let own = configured.own();
    if let Some((own, host)) = own.zip(public_host).filter(|(own, host)| is_sound && !own.covers(host)) {
        findings = vec![Finding::warn(
            name,
            format!(
                "clients use {host} (PUBLIC_BASE_URL), which the certificate does not name: {}",
                list(own)
            ),
            "a certificate that names it (GATEWAY_TLS_CERT_PATH), or a PUBLIC_BASE_URL that this one names",
        )];
    }
    if own.zip(shown).is_some_and(|(own, shown)| own.own != *shown) {
        // A pair is read again on SIGHUP; the folder of the own one is not.
        let fix = match configured {
            Configured::Pair(..) => format!("{HANGUP}{LABEL} (elsewhere: kill -HUP PID)"),
            _ => format!("gateway check-config, then restart: sudo launchctl kill TERM system/{LABEL}"),
        };
        findings.push(Finding::warn(
            SHOWN,
            "the running gateway uses another certificate than the configured one: the file may have been replaced after it was read",
            fix,
        ));
    }
    findings
}

fn list(certificate: &CertificateInfo) -> String {
    let names: Vec<_> = certificate.names.iter().take(8).map(String::as_str).collect();
    super::shown(&names.join(", "))
}

fn self_made(kept: &StoredCertificate, dir: &Path, now: SystemTime) -> Finding {
    let name = "certificate";
    let folder = quoted(&dir.display().to_string());
    match kept {
        StoredCertificate::Nothing => {
            Finding::skip(name, format!("none in {folder} yet: the gateway's first start makes it"))
        }
        StoredCertificate::Hidden(error) => Finding::skip(name, format!("{folder}: {error}")),
        StoredCertificate::Damaged(why) => Finding::fail(
            name,
            why.clone(),
            format!("sudo rm {folder}/gateway-cert.pem, then restart: it is signed anew"),
        ),
        StoredCertificate::Foreign(_, why) => {
            let (message, fix) = why.split_once("; ").unwrap_or((why, "move both files away"));
            Finding::warn(name, message, fix)
        }
        StoredCertificate::Own { .. } => own(kept, &folder, now),
    }
}

/// One of the gateway's own.
fn own(kept: &StoredCertificate, folder: &str, now: SystemTime) -> Finding {
    let name = "certificate";
    let StoredCertificate::Own { certificate, unsigned, fault, remarks } = kept else {
        return Finding::skip(name, format!("{folder} holds another certificate now"));
    };
    let ends = date(certificate.ends);
    let restart = format!("sudo launchctl kill TERM system/{LABEL}");
    if certificate.ends <= now {
        let fix = fault.clone().unwrap_or_else(|| format!("{restart} (its start signs another)"));
        return Finding::fail(name, format!("the certificate expired on {ends}: clients refuse it"), fix);
    }
    if let Some(why) = fault {
        let (message, fix) = why.rsplit_once("; ").unwrap_or((why, "put both files back"));
        return Finding::warn(name, format!("{message}; the current certificate is valid until {ends}"), fix);
    }
    if certificate.ends < now + OVERDUE {
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
        let (message, fix) = message.split_once(": ").unwrap_or((&message, "gateway ca"));
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
    if let Some(remark) = pair.remarks.first() {
        let (message, fix) = remark.rsplit_once(": ").unwrap_or((remark, "renew it, then send SIGHUP"));
        let message = format!("{path}: {message}");
        return if pair.ends <= now {
            Finding::fail(name, message, format!("renew it, then: {HANGUP}{LABEL}"))
        } else {
            Finding::warn(name, message, fix)
        };
    }
    let left_out = pair.leaves_out();
    let hint = if left_out.is_empty() {
        String::new()
    } else {
        format!("; clients that use {} would refuse it", left_out.join(", "))
    };
    Finding::ok(name, format!("{path}, valid until {}, names: {}{hint}", date(pair.ends), list(pair)))
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
