//! The checks that cost nothing.

use axum::http::header;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{
    super::ask::{Reply, Target, shown},
    Outcome, error_is, images_class, is, status_is,
};

/// A backend that nobody has.
const NOBODY: &str = "no-such-backend";

pub(super) async fn health(target: &Target) -> Outcome {
    let reply = Reply::to(target.anonymous(Method::GET, "/healthz")).await?;
    status_is(&reply, 200)?;
    Ok("/healthz answers 200 without token".to_owned())
}

pub(super) async fn readyz(target: &Target) -> Outcome {
    let reply = Reply::to(target.anonymous(Method::GET, "/readyz")).await?;
    status_is(&reply, 200)?;
    is("the text", String::from_utf8_lossy(&reply.body).trim(), "ready")?;
    Ok("/readyz answers 200, ready".to_owned())
}

pub(super) async fn without_token(target: &Target) -> Outcome {
    refused(target.anonymous(Method::GET, "/v1/models")).await?;
    Ok("/v1/models answers 401 and asks for a bearer token".to_owned())
}

pub(super) async fn wrong_token(target: &Target) -> Outcome {
    refused(target.anonymous(Method::GET, "/v1/models").bearer_auth("not-a-token-of-this-gateway")).await?;
    Ok("a token that nobody has answers 401".to_owned())
}

async fn refused(request: RequestBuilder) -> Result<(), String> {
    let reply = Reply::to(request).await?;
    error_is(&reply, 401, "invalid_api_key")?;
    is("WWW-Authenticate", reply.header("www-authenticate"), "Bearer")
}

pub(super) async fn models(target: &Target) -> Outcome {
    let reply = Reply::to(target.request(Method::GET, "/v1/models")).await?;
    status_is(&reply, 200)?;
    let list = reply.json();
    is("object", list["object"].as_str().unwrap_or_default(), "list")?;
    let models = list["data"].as_array().ok_or("expected a list under data")?;
    Ok(format!("{} models from the backends that are ready", models.len()))
}

pub(super) fn status_keys(status: &Value) -> Outcome {
    let object = |name: &str| status[name].as_object().ok_or_else(|| format!("expected the key {name}"));
    let places = object("admission_control")?;
    for (key, value) in places {
        for name in ["limit", "available", "inflight"] {
            if !value[name].is_u64() {
                return Err(format!("expected the number admission_control.{}.{name}", shown(key)));
            }
        }
    }
    let backends = object("backend_health")?;
    for (class, value) in backends {
        if !(value["healthy"].is_boolean() && value["ready"].is_boolean()) {
            return Err(format!("expected healthy and ready in backend_health.{}", shown(class)));
        }
    }
    if !status["gateway"]["version"].is_string() {
        return Err("expected the key gateway.version".to_owned());
    }
    Ok(format!("{} backends, {} limits", backends.len(), places.len()))
}

pub(in crate::commands) fn images_backend(status: &Value) -> Outcome {
    let class = images_class(status)?;
    if status["gateway"]["images_backend"] == "mock" {
        return Ok("placeholders: IMAGES_BACKEND is mock, and no backend is asked".to_owned());
    }
    let seen = &status["backend_health"][class];
    if seen.is_null() {
        return Ok(format!("no backend makes pictures: {} is not configured", shown(class)));
    }
    if seen["ready"] == true {
        return Ok(format!("{} is ready", shown(class)));
    }
    let why = seen["error"].as_str().unwrap_or("the status does not name it");
    Err(format!("{} is not ready: {}", shown(class), shown(why)))
}

/// Pictures never go to another backend, whoever asks for it.
pub(super) async fn no_images_there(target: &Target, status: &Value) -> Outcome {
    let class = images_class(status)?;
    let backends = status["backend_health"].as_object().ok_or("the status names no backends")?;
    let others = || backends.keys().filter(|other| *other != class);
    let Some(other) = others().find(|other| *other == "local_mlx").or_else(|| others().next()) else {
        return Ok(format!("there is no backend besides {}", shown(class)));
    };
    let reply = Reply::to(order(target, other)).await?;
    error_is(&reply, 400, "capability_not_supported")?;
    let words = format!("Backend {other} does not support images");
    is("the message", reply.json()["error"]["message"].as_str().unwrap_or_default(), &words)?;
    Ok(format!("X-Backend: {} answers 400: {}", shown(other), shown(&words)))
}

pub(super) async fn unknown_backend(target: &Target) -> Outcome {
    error_is(&Reply::to(order(target, NOBODY)).await?, 400, "backend_not_found")?;
    Ok(format!("X-Backend: {NOBODY} answers 400"))
}

fn order(target: &Target, backend: &str) -> RequestBuilder {
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
        let whole = json!({
            "admission_control": {"g.images": {"limit": 1, "available": 1, "inflight": 0}},
            "backend_health": {"g": {"healthy": true, "ready": false, "error": "hot"}},
            "gateway": {"version": "1", "images_backend": "http_openai_images", "images_class": "g"},
        });
        assert!(status_keys(&whole).is_ok());
        assert_eq!(images_backend(&whole).unwrap_err(), "g is not ready: hot");
        for (pointer, words) in [
            ("/admission_control", "admission_control"),
            ("/admission_control/g.images/limit", "admission_control.g.images.limit"),
            ("/backend_health/g/ready", "backend_health.g"),
            ("/gateway/version", "gateway.version"),
        ] {
            let mut part = whole.clone();
            *part.pointer_mut(pointer).unwrap() = Value::Null;
            assert!(status_keys(&part).unwrap_err().contains(words), "{pointer}");
        }
    }
}
