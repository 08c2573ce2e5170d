//! A running gateway as the commands query it: address, token and certificate come from the configuration, unless the command
//! line names others.

use std::{error::Error, future::Future, io, time::Duration};

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use clap::ArgMatches;
use reqwest::{Certificate, Client, Method, RequestBuilder, Url};
use serde_json::Value;
use service::{
    outbound::{ConnectionPolicy, client_builder, io_error_kind, read_limited, resolve_error},
    secret::Secret,
    text::{ellipsize, printable},
};

use super::{CommandError, Environment};
use crate::{
    config::{self, Config},
    tls::{Tls, files, pem},
};

/// A list of models takes longest.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);
/// For an image.
const MAX_RESPONSE_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct GatewayTarget {
    pub(super) base: Url,
    token: Option<Secret>,
    client: Client,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl GatewayTarget {
    pub(super) fn from_arguments(
        arguments: &ArgMatches,
        environment: Environment,
    ) -> Result<Self, CommandError> {
        let given = |name: &str| arguments.get_one::<String>(name).cloned();
        let (url, token) = (given("url"), given("token"));
        // With both, the configuration is not needed; it may be readable only by the gateway.
        let config = if url.is_some() && token.is_some() {
            None
        } else {
            Some(config::load(arguments, &environment).map_err(CommandError::Config)?.config)
        };
        let base = url.or_else(|| config.as_ref().and_then(address)).ok_or_else(|| {
            CommandError::Message(
                "the configured port is 0: give the gateway's address with --url".to_owned(),
            )
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

    pub(super) const fn new(base: Url, token: Option<Secret>, client: Client) -> Self {
        Self { base, token, client }
    }

    /// Whether anything answers; an error says why not.
    pub(super) async fn check_reachable(&self) -> Result<(), String> {
        let response = self.anonymous(Method::GET, "/healthz").send().await;
        response.map(drop).map_err(|error| explain_error(&error))
    }

    /// With the token.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.anonymous(method, path);
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// Without the token. `path` may be an absolute URL.
    pub(super) fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        let url = self.base.join(path).unwrap_or_else(|_| self.base.clone());
        self.client.request(method, url).timeout(RESPONSE_TIMEOUT)
    }
}

impl Reply {
    /// Sends a request; an error says why there is no answer.
    pub(super) async fn send(request: RequestBuilder) -> Result<Self, String> {
        let response = request.send().await.map_err(|error| explain_error(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_limited(response, MAX_RESPONSE_BYTES).await;
        let body = body.map_err(|_| "the response ended early or is too long")?;
        Ok(Self { status, headers, body })
    }

    /// The body as JSON; null if it is not JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header as text; empty if absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

pub(super) fn block_on<T>(command: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Foreign text for a terminal: escaped and cut.
pub(super) fn escaped(text: &str) -> String {
    printable(&ellipsize(text, 300))
}

/// The configured gateway's URL on this machine.
fn address(config: &Config) -> Option<String> {
    let (host, port) = &config.listen;
    address_of(host, *port, !matches!(config.tls, Tls::Off))
}

/// The URL, on this machine, of a gateway that listens there; none if its port is unknown.
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

/// Trusts only the certificate in `ca`, or the configured one; `elsewhere`, also the system's authorities.
pub(super) fn build_client(
    ca: Option<String>,
    elsewhere: bool,
    config: Option<&Config>,
) -> Result<Client, CommandError> {
    let mut client = client_builder(ConnectionPolicy::PerRequest);
    let own = config.map(own_certificates).unwrap_or_default();
    if let Some(path) = ca {
        let damaged = |_| "a certificate in it is damaged".to_owned();
        let given = pem::certificates(path.as_ref())
            .and_then(|read| {
                read.iter()
                    .map(|der| Certificate::from_der(der).map_err(damaged))
                    .collect::<Result<Vec<_>, _>>()
            })
            .map_err(|why| CommandError::Message(format!("--ca {path}: expected a PEM file: {why}")))?;
        client = client.tls_certs_only(given);
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
            "its certificate is not trusted here ({message}): use one of the certificate's host names in --url, or give the \
             certificate with --ca"
        );
    }
    message
}

/// The causes of a failed request.
pub(super) fn error_chain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    if let Some(unresolved) = resolve_error(error) {
        return unresolved.to_string();
    }
    let causes = std::iter::successors(error.source(), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
