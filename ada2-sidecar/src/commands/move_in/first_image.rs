//! The proof: the sidecar is ready, and a picture comes through it.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use picture::Format;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use service::{
    outbound::{ConnectionPolicy, plaintext_client_builder, read_limited},
    secret::Secret,
};
use tokio_util::sync::CancellationToken;
use wire::health::ReadyReport;

use super::{
    record::Plan,
    reporter::{MoveError, StepReporter},
    units,
    worker::interrupted,
};
use crate::{commands::show::reachable, config::Config};

const POLL: Duration = Duration::from_millis(200);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_BYTES: usize = 64 << 20;
const PROMPT: &str = "a red apple on a wooden table";

/// Waits for `/readyz`, and says what is missing where it does not come.
pub(crate) fn wait_until_ready(
    plan: &Plan,
    cancel: &CancellationToken,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let (address, limit) = (address(&plan.addresses), Duration::from_secs(plan.ready_seconds));
    let started = Instant::now();
    let report = block_on(cancel, async {
        let client = client(RESPONSE_TIMEOUT)?;
        loop {
            let last = match fetch_readiness(&client, address).await {
                Ok(report) if report.admits() => return Ok(report),
                Ok(report) => report.failing_message(),
                Err(why) => why,
            };
            if started.elapsed() > limit {
                let message = format!("not ready within {} s: {last}", limit.as_secs());
                return Err(MoveError::new(
                    "ready",
                    message,
                    "fix what it names, or give it longer (--wait 300), then again",
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    })?;
    reporter.ok("ready", &format!("{} after {:.1} s", report.summary(), started.elapsed().as_secs_f32()));
    Ok(())
}

/// Whether it is ready now.
pub(crate) fn check_ready(addresses: &[SocketAddr], reporter: &mut StepReporter) -> Result<(), MoveError> {
    let address = address(addresses);
    let report = block_on(&CancellationToken::new(), async {
        let response = fetch_readiness(&client(RESPONSE_TIMEOUT)?, address).await;
        response.map_err(|why| MoveError::new("ready", why, "`systemctl status ada2-sidecar`"))
    })?;
    if !report.admits() {
        return Err(MoveError::new("ready", report.summary(), "`ada2-sidecar readyz` shows every check"));
    }
    reporter.ok("ready", &report.summary());
    Ok(())
}

async fn fetch_readiness(client: &Client, address: SocketAddr) -> Result<ReadyReport, String> {
    let request = client.get(format!("http://{address}/readyz")).header("accept", "application/json");
    let response = request.send().await.map_err(|_| "the sidecar does not answer".to_owned())?;
    let body = read_limited(response, MAX_RESPONSE_BYTES)
        .await
        .map_err(|_| "the sidecar's answer broke off".to_owned())?;
    serde_json::from_slice(&body).map_err(|_| format!("what answers at {address} is no sidecar"))
}

/// One picture of the default model, small and with few steps.
pub(crate) fn generate(
    plan: &Plan,
    config: &Config,
    cancel: &CancellationToken,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let (address, started) = (address(&plan.addresses), Instant::now());
    let token = token(config);
    let size = block_on(cancel, async {
        let client = client(config.request_timeout + RESPONSE_TIMEOUT)?;
        let small = json!({"prompt": PROMPT, "n": 1, "size": "512x512", "steps": 4});
        let mut response = send(&client, address, token.as_ref(), &small).await?;
        if response.0 == StatusCode::BAD_REQUEST {
            // A workflow may have a size or a number of steps of its own. Nothing was painted for it.
            let bare = json!({"prompt": PROMPT, "n": 1});
            response = send(&client, address, token.as_ref(), &bare).await?;
        }
        image_bytes(&response)
    })?;
    let seconds = started.elapsed().as_secs_f32();
    reporter.ok(
        "picture",
        &format!("{} kB after {seconds:.1} s, through http://{address}/v1/images/generations", size / 1000),
    );
    Ok(())
}

async fn send(
    client: &Client,
    address: SocketAddr,
    token: Option<&Secret>,
    body: &Value,
) -> Result<(StatusCode, Value), MoveError> {
    let request = client.post(format!("http://{address}/v1/images/generations"));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let bearer = |request: RequestBuilder, token: &Secret| request.bearer_auth(token.expose());
    let request = match token {
        Some(token) => bearer(request, token),
        None => request,
    };
    let failed = |why: &str| MoveError::new("picture", format!("no picture: {why}"), engine_log());
    let response = request.send().await.map_err(|error| {
        failed(if error.is_timeout() { "no answer within request_timeout" } else { "the connection broke" })
    })?;
    let status = response.status();
    let body =
        read_limited(response, MAX_RESPONSE_BYTES).await.map_err(|_| failed("the answer broke off"))?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn engine_log() -> String {
    "look at the engine's log (`journalctl -u` its unit), then `sudo ada2-sidecar move-in` again".to_owned()
}

/// The picture's size in bytes.
fn image_bytes((status, answer): &(StatusCode, Value)) -> Result<usize, MoveError> {
    let text_at = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    let failed = |why: String| MoveError::new("picture", format!("no picture: {why}"), engine_log());
    if !status.is_success() {
        let why = text_at("/error/message").unwrap_or("no reason given");
        return Err(failed(format!("{}: {why}", status.as_u16())));
    }
    let encoded = text_at("/data/0/b64_json").ok_or_else(|| failed("the answer holds none".to_owned()))?;
    let bytes = base64_simd::STANDARD.decode_to_vec(encoded.as_bytes());
    let bytes = bytes.map_err(|_| failed("what came is no base64".to_owned()))?;
    Format::detect(&bytes).map_err(|why| failed(why.to_string()))?;
    Ok(bytes.len())
}

/// The configuration's, or the one that systemd passes to the service.
fn token(config: &Config) -> Option<Secret> {
    let credential = || Secret::new(&fs::read_to_string(units::token_credential()?).ok()?);
    config.token.clone().or_else(credential)
}

fn address(addresses: &[SocketAddr]) -> SocketAddr {
    reachable(addresses.first().unwrap_or(&SocketAddr::from(([0, 0, 0, 0], 7860))))
}

fn client(limit: Duration) -> Result<Client, MoveError> {
    let built = plaintext_client_builder(ConnectionPolicy::PerRequest).timeout(limit).build();
    built.map_err(|error| MoveError::from_cause("sidecar", "no HTTP client", error))
}

/// Ends early when the command is told to stop.
fn block_on<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, MoveError>>,
) -> Result<T, MoveError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| MoveError::from_cause("sidecar", "no HTTP client", error))?;
    runtime.block_on(async { cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(interrupted())) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_picture_counts() {
        let size = wire::openai::images::ImageSize { width: 64, height: 64 };
        let png = picture::painter::ProceduralImage { label: "a test", prompt: "x", seed: 1, size }.to_png();
        let encoded = base64_simd::STANDARD.encode_to_string(&png);
        let answer = |status, value| image_bytes(&(status, value));
        assert_eq!(answer(StatusCode::OK, json!({"data": [{"b64_json": encoded}]})), Ok(png.len()));
        for (status, value, says) in [
            (StatusCode::OK, json!({"data": [{"b64_json": &encoded[..40]}]}), "no picture"),
            (StatusCode::OK, json!({}), "the answer holds none"),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"error": {"message": "no room"}}),
                "no picture: 503: no room",
            ),
            (StatusCode::BAD_GATEWAY, json!("x"), "502: no reason given"),
        ] {
            let stop = answer(status, value).unwrap_err();
            assert!(stop.message.contains(says), "{}", stop.message);
        }
    }
}
