//! The HTML page that a browser gets while the engine is down.

use axum::{
    http::{HeaderValue, Method, Request, header},
    response::{Html, IntoResponse, Response},
};

/// Whether a browser asks for a page.
pub(crate) fn wants_html_page<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT);
    request.method() == Method::GET && accepted.iter().any(accepts_html)
}

/// Replaces the JSON error by a page that says what failed, and that loads the engine's page once the engine is back.
pub(crate) fn engine_down_page(error: Response, reason: &str, unit: &str) -> Response {
    let (mut parts, _) = error.into_parts();
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let page = include_str!("page.html")
        .replace("{{why}}", &escape_html(reason))
        .replace("{{unit}}", &escape_html(unit));
    (parts.status, parts.headers, Html(page)).into_response()
}

fn accepts_html(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.contains("text/html"))
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
