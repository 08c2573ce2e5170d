//! `GET /ui`: what a person sees who opens the gateway's address in a browser. The page holds no secret and needs no token.

use axum::{
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};

/// Nothing but the page itself is ever loaded or run.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The handler.
pub(crate) async fn show() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, Html(include_str!("page.html"))).into_response()
}
