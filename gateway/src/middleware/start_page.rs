//! `GET /` of a browser leads to the page, whatever an old gateway behind would say to it.

use axum::{
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

/// The answer to a browser at `/`.
pub(super) fn redirect() -> Response {
    let headers = [
        (header::LOCATION, HeaderValue::from_static("/ui")),
        (header::VARY, HeaderValue::from_static("Accept, Sec-Fetch-Dest")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// Whether a browser asks for a page to show to a person. Programs, and pages that fetch, do not ask for HTML.
pub(super) fn wants_page(request: &Request) -> bool {
    let headers = request.headers();
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let document = headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    reads && (document || accepted.any(|line| line.to_ascii_lowercase().contains("text/html")))
}
