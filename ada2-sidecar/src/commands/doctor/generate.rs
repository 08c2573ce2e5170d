//! One small picture through the running service, end to end.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use picture::Format;
use reqwest::StatusCode;
use serde_json::{Value, json};
use service::{
    doctor::Finding,
    outbound::{ConnectionPolicy, plaintext_client_builder, read_limited},
    secret::Secret,
};

use super::text::sanitize;

const NAME: &str = "generate";
/// A little longer than the service's own limit.
const IMAGE_TIMEOUT: Duration = Duration::from_mins(5);
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// Orders it and looks at what comes.
pub(super) fn check_generation(
    address: SocketAddr,
    token: Option<&Secret>,
    engine_unit: &str,
) -> io::Result<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    let response = runtime.block_on(async {
        let (status, body) =
            request_image(address, token, &json!({"prompt": "a red apple", "size": "512x512"})).await?;
        // A template may make another size only, and says so before any GPU time is spent.
        if status == StatusCode::BAD_REQUEST && body["error"]["param"] == "size" {
            return request_image(address, token, &json!({"prompt": "a red apple"})).await;
        }
        Ok((status, body))
    });
    Ok(evaluate(response, started.elapsed(), engine_unit))
}

async fn request_image(
    address: SocketAddr,
    token: Option<&Secret>,
    body: &Value,
) -> Result<(StatusCode, Value), String> {
    let client = plaintext_client_builder(ConnectionPolicy::PerRequest)
        .timeout(IMAGE_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let mut request = client.post(format!("http://{address}/v1/images/generations"));
    if let Some(token) = token {
        request = request.bearer_auth(token.expose());
    }
    let request = request.header("content-type", "application/json").body(body.to_string());
    let response = request.send().await.map_err(|error| format!("no answer: {error}"))?;
    let status = response.status();
    let body = read_limited(response, MAX_RESPONSE_BYTES)
        .await
        .map_err(|fault| format!("the answer broke off: {fault:?}"))?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn evaluate(response: Result<(StatusCode, Value), String>, took: Duration, engine_unit: &str) -> Finding {
    let fix = format!("sudo journalctl -u ada2-sidecar -u {engine_unit} -n 50");
    let (status, body) = match response {
        Ok(answer) => answer,
        Err(why) => return Finding::fail(NAME, sanitize(&why), fix),
    };
    let error = &body["error"];
    let message = sanitize(error["message"].as_str().unwrap_or("no reason given"));
    match (status.as_u16(), error["code"].as_str().unwrap_or_default()) {
        (200, _) => match describe_image(&body) {
            Ok(what) => Finding::ok(NAME, format!("{what} in {:.1} s", took.as_secs_f64())),
            Err(why) => Finding::fail(NAME, why, fix),
        },
        (401, _) => Finding::skip(NAME, "the token cannot be read by this user: run with sudo"),
        (403, _) => Finding::skip(NAME, format!("this host itself is not let in: {message}")),
        (429, _) => Finding::skip(NAME, format!("busy, try again later: {message}")),
        (503, "backend_not_ready") => Finding::skip(NAME, "not ready, as told above"),
        (400, _) => Finding::skip(NAME, format!("the default model does not take it: {message}")),
        (code, _) => Finding::fail(NAME, format!("{code}: {message}"), fix),
    }
}

/// What came, if it is a whole picture.
fn describe_image(body: &Value) -> Result<String, String> {
    let encoded = body["data"][0]["b64_json"].as_str().ok_or("the answer holds no picture")?;
    let bytes = base64_simd::STANDARD.decode_to_vec(encoded).map_err(|_| "the picture is no base64")?;
    let format = Format::detect(&bytes).map_err(|why| why.to_string())?;
    let model = body["settings"]["model"].as_str().map(|model| format!(" by {:?}", sanitize(model)));
    Ok(format!("a picture of {} KiB ({}){}", bytes.len() / 1024, format.name(), model.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use service::doctor::Verdict;
    use wire::openai::images::ImageSize;

    use super::*;

    #[test]
    fn an_answer_is_a_picture_or_a_reason() {
        let painted =
            ProceduralImage { label: "t", prompt: "p", seed: 1, size: ImageSize::new(64, 64) }.to_png();
        let whole = json!({"data": [{"b64_json": base64_simd::STANDARD.encode_to_string(&painted)}]});
        let cut = json!({"data": [{"b64_json": base64_simd::STANDARD.encode_to_string(&painted[..painted.len() / 2])}]});
        let error = |code: &str| json!({"error": {"message": "because", "code": code}});
        for (status, body, verdict, says) in [
            (200, whole, Verdict::Ok, "(png) in 1.5 s"),
            (200, cut, Verdict::Fail, "cut off"),
            (200, json!({}), Verdict::Fail, "no picture"),
            (401, error("invalid_api_key"), Verdict::Skip, "run with sudo"),
            (403, error("ip_not_allowed"), Verdict::Skip, "not let in"),
            (429, error("backend_overloaded"), Verdict::Skip, "busy"),
            (503, error("backend_not_ready"), Verdict::Skip, "as told above"),
            (503, error("gpu_out_of_memory"), Verdict::Fail, "503: because"),
            (502, error("engine_error"), Verdict::Fail, "502: because"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let found = evaluate(Ok((status, body)), Duration::from_millis(1500), "e.service");
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.message.contains(says), "{found:?}");
        }
        assert_eq!(evaluate(Err("no answer".into()), Duration::ZERO, "e").verdict, Verdict::Fail);
    }
}
