//! The checks that need GPU time.

use std::time::Duration;

use axum::http::header;
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use service::text::{ellipsize, prefix};

use super::{
    super::target::{GatewayTarget, Reply},
    CheckResult, MAX_CHARS, expect_equal, expect_error, expect_status, images_class,
};
use crate::store::{EncodedImage, ImageName};

/// A little longer than the gateway's own timeout.
const IMAGE_TIMEOUT: Duration = Duration::from_mins(5);

/// Has an image made, fetches it as a browser does, and compares its hash with its name.
pub(in crate::commands) async fn generate(target: &GatewayTarget, status: &Value) -> CheckResult {
    let reply = Reply::send(image_request(target).timeout(IMAGE_TIMEOUT)).await?;
    expect_status(&reply, 200)?;
    let is_mock = status["gateway"]["images_backend"] == "mock";
    let backend = if is_mock { "mock" } else { images_class(status)? };
    expect_equal("X-Backend-Used", reply.header("x-backend-used"), backend)?;
    let body = reply.json();
    let url = body["data"][0]["url"].as_str().ok_or("expected data[0].url in the answer")?;
    let shown_url = ellipsize(url, MAX_CHARS);
    let fetched = Reply::send(target.anonymous(Method::GET, &path_of(target, url)?)).await?;
    expect_status(&fetched, 200).map_err(|why| format!("{shown_url}: {why}"))?;
    check_hash(url, &fetched.body)?;
    expect_equal("X-Content-Type-Options", fetched.header("x-content-type-options"), "nosniff")?;
    let (bytes, content_type) = (fetched.body.len(), prefix(fetched.header("content-type"), MAX_CHARS));
    Ok(format!("{shown_url} has {bytes} bytes of {content_type}, and their SHA-256 in its name"))
}

/// The path alone, as `PUBLIC_BASE_URL` may name another host than the one that is verified.
fn path_of(target: &GatewayTarget, url: &str) -> Result<String, String> {
    let invalid = |_| format!("data[0].url is not a URL: {}", ellipsize(url, MAX_CHARS));
    let url = target.base.join(url).map_err(invalid)?;
    Ok(url.path().to_owned())
}

fn check_hash(url: &str, bytes: &[u8]) -> Result<(), String> {
    let name = url.rsplit('/').next().and_then(ImageName::parse).ok_or_else(|| {
        format!("expected /ui/images/{{unix}}_{{hash}}.png, found {}", ellipsize(url, MAX_CHARS))
    })?;
    let image =
        EncodedImage::from_bytes(bytes.to_vec()).map_err(|why| format!("expected an image: {why}"))?;
    expect_equal("the hash in the name", name.hash(), image.name(0).hash())
}

/// Sends one request more than there are slots, at once: exactly one is refused.
pub(in crate::commands) async fn overload(target: &GatewayTarget, status: &Value) -> CheckResult {
    let key = format!("{}.images", images_class(status)?);
    let slots = &status["admission_control"][&key];
    let limit = slots["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.ok_or_else(|| format!("the status has no limit for {key}"))?;
    if slots["inflight"] != 0 {
        return Err("other image requests are running: try again when the gateway is idle".to_owned());
    }
    let requests = (0..=limit).map(|_| Reply::send(image_request(target).timeout(IMAGE_TIMEOUT)));
    let replies = join_all(requests).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (refused, others): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.as_u16() == 429);
    let [refused] = refused.as_slice() else {
        return Err(format!(
            "expected one 429 for {} concurrent requests, found {}",
            limit + 1,
            refused.len()
        ));
    };
    expect_error(refused, 429, "backend_overloaded")?;
    expect_equal("Retry-After", refused.header("retry-after"), "5")?;
    others.into_iter().try_for_each(|reply| expect_status(reply, 200))?;
    Ok(format!("of {} concurrent requests, one was answered with 429, Retry-After: 5", limit + 1))
}

fn image_request(target: &GatewayTarget) -> RequestBuilder {
    let body = json!({"prompt": "gateway verify: a lighthouse at dawn", "size": "512x512", "response_format": "url"});
    target
        .request(Method::POST, "/v1/images/generations")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_another_hash_fails() {
        let bytes = picture::painter::ProceduralImage {
            label: "t",
            prompt: "p",
            seed: 1,
            size: wire::openai::images::ImageSize::new(64, 64),
        }
        .to_png();
        let name = EncodedImage::from_bytes(bytes.clone()).unwrap().name(7);
        assert_eq!(check_hash(&format!("/ui/images/{}", name.as_str()), &bytes), Ok(()));
        assert!(
            check_hash("/ui/images/7_0123456789abcdef.png", &bytes)
                .unwrap_err()
                .contains("the hash in the name")
        );
        assert!(check_hash("/elsewhere.png", &bytes).unwrap_err().contains("{unix}"));
        assert!(check_hash("/ui/images/7_0123456789abcdef.png", b"<html>").unwrap_err().contains("an image"));
    }
}
