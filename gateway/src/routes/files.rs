//! `GET /ui/images/{name}`: stored pictures. A name that is not of the store's form never reaches the disk.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use crate::{
    app::App,
    blocking::blocking,
    error::ApiError,
    store::{ImageName, disk::ImageFile},
};

/// Never changes: the name is made from the bytes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Opened as a page, a picture may do nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");
/// A drawing of an earlier system may at least be styled.
const SANDBOX_SVG: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'; style-src 'unsafe-inline'");

/// The handler; for HEAD, too.
pub(crate) async fn get_image(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    // The raw path: a name in the store's form needs no escapes.
    let name = request.uri().path().strip_prefix("/ui/images/").and_then(ImageName::parse);
    let name = name.ok_or(ApiError::NotFound)?;
    let etag = HeaderValue::from_str(&format!("\"{}\"", name.hash())).map_err(|_| ApiError::Internal)?;
    let wanted = name.clone();
    let found = blocking(move || app.store.find(&wanted)).await;
    let stored = found.map_err(|error| ApiError::Store(error.into()))?.ok_or(ApiError::NotFound)?;
    let mut response = if is_known(request.headers(), &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        serve(file_request(&request, &etag), &stored).await?
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, IMMUTABLE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let sandbox = if name.is_svg() { SANDBOX_SVG } else { SANDBOX };
    headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
    Ok(response)
}

/// Whether the caller has it already.
fn is_known(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes())
}

/// What the file service is asked. Of the caller's headers only `Range` counts there.
fn file_request(request: &Request, etag: &HeaderValue) -> Request {
    let mut plain = Request::new(Body::empty());
    *plain.method_mut() = request.method().clone();
    if let Some(range) = one_range(request.headers(), etag) {
        plain.headers_mut().insert(header::RANGE, range.clone());
    }
    plain
}

/// The file, or the part of it.
async fn serve(part: Request, stored: &ImageFile) -> Result<Response, ApiError> {
    let served = ServeFile::new(&stored.path).oneshot(part).await;
    let mut response = served.map_err(|_| ApiError::Internal)?.map(Body::new);
    if response.status() == StatusCode::NOT_FOUND {
        return Err(ApiError::NotFound);
    }
    if response.status().is_server_error() {
        return Err(ApiError::Internal);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(stored.mime));
    Ok(response)
}

/// A range to honour: a single one in bytes, unless it was meant for other bytes than ours.
fn one_range<'a>(headers: &'a HeaderMap, etag: &HeaderValue) -> Option<&'a HeaderValue> {
    let range = headers.get(header::RANGE)?;
    let single = range.to_str().is_ok_and(|text| text.starts_with("bytes=") && !text.contains(','));
    let ours = headers.get(header::IF_RANGE).is_none_or(|tag| tag == etag);
    (single && ours).then_some(range)
}
