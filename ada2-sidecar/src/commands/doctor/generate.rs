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
    outbound::{Connections, plain_builder, read_limited},
    secret::Secret,
};

use super::text::clean;

const NAME: &str = "generate";
/// A little longer than the service's own limit.
const PICTURE_TIME: Duration = Duration::from_mins(5);
const MAX_ANSWER: usize = 64 << 20;

/// Orders it and looks at what comes.
pub(super) fn generate(
    address: SocketAddr,
    token: Option<&Secret>,
    engine_unit: &str,
) -> io::Result<Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let answer = runtime.block_on(async {
        let (status, body) =
            order(address, token, &json!({"prompt": "a red apple", "size": "512x512"})).await?;
        // A template may make another size only, and says so before any GPU time is spent.
        if status == StatusCode::BAD_REQUEST && body["error"]["param"] == "size" {
            return order(address, token, &json!({"prompt": "a red apple"})).await;
        }
        Ok((status, body))
    });
    Ok(judge(answer, begun.elapsed(), engine_unit))
}

async fn order(
    address: SocketAddr,
    token: Option<&Secret>,
    body: &Value,
) -> Result<(StatusCode, Value), String> {
    let client =
        plain_builder(Connections::Fresh).timeout(PICTURE_TIME).build().map_err(|error| error.to_string())?;
    let mut request = client.post(format!("http://{address}/v1/images/generations"));
    if let Some(token) = token {
        request = request.bearer_auth(token.expose());
    }
    let request = request.header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.map_err(|error| format!("no answer: {error}"))?;
    let status = answer.status();
    let body =
        read_limited(answer, MAX_ANSWER).await.map_err(|fault| format!("the answer broke off: {fault:?}"))?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}

fn judge(answer: Result<(StatusCode, Value), String>, took: Duration, engine_unit: &str) -> Finding {
    let look = format!("sudo journalctl -u ada2-sidecar -u {engine_unit} -n 50");
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(why) => return Finding::fail(NAME, clean(&why), look),
    };
    let error = &body["error"];
    let words = clean(error["message"].as_str().unwrap_or("no reason given"));
    match (status.as_u16(), error["code"].as_str().unwrap_or_default()) {
        (200, _) => match picture(&body) {
            Ok(what) => Finding::ok(NAME, format!("{what} in {:.1} s", took.as_secs_f64())),
            Err(why) => Finding::fail(NAME, why, look),
        },
        (401, _) => Finding::skip(NAME, "the token cannot be read by this user: run with sudo"),
        (403, _) => Finding::skip(NAME, format!("this host itself is not let in: {words}")),
        (429, _) => Finding::skip(NAME, format!("busy, try again later: {words}")),
        (503, "backend_not_ready") => Finding::skip(NAME, "not ready, as told above"),
        (400, _) => Finding::skip(NAME, format!("the default model does not take it: {words}")),
        (code, _) => Finding::fail(NAME, format!("{code}: {words}"), look),
    }
}

/// What came, if it is a whole picture.
fn picture(body: &Value) -> Result<String, String> {
    let encoded = body["data"][0]["b64_json"].as_str().ok_or("the answer holds no picture")?;
    let bytes = base64_simd::STANDARD.decode_to_vec(encoded).map_err(|_| "the picture is no base64")?;
    let format = Format::of_whole(&bytes).map_err(|why| why.to_string())?;
    let model = body["settings"]["model"].as_str().map(|model| format!(" by {:?}", clean(model)));
    Ok(format!("a picture of {} KiB ({}){}", bytes.len() / 1024, format.name(), model.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use picture::paint::Painting;
    use service::doctor::Verdict;
    use wire::openai::images::Size;

    use super::*;

    #[test]
    fn an_answer_is_a_picture_or_a_reason() {
        let painted = Painting { painter: "t", prompt: "p", seed: 1, size: Size::new(64, 64) }.to_png();
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
            let found = judge(Ok((status, body)), Duration::from_millis(1500), "e.service");
            assert_eq!(found.verdict, verdict, "{found:?}");
            assert!(found.message.contains(says), "{found:?}");
        }
        assert_eq!(judge(Err("no answer".into()), Duration::ZERO, "e").verdict, Verdict::Fail);
    }
}
