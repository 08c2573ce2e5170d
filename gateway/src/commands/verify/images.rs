//! The checks that spend GPU time.

use std::time::Duration;

use axum::http::header;
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{
    super::target::{GatewayTarget, Reply, escaped},
    CheckResult, expect_equal, expect_error, expect_status, images_class,
};
use crate::store::{EncodedImage, ImageName};

/// A little longer than the gateway's own patience.
const IMAGE_TIMEOUT: Duration = Duration::from_mins(5);

/// One picture, fetched as a browser does, whose name says what its bytes are.
pub(in crate::commands) async fn generate(target: &GatewayTarget, status: &Value) -> CheckResult {
    let reply = Reply::send(image_request(target).timeout(IMAGE_TIMEOUT)).await?;
    expect_status(&reply, 200)?;
    let mock = status["gateway"]["images_backend"] == "mock";
    expect_equal(
        "X-Backend-Used",
        reply.header("x-backend-used"),
        if mock { "mock" } else { images_class(status)? },
    )?;
    let answer = reply.json();
    let url = answer["data"][0]["url"].as_str().ok_or("expected data[0].url in the answer")?;
    let fetched = Reply::send(target.anonymous(Method::GET, &path_of(target, url)?)).await?;
    expect_status(&fetched, 200).map_err(|why| format!("{}: {why}", escaped(url)))?;
    check_hash(url, &fetched.body)?;
    expect_equal("X-Content-Type-Options", fetched.header("x-content-type-options"), "nosniff")?;
    let kind = escaped(fetched.header("content-type"));
    Ok(format!(
        "{} is {} bytes of {kind}, and its name tells their SHA-256",
        escaped(url),
        fetched.body.len()
    ))
}

/// The path alone, asked of the gateway that is verified: `PUBLIC_BASE_URL` may name it otherwise.
fn path_of(target: &GatewayTarget, url: &str) -> Result<String, String> {
    let url = target.base.join(url).map_err(|_| format!("data[0].url is no address: {}", escaped(url)))?;
    Ok(url.path().to_owned())
}

fn check_hash(url: &str, bytes: &[u8]) -> Result<(), String> {
    let name = url.rsplit('/').next().and_then(ImageName::parse);
    let name =
        name.ok_or_else(|| format!("expected /ui/images/{{unix}}_{{hash}}.png, found {}", escaped(url)))?;
    let image =
        EncodedImage::from_bytes(bytes.to_vec()).map_err(|why| format!("expected a picture: {why}"))?;
    expect_equal("the hash in the name", name.hash(), image.name(0).hash())
}

/// One more than there are places, at once: exactly one is told to come back.
pub(in crate::commands) async fn overload(target: &GatewayTarget, status: &Value) -> CheckResult {
    let key = format!("{}.images", images_class(status)?);
    let places = &status["admission_control"][&key];
    let limit = places["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.ok_or_else(|| format!("the status has no limit for {}", escaped(&key)))?;
    if places["inflight"] != 0 {
        return Err("others have pictures made now: try again when the gateway is idle".to_owned());
    }
    let orders = (0..=limit).map(|_| Reply::send(image_request(target).timeout(IMAGE_TIMEOUT)));
    let replies = join_all(orders).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (refused, others): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.as_u16() == 429);
    let [refused] = refused.as_slice() else {
        return Err(format!("expected one 429 of {} at once, found {}", limit + 1, refused.len()));
    };
    expect_error(refused, 429, "backend_overloaded")?;
    expect_equal("Retry-After", refused.header("retry-after"), "5")?;
    others.into_iter().try_for_each(|reply| expect_status(reply, 200))?;
    Ok(format!("of {} at once one was answered 429, Retry-After: 5", limit + 1))
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
    fn a_name_that_tells_other_bytes_fails() {
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
        assert!(
            check_hash("/ui/images/7_0123456789abcdef.png", b"<html>").unwrap_err().contains("a picture")
        );
    }
}
