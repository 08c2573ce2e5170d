//! The gateway that runs, or what is in its place: who has the port, what it says of itself, and whether it answers as it should.

mod rules;

use std::time::{Duration, UNIX_EPOCH};

use reqwest::{Client, tls::TlsInfo};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use service::{
    outbound::{ConnectionPolicy, client_builder, io_error_kind},
    secret::Secret,
};
use tokio::time::timeout;

pub(super) use self::rules::{RunContext, findings, from_status, unconfigured_gateway, verify_result};
use super::{
    super::{
        status,
        target::{GatewayTarget, error_chain},
        verify::{self, CheckResult},
    },
    tools::{CommandOutput, SystemTools},
};
use crate::tls::pinned;

/// For what is answered from memory.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the status and all checks that cost nothing.
const TIME_FOR_ALL: Duration = Duration::from_secs(10);

/// What is at the gateway's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Responder {
    /// A gateway; over TLS with what it shows.
    Gateway(Option<CertificateDer<'static>>),
    /// Something else, and what that is.
    Other(String),
    /// Nobody listens.
    Nobody,
    /// Something that accepts connections and does not speak as expected.
    Unclear(String),
}

/// What is known of it.
#[derive(Debug)]
pub(super) struct RunningGateway {
    /// Where it was asked.
    pub(super) base: String,
    pub(super) answer: Responder,
    /// The process that has the port, by number and name.
    listener: Option<(u32, String)>,
    /// What it says of itself; an error says why that was not had.
    pub(super) status: Option<Result<Value, String>>,
    /// What `gateway verify` checks.
    checks: Vec<(&'static str, CheckResult)>,
    /// When one of the files was changed that it reads, and which.
    changed: Option<(f64, String)>,
}

/// Asks whatever is there, showing nothing of ours.
pub(super) async fn probe(base: &str) -> Responder {
    let client = client_builder(ConnectionPolicy::PerRequest)
        .tls_backend_preconfigured(pinned::client_config(None))
        .tls_info(true)
        .build();
    let Ok(client) = client else { return Responder::Unclear("no client can be made".to_owned()) };
    match client.get(format!("{base}/healthz")).timeout(RESPONSE_TIMEOUT).send().await {
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
            Responder::Nobody
        }
        Err(error) => Responder::Unclear(error_chain(&error)),
    }
}

/// `ok`, or an error of ours, as where an allowlist leaves this machine out.
fn is_gateway(status: u16, body: &[u8]) -> bool {
    let ours = || {
        serde_json::from_slice::<Value>(body)
            .is_ok_and(|body| body["error"]["code"].is_string() && body["detail"].is_string())
    };
    status == 200 && body == b"ok\n" || ours()
}

/// The client for the gateway that shows this certificate.
pub(super) fn client(certificate: Option<CertificateDer<'static>>) -> Option<Client> {
    let client = client_builder(ConnectionPolicy::PerRequest);
    let client = match certificate {
        Some(certificate) => client.tls_backend_preconfigured(pinned::client_config(Some(certificate))),
        None => client,
    };
    client.build().ok()
}

impl RunningGateway {
    /// Asks the gateway that answered, if one did and `client` may show it a token.
    pub(super) async fn inspect(
        base: String,
        answer: Responder,
        tools: &SystemTools,
        asked: Option<(Client, Option<Secret>)>,
        files: Vec<std::path::PathBuf>,
    ) -> Self {
        let url: Option<reqwest::Url> = base.parse().ok();
        let port = url.as_ref().and_then(reqwest::Url::port_or_known_default);
        let holder = match (&answer, port) {
            (Responder::Nobody, _) | (_, None) => None,
            (_, Some(port)) => port_listener(tools, port).await,
        };
        let target = match (&answer, url, asked) {
            (Responder::Gateway(_), Some(url), Some((client, token))) => {
                Some(GatewayTarget::new(url, token, client))
            }
            _ => None,
        };
        let (status, checks) = match &target {
            Some(target) => check_gateway(target).await,
            None => (None, Vec::new()),
        };
        let changed = files.iter().filter_map(|file| {
            let at = std::fs::metadata(file).ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some((at.as_secs_f64(), super::quoted(&file.display().to_string())))
        });
        let changed = changed.max_by(|(one, _), (other, _)| one.total_cmp(other));
        Self { base, answer, listener: holder, status, checks, changed }
    }

    /// The process of the gateway, where that is seen.
    pub(super) fn process(&self) -> Option<u32> {
        self.listener.as_ref().filter(|(_, name)| name.starts_with("gateway")).map(|(process, _)| *process)
    }

    /// Whether a gateway answers.
    pub(super) fn answers(&self) -> bool {
        matches!(self.answer, Responder::Gateway(_))
    }

    /// Whether another program has the port.
    pub(super) fn is_other_program(&self) -> bool {
        let is_gateway = self.listener.as_ref().is_some_and(|(_, name)| name.starts_with("gateway"));
        matches!(self.answer, Responder::Other(_) | Responder::Unclear(_)) && !is_gateway
    }

    /// What it says is wrong with a backend.
    pub(super) fn backend_error(&self, class: &str) -> Option<String> {
        let status = self.status.as_ref()?.as_ref().ok()?;
        status["backend_health"][class]["error"].as_str().map(str::to_owned)
    }
}

/// Its status, and what `gateway verify` checks that costs nothing.
pub(super) async fn check_gateway(
    target: &GatewayTarget,
) -> (Option<Result<Value, String>>, Vec<(&'static str, CheckResult)>) {
    let asked = async {
        let status = status::fetch(target).await.map(|reply| reply.json());
        let checks = if status.is_ok() { verify::run_free_checks(target, &status).await } else { Vec::new() };
        (Some(status), checks)
    };
    let silent = || Err(format!("no answer to everything that is asked within {} s", TIME_FOR_ALL.as_secs()));
    timeout(TIME_FOR_ALL, asked).await.unwrap_or_else(|_| (Some(silent()), Vec::new()))
}

/// Who listens on a port. Only root sees processes of other accounts.
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
    Some((process, super::escaped(name)))
}

/// `LISTEN 0 511 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=7,fd=6))`.
fn parse_ss(text: &str) -> Option<(u32, String)> {
    let (name, behind) = text.split_once("((\"")?.1.split_once("\",pid=")?;
    Some((behind.split(',').next()?.parse().ok()?, super::escaped(name)))
}

/// Has one more picture made, or more than there is room for.
pub(super) async fn run_gpu_checks(
    target: &GatewayTarget,
    status: &Value,
    generate: bool,
    overload: bool,
) -> Vec<(&'static str, CheckResult)> {
    let mut done = Vec::new();
    if generate {
        done.push(("generate", verify::images::generate(target, status).await));
    }
    if overload {
        done.push(("overload", verify::images::overload(target, status).await));
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_told_from_what_else_answers() {
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
    fn the_holder_of_a_port_is_read_from_either_tool() {
        let nginx = Some((7, "nginx".to_owned()));
        assert_eq!(parse_lsof("p7\ncnginx\nf6\np8\ncnginx\n"), nginx);
        assert_eq!(parse_lsof("p7\ncng\u{1b}inx\n"), Some((7, "ng\\u{1b}inx".to_owned())));
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
    async fn nobody_and_somebody_silent_are_told_apart() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", taken.local_addr().unwrap());
        std::thread::spawn(move || taken.accept().map(drop));
        assert!(matches!(probe(&base).await, Responder::Unclear(_)), "it closes without an answer");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(probe(&format!("https://{free}")).await, Responder::Nobody);
    }
}
