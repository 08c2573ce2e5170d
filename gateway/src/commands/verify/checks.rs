//! The checks that need no GPU time.

use axum::http::header;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use service::text::ellipsize;

use super::{
    super::target::{GatewayTarget, Reply},
    CheckResult, MAX_CHARS, expect_equal, expect_error, expect_status, images_class,
};

const UNKNOWN_BACKEND: &str = "no-such-backend";

pub(super) async fn health(target: &GatewayTarget) -> CheckResult {
    let reply = Reply::send(target.anonymous(Method::GET, "/healthz")).await?;
    expect_status(&reply, 200)?;
    Ok("/healthz answers 200 without token".to_owned())
}

pub(super) async fn readyz(target: &GatewayTarget) -> CheckResult {
    let reply = Reply::send(target.anonymous(Method::GET, "/readyz")).await?;
    expect_status(&reply, 200)?;
    expect_equal("the text", String::from_utf8_lossy(&reply.body).trim(), "ready")?;
    Ok("/readyz answers 200, ready".to_owned())
}

pub(super) async fn without_token(target: &GatewayTarget) -> CheckResult {
    expect_unauthorized(target.anonymous(Method::GET, "/v1/models")).await?;
    Ok("/v1/models answers 401 and asks for a bearer token".to_owned())
}

pub(super) async fn wrong_token(target: &GatewayTarget) -> CheckResult {
    expect_unauthorized(
        target.anonymous(Method::GET, "/v1/models").bearer_auth("not-a-token-of-this-gateway"),
    )
    .await?;
    Ok("an unknown token is answered with 401".to_owned())
}

async fn expect_unauthorized(request: RequestBuilder) -> Result<(), String> {
    let reply = Reply::send(request).await?;
    expect_error(&reply, 401, "invalid_api_key")?;
    expect_equal("WWW-Authenticate", reply.header("www-authenticate"), "Bearer")
}

pub(super) async fn models(target: &GatewayTarget) -> CheckResult {
    let reply = Reply::send(target.request(Method::GET, "/v1/models")).await?;
    expect_status(&reply, 200)?;
    let list = reply.json();
    expect_equal("object", list["object"].as_str().unwrap_or_default(), "list")?;
    let models = list["data"].as_array().ok_or("expected a list under data")?;
    Ok(format!("{} models from the backends that are ready", models.len()))
}

pub(super) fn status_keys(status: &Value) -> CheckResult {
    let object = |name: &str| status[name].as_object().ok_or_else(|| format!("expected the key {name}"));
    let limits = object("admission_control")?;
    for (key, value) in limits {
        for name in ["limit", "available", "inflight"] {
            if !value[name].is_u64() {
                return Err(format!("expected the number admission_control.{key}.{name}"));
            }
        }
    }
    let backends = object("backend_health")?;
    for (class, value) in backends {
        if !(value["healthy"].is_boolean() && value["ready"].is_boolean()) {
            return Err(format!("expected healthy and ready in backend_health.{class}"));
        }
    }
    if !status["gateway"]["version"].is_string() {
        return Err("expected the key gateway.version".to_owned());
    }
    Ok(format!("{} backends, {} limits", backends.len(), limits.len()))
}

pub(in crate::commands) fn images_backend(status: &Value) -> CheckResult {
    let class = images_class(status)?;
    if status["gateway"]["images_backend"] == "mock" {
        return Ok("placeholders: IMAGES_BACKEND is mock, no backend is used".to_owned());
    }
    let health = &status["backend_health"][class];
    if health.is_null() {
        return Ok(format!("no backend makes images: {class} is not configured"));
    }
    if health["ready"] == true {
        return Ok(format!("{class} is ready"));
    }
    let why = health["error"].as_str().unwrap_or("the status does not say why");
    Err(format!("{class} is not ready: {}", ellipsize(why, MAX_CHARS)))
}

/// Image requests never go to another backend.
pub(super) async fn other_backend_refuses_images(target: &GatewayTarget, status: &Value) -> CheckResult {
    let class = images_class(status)?;
    let backends = status["backend_health"].as_object().ok_or("the status names no backends")?;
    let others = || backends.keys().filter(|other| *other != class);
    let Some(other) = others().find(|other| *other == "local_mlx").or_else(|| others().next()) else {
        return Ok(format!("there is no backend other than {class}"));
    };
    let reply = Reply::send(image_request(target, other)).await?;
    expect_error(&reply, 400, "capability_not_supported")?;
    let expected = format!("Backend {other} does not support images");
    expect_equal("the message", reply.json()["error"]["message"].as_str().unwrap_or_default(), &expected)?;
    Ok(format!("X-Backend: {other} answers 400: {expected}"))
}

pub(super) async fn unknown_backend(target: &GatewayTarget) -> CheckResult {
    expect_error(&Reply::send(image_request(target, UNKNOWN_BACKEND)).await?, 400, "backend_not_found")?;
    Ok(format!("X-Backend: {UNKNOWN_BACKEND} answers 400"))
}

fn image_request(target: &GatewayTarget, backend: &str) -> RequestBuilder {
    let body = json!({"prompt": "gateway verify: this must be refused", "size": "512x512"});
    target
        .request(Method::POST, "/v1/images/generations")
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-backend", backend)
        .body(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_key_of_the_status_is_named() {
        let status = json!({
            "admission_control": {"g.images": {"limit": 1, "available": 1, "inflight": 0}},
            "backend_health": {"g": {"healthy": true, "ready": false, "error": "hot"}},
            "gateway": {"version": "1", "images_backend": "http_openai_images", "images_class": "g"},
        });
        assert!(status_keys(&status).is_ok());
        assert_eq!(images_backend(&status).unwrap_err(), "g is not ready: hot");
        for (pointer, expected) in [
            ("/admission_control", "admission_control"),
            ("/admission_control/g.images/limit", "admission_control.g.images.limit"),
            ("/backend_health/g/ready", "backend_health.g"),
            ("/gateway/version", "gateway.version"),
        ] {
            let mut part = status.clone();
            *part.pointer_mut(pointer).unwrap() = Value::Null;
            assert!(status_keys(&part).unwrap_err().contains(expected), "{pointer}");
        }
    }
}
