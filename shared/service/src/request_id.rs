//! One ID per request, in the response and in both programs' logs: the client's if it is valid, else a new one.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

/// The header.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The request's ID; in its extensions.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The client's ID if it is valid, else a new one.
    pub fn from_header(header: Option<&HeaderValue>) -> Self {
        let is_valid = |value: &&HeaderValue| is_valid(value.as_bytes());
        Self(header.filter(is_valid).cloned().unwrap_or_else(|| {
            HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).expect("a UUID is visible ASCII")
        }))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// As a header's value.
    pub fn to_header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// `[A-Za-z0-9._-]{1,128}`: safe in a header, a log line and a file name.
pub fn is_valid(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The outermost layer: puts the ID into the request's extensions and the response's headers.
pub async fn layer(mut request: Request, next: Next) -> Response {
    let id = RequestId::from_header(request.headers().get(X_REQUEST_ID));
    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_REQUEST_ID, id.to_header_value());
    response
}

#[cfg(test)]
mod tests {
    use axum::{Extension, Router, body::Body, routing::get};
    use tower_service::Service;

    use super::*;

    #[tokio::test]
    async fn the_handler_and_the_client_get_the_same_id() {
        let handler = |Extension(id): Extension<RequestId>| async move { id.as_str().to_owned() };
        let mut app = Router::new().route("/", get(handler)).layer(axum::middleware::from_fn(layer));
        let request = Request::builder().header(X_REQUEST_ID, "mine").body(Body::empty()).unwrap();
        let response = app.call(request).await.unwrap();
        assert_eq!(response.headers()[X_REQUEST_ID], "mine");
        assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "mine");
    }

    #[test]
    fn a_valid_id_is_kept_and_any_other_replaced() {
        let accept = |text: &str| {
            RequestId::from_header(HeaderValue::from_str(text).ok().as_ref()).as_str().to_owned()
        };
        assert_eq!(accept("a.B_c-9"), "a.B_c-9");
        for other in ["", "a b", "a\"b", "id;rm", &"x".repeat(129), "ü"] {
            let id = accept(other);
            assert_ne!(id, other);
            assert!(is_valid(id.as_bytes()));
        }
    }
}
