//! A running gateway and how it is asked: its address, a token and its certificate come from the configuration, unless the
//! command line names others.

use std::{error::Error, future::Future, io, time::Duration};

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use clap::ArgMatches;
use reqwest::{Certificate, Client, Method, RequestBuilder, Url};
use serde_json::Value;
use service::{
    outbound::{ConnectionPolicy, client_builder, io_error_kind, read_limited, resolve_error},
    secret::Secret,
    text::ellipsize,
};

use super::{CommandError, Environment};
use crate::{
    config::{self, Config},
    tls::{Tls, files, pem},
};

/// For what the gateway answers from memory, and a list of models.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of one answer; a picture is the longest.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// A gateway that is asked.
#[derive(Debug)]
pub(super) struct GatewayTarget {
    /// Where it is.
    pub(super) base: Url,
    token: Option<Secret>,
    client: Client,
}

/// What it answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl GatewayTarget {
    /// The one that the command line means.
    pub(super) fn from_arguments(
        arguments: &ArgMatches,
        environment: Environment,
    ) -> Result<Self, CommandError> {
        let given = |name: &str| arguments.get_one::<String>(name).cloned();
        let (url, token) = (given("url"), given("token"));
        // Who names both needs no configuration, which may be readable for the gateway alone.
        let config = if url.is_some() && token.is_some() {
            None
        } else {
            Some(config::load(arguments, &environment).map_err(CommandError::Config)?.config)
        };
        let base = url.or_else(|| config.as_ref().and_then(address)).ok_or_else(|| {
            CommandError::Message("port 0 is no address to ask at: name it with --url".to_owned())
        })?;
        let base = base.parse().map_err(|_| {
            CommandError::Message("--url: expected an address such as https://ai2.local:8800".to_owned())
        })?;
        let own = config.as_ref().and_then(|config| config.access.tokens.first());
        let token = token.map(|token| Secret::token(&token)).transpose();
        let token = token.map_err(|why| CommandError::Message(format!("--token: {why}")))?;
        let token = token.or_else(|| own.map(|token| token.secret.clone()));
        let client = build_client(given("ca"), given("url").is_some(), config.as_ref())?;
        Ok(Self { base, token, client })
    }

    /// One that is known already.
    pub(super) const fn new(base: Url, token: Option<Secret>, client: Client) -> Self {
        Self { base, token, client }
    }

    /// Whether there is anybody to ask; in words why not.
    pub(super) async fn check_reachable(&self) -> Result<(), String> {
        let answer = self.anonymous(Method::GET, "/healthz").send().await;
        answer.map(drop).map_err(|error| explain_error(&error))
    }

    /// A request with the token.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.anonymous(method, path);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// A request without it. `path` may be an absolute address.
    pub(super) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let url = self.base.join(path).unwrap_or_else(|_| self.base.clone());
        self.client.request(method, url).timeout(RESPONSE_TIMEOUT)
    }
}

impl Reply {
    /// The answer to a request, or in words why there is none.
    pub(super) async fn send(request: RequestBuilder) -> Result<Self, String> {
        let answer = request.send().await.map_err(|error| explain_error(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = read_limited(answer, MAX_RESPONSE_BYTES).await;
        let body = body.map_err(|fault| format!("its answer broke off, or is too long: {fault:?}"))?;
        Ok(Self { status, headers, body })
    }

    /// The body as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text; empty if absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Runs a command's questions.
pub(super) fn block_on<T>(
    questions: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(questions)
}

/// Foreign text for a terminal: escaped, and cut.
pub(super) fn escaped(text: &str) -> String {
    ellipsize(text, 300)
        .chars()
        .flat_map(char::escape_debug)
        .collect::<String>()
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}

/// Where the configured gateway can be asked on this machine.
fn address(config: &Config) -> Option<String> {
    let (host, port) = &config.listen;
    address_of(host, *port, !matches!(config.tls, Tls::Off))
}

/// Where a gateway that listens there can be asked on this machine; nowhere if its port is not known.
pub(super) fn address_of(host: &str, port: u16, tls: bool) -> Option<String> {
    let scheme = if tls { "https" } else { "http" };
    let host = match host {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        v6 if v6.contains(':') => format!("[{v6}]"),
        other => other.to_owned(),
    };
    (port != 0).then(|| format!("{scheme}://{host}:{port}"))
}

/// Trusts the given certificate alone, or the gateway's own; at another address also whom the system trusts.
pub(super) fn build_client(
    ca: Option<String>,
    elsewhere: bool,
    config: Option<&Config>,
) -> Result<Client, CommandError> {
    let mut client = client_builder(ConnectionPolicy::PerRequest);
    let own = config.map(own_certificates).unwrap_or_default();
    if let Some(path) = ca {
        let damaged = |_| "a certificate in it is damaged".to_owned();
        let named = pem::certificates(path.as_ref())
            .and_then(|read| {
                read.iter()
                    .map(|der| Certificate::from_der(der).map_err(damaged))
                    .collect::<Result<Vec<_>, _>>()
            })
            .map_err(|why| CommandError::Message(format!("--ca {path}: expected a PEM file: {why}")))?;
        client = client.tls_certs_only(named);
    } else if elsewhere {
        client = client.tls_certs_merge(own);
    } else if !own.is_empty() {
        client = client.tls_certs_only(own);
    }
    client.build().map_err(|error| CommandError::Output(io::Error::other(error)))
}

fn own_certificates(config: &Config) -> Vec<Certificate> {
    match &config.tls {
        Tls::Off => Vec::new(),
        Tls::Pair(pair) => pair.cert.iter().filter_map(|der| Certificate::from_der(der).ok()).collect(),
        Tls::LocalCa => {
            let pem = std::fs::read(config.data_dir.join(files::CERT_FILE)).unwrap_or_default();
            Certificate::from_pem_bundle(&pem).unwrap_or_default()
        }
    }
}

/// Why there is no answer, and what to do.
fn explain_error(error: &reqwest::Error) -> String {
    if io_error_kind(error) == Some(io::ErrorKind::ConnectionRefused) {
        return "nothing listens there: is the gateway running, and is this its address (--url)?".to_owned();
    }
    if resolve_error(error).is_some() {
        return format!("{}: check the address (--url)", error_chain(error));
    }
    let message = error_chain(error);
    if message.contains("certificate") {
        return format!(
            "its certificate is not trusted here ({message}): name one of its own names with --url, or its file with --ca"
        );
    }
    message
}

/// Why there is no answer.
pub(super) fn error_chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if let Some(unresolved) = resolve_error(error) {
        return unresolved.to_string();
    }
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes.join(": ")
}
