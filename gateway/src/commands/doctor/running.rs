//! The running gateway, or what is in its place: which process has the port, the gateway's status, and whether it answers
//! correctly.

mod rules;

use std::{
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use reqwest::{Client, Url, tls::TlsInfo};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use service::outbound::{ConnectionPolicy, client_builder, io_error_kind};
use tokio::time::timeout;

pub(super) use self::rules::{RunContext, findings, from_status, unconfigured_gateway, verify_result};
use super::tools::{CommandOutput, SystemTools};
use crate::{
    commands::{
        status,
        target::{GatewayTarget, error_chain},
        verify::{self, CheckResult},
    },
    tls::pinned,
};

const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the status and all checks without GPU time.
const CHECKS_TIMEOUT: Duration = Duration::from_secs(10);

/// What answers at the gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Responder {
    /// A gateway; over TLS with its certificate.
    Gateway(Option<CertificateDer<'static>>),
    /// Another program, and how it answers.
    Other(String),
    /// Nothing listens.
    Closed,
    /// Something accepts connections and gives no valid answer.
    Invalid(String),
}

#[derive(Debug)]
pub(super) struct RunningGateway {
    base: String,
    answer: Responder,
    /// The process that has the port, by number and name.
    listener: Option<(u32, String)>,
    /// None unless a gateway answered that may be sent a token.
    pub(super) status: Option<Result<Value, String>>,
    /// The results of `gateway verify`.
    checks: Vec<(&'static str, CheckResult)>,
    /// The last modified of the files that it reads, with the time in Unix seconds.
    changed: Option<(f64, String)>,
}

/// Queries whatever listens there, without sending any secret.
pub(super) async fn probe(base: &str) -> Responder {
    let client = client_builder(ConnectionPolicy::PerRequest)
        .tls_backend_preconfigured(pinned::client_config(None))
        .tls_info(true)
        .build();
    let Ok(client) = client else { return Responder::Invalid("cannot create an HTTP client".to_owned()) };
    match client.get(format!("{base}/healthz")).timeout(PROBE_TIMEOUT).send().await {
        Ok(answer) => {
            let certificate = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
            let certificate = certificate.map(|der| CertificateDer::from(der.to_vec()));
            let status = answer.status().as_u16();
            let body = answer.bytes().await.unwrap_or_default();
            if is_gateway(status, &body) {
                Responder::Gateway(certificate)
            } else {
                Responder::Other(format!("/healthz answers {status}, and not as a gateway does"))
            }
        }
        Err(error) if io_error_kind(&error) == Some(std::io::ErrorKind::ConnectionRefused) => {
            Responder::Closed
        }
        Err(error) => Responder::Invalid(error_chain(&error)),
    }
}

/// `ok`, or an error in our form, as when an allowlist excludes this machine.
fn is_gateway(status: u16, body: &[u8]) -> bool {
    let is_error = || {
        serde_json::from_slice::<Value>(body)
            .is_ok_and(|body| body["error"]["code"].is_string() && body["detail"].is_string())
    };
    status == 200 && body == b"ok\n" || is_error()
}

/// A client that trusts only this certificate; for plain HTTP if there is none.
pub(super) fn client(certificate: Option<CertificateDer<'static>>) -> Option<Client> {
    let client = client_builder(ConnectionPolicy::PerRequest);
    let client = match certificate {
        Some(certificate) => client.tls_backend_preconfigured(pinned::client_config(Some(certificate))),
        None => client,
    };
    client.build().ok()
}

impl RunningGateway {
    /// `target` is how the configured gateway can be asked with a token.
    pub(super) async fn inspect(
        base: String,
        answer: Responder,
        tools: &SystemTools,
        target: Option<&GatewayTarget>,
        files: &[PathBuf],
    ) -> Self {
        let port = base.parse::<Url>().ok().and_then(|url| url.port_or_known_default());
        let listener = match (&answer, port) {
            (Responder::Closed, _) | (_, None) => None,
            (_, Some(port)) => port_listener(tools, port).await,
        };
        let (status, checks) = match (&answer, target) {
            (Responder::Gateway(_), Some(target)) => {
                let (status, checks) = check_gateway(target).await;
                (Some(status), checks)
            }
            _ => (None, Vec::new()),
        };
        let changed = files.iter().filter_map(|file| {
            let at = std::fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some((at.as_secs_f64(), super::quoted(file)))
        });
        let changed = changed.max_by(|(one, _), (other, _)| one.total_cmp(other));
        Self { base, answer, listener, status, checks, changed }
    }

    /// The gateway's process, if visible.
    pub(super) fn process(&self) -> Option<u32> {
        self.listener.as_ref().filter(|(_, name)| name.starts_with("gateway")).map(|(process, _)| *process)
    }

    pub(super) fn answers(&self) -> bool {
        matches!(self.answer, Responder::Gateway(_))
    }

    /// Whether another program has the port.
    pub(super) fn is_other_program(&self) -> bool {
        matches!(self.answer, Responder::Other(_) | Responder::Invalid(_)) && self.process().is_none()
    }

    /// The error that it reports for a backend.
    pub(super) fn backend_error(&self, class: &str) -> Option<String> {
        let status = self.status.as_ref()?.as_ref().ok()?;
        status["backend_health"][class]["error"].as_str().map(str::to_owned)
    }
}

/// The gateway's status, and the checks of `gateway verify` that need no GPU time.
pub(super) async fn check_gateway(
    target: &GatewayTarget,
) -> (Result<Value, String>, Vec<(&'static str, CheckResult)>) {
    let checking = async {
        let status = status::fetch(target).await.map(|reply| reply.json());
        let checks = if status.is_ok() { verify::run_free_checks(target, &status).await } else { Vec::new() };
        (status, checks)
    };
    timeout(CHECKS_TIMEOUT, checking).await.unwrap_or_else(|_| {
        (Err(format!("not all requests were answered within {} s", CHECKS_TIMEOUT.as_secs())), Vec::new())
    })
}

/// The process that listens on a port. Only root sees those of other accounts.
async fn port_listener(tools: &SystemTools, port: u16) -> Option<(u32, String)> {
    let lsof = tools.run("lsof", &["-nP", &format!("-iTCP:{port}"), "-sTCP:LISTEN", "-Fpc"]).await;
    if lsof != CommandOutput::NotFound {
        return lsof.text().and_then(parse_lsof);
    }
    parse_ss(tools.run("ss", &["-Hltnp", &format!("sport = :{port}")]).await.text()?)
}

/// `p7`, then `cnginx`.
fn parse_lsof(text: &str) -> Option<(u32, String)> {
    let process = text.lines().find_map(|line| line.strip_prefix('p')?.parse().ok())?;
    let name = text.lines().find_map(|line| line.strip_prefix('c'))?;
    Some((process, name.to_owned()))
}

/// `LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=7,fd=6))`.
fn parse_ss(text: &str) -> Option<(u32, String)> {
    let (name, rest) = text.split_once("((\"")?.1.split_once("\",pid=")?;
    Some((rest.split(',').next()?.parse().ok()?, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_distinguished_from_other_programs() {
        for (status, body, ours) in [
            (200, "ok\n", true),
            (403, r#"{"error":{"code":"ip_not_allowed","message":"x"},"detail":"x"}"#, true),
            (200, r#"{"status":"ok"}"#, false),
            (200, "ok", false),
            (404, r#"{"error":{"code":"x"}}"#, false),
            (200, "<html>", false),
        ] {
            assert_eq!(is_gateway(status, body.as_bytes()), ours, "{body}");
        }
    }

    #[test]
    fn the_process_of_a_port_is_read_from_either_tool() {
        let nginx = Some((7, "nginx".to_owned()));
        assert_eq!(parse_lsof("p7\ncnginx\nf6\np8\ncnginx\n"), nginx);
        assert_eq!(
            parse_ss(
                "LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:((\"nginx\",pid=7,fd=6),(\"nginx\",pid=8,fd=6))\n"
            ),
            nginx
        );
        for other in ["", "what", "LISTEN 0 511 0.0.0.0:80 0.0.0.0:*"] {
            assert_eq!((parse_lsof(other), parse_ss(other)), (None, None), "{other}");
        }
    }

    #[tokio::test]
    async fn a_free_port_and_a_silent_listener_are_distinguished() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", taken.local_addr().unwrap());
        std::thread::spawn(move || taken.accept().map(drop));
        assert!(matches!(probe(&base).await, Responder::Invalid(_)), "it closes without an answer");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(probe(&format!("https://{free}")).await, Responder::Closed);
    }
}
