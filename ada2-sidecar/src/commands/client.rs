//! A client of the running sidecar.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use picture::Format;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use service::{
    outbound::{ConnectionPolicy, io_error_kind, plaintext_client_builder, read_limited},
    secret::Secret,
    settings::SettingSource,
    subprocess::with_timeout,
};
use wire::health::ReadyReport;

use crate::{
    admin::{self, AdminRequest},
    config::Config,
};

/// The sidecar answers these requests from memory.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// Its routes for images.
pub(super) const GENERATIONS: &str = "/v1/images/generations";
pub(super) const EDITS: &str = "/v1/images/edits";
pub(super) const PROMPT: &str = "a red apple on a wooden table";

/// Runs async work of a command to its end.
pub(super) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// Where the running service says that it listens. None if none runs.
pub(super) fn running_address(sockets: &[PathBuf]) -> Option<SocketAddr> {
    let sockets = sockets.to_vec();
    let request = move || admin::send_request(&sockets, AdminRequest::Addresses).ok().flatten();
    let response = with_timeout(ADMIN_TIMEOUT, request).flatten()?;
    response.lines.first()?.parse().ok().map(|address| reachable(&address))
}

/// Where to ask: the address on the command line, else where the running service listens, which a socket unit may have
/// decided, else the configured address.
pub(super) fn service_address(config: &Config) -> Option<SocketAddr> {
    let is_explicit = matches!(config.listen_source, SettingSource::Flag(_));
    let running = if is_explicit { None } else { running_address(&config.admin.sockets) };
    running.or_else(|| config.listen.first().map(reachable))
}

/// An address to connect to, where the service listens on all of them.
pub(super) fn reachable(listen: &SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// What listens at the sidecar's address.
pub(super) struct SidecarClient {
    pub(super) address: SocketAddr,
    http: Client,
}

/// A response to a GET request.
pub(super) struct SidecarResponse {
    /// Whether its status is 2xx.
    pub(super) success: bool,
    pub(super) body: String,
}

impl SidecarClient {
    pub(super) fn new(address: SocketAddr) -> io::Result<Self> {
        let http = plaintext_client_builder(ConnectionPolicy::PerRequest).build();
        Ok(Self { address, http: http.map_err(io::Error::other)? })
    }

    /// None if nothing listens there.
    pub(super) async fn get(&self, path: &str, as_json: bool) -> io::Result<Option<SidecarResponse>> {
        let address = self.address;
        let accept = if as_json { "application/json" } else { "*/*" };
        let request = self.http.get(format!("http://{address}{path}")).header("accept", accept);
        let response = match request.timeout(RESPONSE_TIMEOUT).send().await {
            Ok(response) => response,
            Err(error) if io_error_kind(&error) == Some(io::ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => {
                return Err(io::Error::other(format!("the sidecar at {address} does not answer: {error}")));
            }
        };
        let success = response.status().is_success();
        let body = read_limited(response, MAX_RESPONSE_BYTES).await;
        let body = body.map_err(|error| io::Error::other(format!("the sidecar at {address}: {error:?}")))?;
        Ok(Some(SidecarResponse { success, body: String::from_utf8_lossy(&body).into_owned() }))
    }

    pub(super) async fn readiness(&self) -> Result<ReadyReport, String> {
        let response = self.get("/readyz", true).await.map_err(|error| error.to_string())?;
        let response = response.ok_or("the sidecar does not answer")?;
        serde_json::from_str(&response.body)
            .map_err(|_| format!("the server at {} is not the sidecar", self.address))
    }

    /// Orders one image as `sample` says. A model that rejects it, for its size or steps, makes one of its own choice.
    pub(super) async fn generate(
        &self,
        token: Option<&Secret>,
        sample: &Value,
        limit: Duration,
    ) -> Result<(StatusCode, Value), String> {
        match self.post(GENERATIONS, token, sample, limit).await? {
            (StatusCode::BAD_REQUEST, _) => {
                self.post(GENERATIONS, token, &json!({"prompt": PROMPT, "n": 1}), limit).await
            }
            response => Ok(response),
        }
    }

    /// Posts JSON to one of the image routes.
    pub(super) async fn post(
        &self,
        path: &str,
        token: Option<&Secret>,
        body: &Value,
        limit: Duration,
    ) -> Result<(StatusCode, Value), String> {
        let request = self.http.post(format!("http://{}{path}", self.address));
        let request = match token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = request.timeout(limit).send().await.map_err(|error| {
            if error.is_timeout() {
                format!("no response within {} s", limit.as_secs())
            } else {
                format!("no response: {error}")
            }
        })?;
        let status = response.status();
        let body = read_limited(response, MAX_RESPONSE_BYTES)
            .await
            .map_err(|error| format!("the response was cut off: {error:?}"))?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

/// The image of a response, if it is complete.
pub(super) fn decode_image(body: &Value) -> Result<(Vec<u8>, Format), String> {
    let encoded = body["data"][0]["b64_json"].as_str().ok_or("the response contains no image")?;
    let bytes = base64_simd::STANDARD.decode_to_vec(encoded).map_err(|_| "the image is not base64")?;
    let format = Format::detect(&bytes).map_err(|error| error.to_string())?;
    Ok((bytes, format))
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use wire::openai::images::ImageSize;

    use super::*;

    #[test]
    fn only_a_complete_image_counts() {
        let size = ImageSize::new(64, 64);
        let png = ProceduralImage { label: "a test", prompt: "x", seed: 1, size }.to_png();
        let decode = |encoded: &str| decode_image(&json!({"data": [{"b64_json": encoded}]}));
        let encoded = base64_simd::STANDARD.encode_to_string(&png);
        assert_eq!(decode(&encoded).unwrap(), (png.clone(), Format::Png));
        let cut = base64_simd::STANDARD.encode_to_string(&png[..png.len() / 2]);
        assert!(decode(&cut).unwrap_err().contains("cut off"));
        assert_eq!(decode("!").unwrap_err(), "the image is not base64");
        assert_eq!(decode_image(&json!({})).unwrap_err(), "the response contains no image");
    }
}
