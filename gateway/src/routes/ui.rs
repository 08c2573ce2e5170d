//! `GET /ui/images/{name}`: the stored images. A name that is not in the store's form never reaches the disk.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tower::ServiceExt;
use tower_http::services::ServeFile;

use super::is_cached;
use crate::{
    app::App,
    blocking::blocking,
    error::ApiError,
    store::{ImageName, disk::ImageFile},
};

/// A name contains the hash of the bytes.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// An image that is opened as a page may do nothing.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");
/// The legacy gateway's drawings need their styles.
const SANDBOX_SVG: HeaderValue =
    HeaderValue::from_static("sandbox; default-src 'none'; style-src 'unsafe-inline'");

/// Also answers HEAD.
pub(crate) async fn get_image(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    // The raw path will do: a name in the store's form needs no escapes.
    let name = request.uri().path().strip_prefix("/ui/images/").and_then(ImageName::parse);
    let name = name.ok_or(ApiError::NotFound)?;
    let etag = HeaderValue::from_str(&format!("\"{}\"", name.hash())).map_err(|_| ApiError::Internal)?;
    let lookup = name.clone();
    let stored = blocking(move || app.store.find(&lookup)).await;
    let stored = stored.map_err(|error| ApiError::Store(error.into()))?.ok_or(ApiError::NotFound)?;
    let mut response = if is_cached(request.headers(), &etag) {
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

/// The request for the file service: of the client's headers only `Range` matters there.
fn file_request(request: &Request, etag: &HeaderValue) -> Request {
    let mut file_request = Request::new(Body::empty());
    *file_request.method_mut() = request.method().clone();
    if let Some(range) = single_range(request.headers(), etag) {
        file_request.headers_mut().insert(header::RANGE, range.clone());
    }
    file_request
}

/// The file, or the requested part.
async fn serve(request: Request, stored: &ImageFile) -> Result<Response, ApiError> {
    let response = ServeFile::new(&stored.path).oneshot(request).await;
    let mut response = response.map_err(|_| ApiError::Internal)?.map(Body::new);
    if response.status() == StatusCode::NOT_FOUND {
        return Err(ApiError::NotFound);
    }
    if response.status().is_server_error() {
        return Err(ApiError::Internal);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(stored.mime));
    Ok(response)
}

/// The range to serve: a single one in bytes, unless `If-Range` names other content.
fn single_range<'a>(headers: &'a HeaderMap, etag: &HeaderValue) -> Option<&'a HeaderValue> {
    let range = headers.get(header::RANGE)?;
    let single = range.to_str().is_ok_and(|text| text.starts_with("bytes=") && !text.contains(','));
    let is_current = headers.get(header::IF_RANGE).is_none_or(|tag| tag == etag);
    (single && is_current).then_some(range)
}
