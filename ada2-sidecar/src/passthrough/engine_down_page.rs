//! What a person sees instead of the engine's page while the engine is away.

use axum::{
    http::{HeaderValue, Method, Request, header},
    response::{Html, IntoResponse, Response},
};

/// Whether it is a person who asks, for a page.
pub(crate) fn wants_html_page<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT);
    request.method() == Method::GET && accepted.iter().any(accepts_html)
}

/// The page in place of an error for programs: it says what failed, and loads the engine's page when the engine is back.
pub(crate) fn engine_down_page(error: Response, why: &str, unit: &str) -> Response {
    let (mut parts, _) = error.into_parts();
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let page = include_str!("page.html")
        .replace("{{why}}", &escape_html(why))
        .replace("{{unit}}", &escape_html(unit));
    (parts.status, parts.headers, Html(page)).into_response()
}

fn accepts_html(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|value| value.contains("text/html"))
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
