//! One small image through the running service, end to end.

use std::{
    io,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use service::{doctor::Finding, secret::Secret};

use crate::commands::client::{PROMPT, SidecarClient, block_on, decode_image};

const NAME: &str = "generate";
/// A little longer than the service's default time limit.
const IMAGE_TIMEOUT: Duration = Duration::from_mins(5);

/// Requests it and checks the response.
pub(super) fn check_generation(
    client: &SidecarClient,
    token: Option<&Secret>,
    engine_unit: &str,
) -> io::Result<Finding> {
    let started = Instant::now();
    let sample = json!({"prompt": PROMPT, "size": "512x512"});
    let response = block_on(client.generate(token, &sample, IMAGE_TIMEOUT))?;
    Ok(evaluate(response, started.elapsed(), engine_unit))
}

fn evaluate(response: Result<(StatusCode, Value), String>, took: Duration, engine_unit: &str) -> Finding {
    let fix = format!("sudo journalctl -u ada2-sidecar -u {engine_unit} -n 50");
    let (status, body) = match response {
        Ok(response) => response,
        Err(error) => return Finding::fail(NAME, error, fix),
    };
    let error = &body["error"];
    let message = error["message"].as_str().unwrap_or("no reason given");
    match (status.as_u16(), error["code"].as_str().unwrap_or_default()) {
        (200, _) => match describe_image(&body) {
            Ok(image) => Finding::ok(NAME, format!("{image} in {:.1} s", took.as_secs_f64())),
            Err(error) => Finding::fail(NAME, error, fix),
        },
        (401, _) => Finding::skip(NAME, "this user cannot read the token: run with sudo"),
        (403, _) => Finding::skip(NAME, format!("allow_from does not include this host: {message}")),
        (429, _) => Finding::skip(NAME, format!("busy, try again later: {message}")),
        (503, "backend_not_ready") => Finding::skip(NAME, "not ready (see above)"),
        (400, _) => Finding::skip(NAME, format!("the default model rejects the request: {message}")),
        (code, _) => Finding::fail(NAME, format!("{code}: {message}"), fix),
    }
}

fn describe_image(body: &Value) -> Result<String, String> {
    let (bytes, format) = decode_image(body)?;
    let model = body["settings"]["model"].as_str().map(|model| format!(" by {model:?}"));
    Ok(format!("an image of {} KiB ({}){}", bytes.len() / 1024, format.name(), model.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use service::doctor::Verdict;
    use wire::openai::images::ImageSize;

    use super::*;

    #[test]
    fn a_response_is_an_image_or_a_reason() {
        let painted =
            ProceduralImage { label: "t", prompt: "p", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let complete = json!({"data": [{"b64_json": base64_simd::STANDARD.encode_to_string(&painted)}]});
        let cut = json!({"data": [{"b64_json": base64_simd::STANDARD.encode_to_string(&painted[..painted.len() / 2])}]});
        let error = |code: &str| json!({"error": {"message": "because", "code": code}});
        for (status, body, verdict, expected) in [
            (200, complete, Verdict::Ok, "(png) in 1.5 s"),
            (200, cut, Verdict::Fail, "cut off"),
            (200, json!({}), Verdict::Fail, "no image"),
            (401, error("invalid_api_key"), Verdict::Skip, "run with sudo"),
            (403, error("ip_not_allowed"), Verdict::Skip, "does not include this host"),
            (429, error("backend_overloaded"), Verdict::Skip, "busy"),
            (503, error("backend_not_ready"), Verdict::Skip, "see above"),
            (503, error("gpu_out_of_memory"), Verdict::Fail, "503: because"),
            (502, error("engine_error"), Verdict::Fail, "502: because"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let finding = evaluate(Ok((status, body)), Duration::from_millis(1500), "e.service");
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(expected), "{finding:?}");
        }
        assert_eq!(evaluate(Err("no answer".into()), Duration::ZERO, "e").verdict, Verdict::Fail);
    }
}
