//! The proof that the move worked: the sidecar is ready and makes an image.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use service::secret::Secret;
use tokio_util::sync::CancellationToken;

use super::{
    record::Plan,
    reporter::{MoveError, StepReporter},
};
use crate::{
    commands::{
        client::{PROMPT, SidecarClient, block_on, decode_image, reachable},
        systemd::{SERVICE, SystemdUnit},
    },
    config::Config,
};

const POLL: Duration = Duration::from_millis(200);
/// Added to the service's own time limit.
const RESPONSE_MARGIN: Duration = Duration::from_secs(5);

/// Waits until `/readyz` is ready. The error names what is missing.
pub(crate) fn wait_until_ready(
    plan: &Plan,
    cancel: &CancellationToken,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let client = client(&plan.addresses)?;
    let (started, limit) = (Instant::now(), Duration::from_secs(plan.ready_seconds));
    let report = run_until_cancelled(cancel, async {
        loop {
            let failure = match client.readiness().await {
                Ok(report) if report.admits() => return Ok(report),
                Ok(report) => report.failing_message(),
                Err(error) => error,
            };
            if started.elapsed() > limit {
                return Err(MoveError::new(
                    "ready",
                    format!("not ready within {} s: {failure}", limit.as_secs()),
                    "fix what it names, or wait longer (--wait 300), then again",
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
    let client = client(addresses)?;
    let report = run_until_cancelled(&CancellationToken::new(), async {
        let report = client.readiness().await;
        report.map_err(|error| MoveError::new("ready", error, "`systemctl status ada2-sidecar`"))
    })?;
    if !report.admits() {
        return Err(MoveError::new("ready", report.summary(), "`ada2-sidecar readyz` shows every check"));
    }
    reporter.ok("ready", &report.summary());
    Ok(())
}

/// One image of the default model, small and with few steps.
pub(crate) fn generate(
    plan: &Plan,
    config: &Config,
    cancel: &CancellationToken,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let (client, token, started) = (client(&plan.addresses)?, token(config), Instant::now());
    let sample = json!({"prompt": PROMPT, "n": 1, "size": "512x512", "steps": 4});
    let limit = config.request_timeout + RESPONSE_MARGIN;
    let size = run_until_cancelled(cancel, async {
        image_size(client.generate(token.as_ref(), &sample, limit).await)
    })?;
    let (kilobytes, seconds) = (size / 1000, started.elapsed().as_secs_f32());
    let message = format!(
        "{kilobytes} kB after {seconds:.1} s, through http://{}/v1/images/generations",
        client.address
    );
    reporter.ok("picture", &message);
    Ok(())
}

/// The image's size in bytes.
fn image_size(response: Result<(StatusCode, Value), String>) -> Result<usize, MoveError> {
    let size = response.and_then(|(status, body)| {
        if status.is_success() {
            return decode_image(&body).map(|(bytes, _)| bytes.len());
        }
        let reason = body["error"]["message"].as_str().unwrap_or("no reason given");
        Err(format!("{}: {reason}", status.as_u16()))
    });
    size.map_err(|error| {
        let fix = "check the engine's log (`journalctl -u` its unit), then `sudo ada2-sidecar move-in` again";
        MoveError::new("picture", format!("no image: {error}"), fix)
    })
}

/// From the configuration, or from the credential that systemd passes to the service.
fn token(config: &Config) -> Option<Secret> {
    let credential =
        || Secret::new(&fs::read_to_string(SystemdUnit::query(SERVICE)?.token_credential()?).ok()?);
    config.token.clone().or_else(credential)
}

fn client(addresses: &[SocketAddr]) -> Result<SidecarClient, MoveError> {
    let address = addresses.first().copied().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 7860)));
    let client = SidecarClient::new(reachable(&address));
    client.map_err(|error| MoveError::from_cause("sidecar", "no HTTP client", error))
}

/// Ends early when the command is interrupted.
fn run_until_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, MoveError>>,
) -> Result<T, MoveError> {
    let result = block_on(async {
        cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(MoveError::interrupted()))
    });
    result.map_err(|error| MoveError::from_cause("sidecar", "no HTTP client", error))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_measured_and_a_failure_names_its_reason() {
        let size = wire::openai::images::ImageSize { width: 64, height: 64 };
        let png = picture::painter::ProceduralImage { label: "a test", prompt: "x", seed: 1, size }.to_png();
        let encoded = base64_simd::STANDARD.encode_to_string(&png);
        let response = |status, value| image_size(Ok((status, value)));
        assert_eq!(response(StatusCode::OK, json!({"data": [{"b64_json": encoded}]})), Ok(png.len()));
        for (status, value, expected) in [
            (StatusCode::OK, json!({"data": [{"b64_json": &encoded[..40]}]}), "no image"),
            (StatusCode::OK, json!({}), "the response contains no image"),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"error": {"message": "no room"}}),
                "no image: 503: no room",
            ),
            (StatusCode::BAD_GATEWAY, json!("x"), "502: no reason given"),
        ] {
            let error = response(status, value).unwrap_err();
            assert!(error.message.contains(expected), "{}", error.message);
        }
    }
}
