//! The checks that spend GPU time.

use std::time::Duration;

use axum::http::header;
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{
    super::ask::{Reply, Target, shown},
    Outcome, error_is, images_class, is, status_is,
};
use crate::store::{Picture, PictureName};

/// A little longer than the gateway's own patience.
const PICTURE_TIME: Duration = Duration::from_mins(5);

/// One picture, fetched as a browser does, whose name says what its bytes are.
pub(in crate::commands) async fn generate(target: &Target, status: &Value) -> Outcome {
    let reply = Reply::to(order(target).timeout(PICTURE_TIME)).await?;
    status_is(&reply, 200)?;
    let mock = status["gateway"]["images_backend"] == "mock";
    is("X-Backend-Used", reply.header("x-backend-used"), if mock { "mock" } else { images_class(status)? })?;
    let answer = reply.json();
    let url = answer["data"][0]["url"].as_str().ok_or("expected data[0].url in the answer")?;
    let fetched = Reply::to(target.anonymous(Method::GET, &here(target, url)?)).await?;
    status_is(&fetched, 200).map_err(|why| format!("{}: {why}", shown(url)))?;
    hashed(url, &fetched.body)?;
    is("X-Content-Type-Options", fetched.header("x-content-type-options"), "nosniff")?;
    let kind = shown(fetched.header("content-type"));
    Ok(format!("{} is {} bytes of {kind}, and its name tells their SHA-256", shown(url), fetched.body.len()))
}

/// The path alone, asked of the gateway that is verified: `PUBLIC_BASE_URL` may name it otherwise.
fn here(target: &Target, url: &str) -> Result<String, String> {
    let url = target.base.join(url).map_err(|_| format!("data[0].url is no address: {}", shown(url)))?;
    Ok(url.path().to_owned())
}

fn hashed(url: &str, bytes: &[u8]) -> Result<(), String> {
    let name = url.rsplit('/').next().and_then(PictureName::parse);
    let name =
        name.ok_or_else(|| format!("expected /ui/images/{{unix}}_{{hash}}.png, found {}", shown(url)))?;
    let picture = Picture::of(bytes.to_vec()).map_err(|why| format!("expected a picture: {why}"))?;
    is("the hash in the name", name.hash(), picture.name(0).hash())
}

/// One more than there are places, at once: exactly one is told to come back.
pub(in crate::commands) async fn overload(target: &Target, status: &Value) -> Outcome {
    let key = format!("{}.images", images_class(status)?);
    let places = &status["admission_control"][&key];
    let limit = places["limit"].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.ok_or_else(|| format!("the status has no limit for {}", shown(&key)))?;
    if places["inflight"] != 0 {
        return Err("others have pictures made now: try again when the gateway is idle".to_owned());
    }
    let orders = (0..=limit).map(|_| Reply::to(order(target).timeout(PICTURE_TIME)));
    let replies = join_all(orders).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    let (refused, others): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.as_u16() == 429);
    let [refused] = refused.as_slice() else {
        return Err(format!("expected one 429 of {} at once, found {}", limit + 1, refused.len()));
    };
    error_is(refused, 429, "backend_overloaded")?;
    is("Retry-After", refused.header("retry-after"), "5")?;
    others.into_iter().try_for_each(|reply| status_is(reply, 200))?;
    Ok(format!("of {} at once one was answered 429, Retry-After: 5", limit + 1))
}

fn order(target: &Target) -> RequestBuilder {
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
        let bytes = picture::paint::Painting {
            painter: "t",
            prompt: "p",
            seed: 1,
            size: wire::openai::images::Size::new(64, 64),
        }
        .to_png();
        let name = Picture::of(bytes.clone()).unwrap().name(7);
        assert_eq!(hashed(&format!("/ui/images/{}", name.as_str()), &bytes), Ok(()));
        assert!(
            hashed("/ui/images/7_0123456789abcdef.png", &bytes).unwrap_err().contains("the hash in the name")
        );
        assert!(hashed("/elsewhere.png", &bytes).unwrap_err().contains("{unix}"));
        assert!(hashed("/ui/images/7_0123456789abcdef.png", b"<html>").unwrap_err().contains("a picture"));
    }
}
