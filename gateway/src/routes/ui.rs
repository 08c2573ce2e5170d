//! `GET /ui/images/{name}` and `GET /ui/thumbnails/{name}`: the stored images, large and small. A name that is not in the store's form never reaches the disk.

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
    store::{ImageName, disk::ImageFile, thumbnails::ThumbnailError},
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
    let name = image_name(&request, "/ui/images/")?;
    let etag = etag(name.hash())?;
    let stored = find(&app, &name).await?;
    let mut response = if is_cached(request.headers(), &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        serve(file_request(&request, &etag), &stored).await?
    };
    insert_headers(&mut response, etag, if name.is_svg() { SANDBOX_SVG } else { SANDBOX });
    Ok(response)
}

/// Also answers HEAD.
pub(crate) async fn get_thumbnail(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    if cfg!(feature = "headless") {
        return Err(ApiError::NotFound);
    }
    let name = image_name(&request, "/ui/thumbnails/")?;
    let etag = etag(&format!("{}-small", name.hash()))?;
    find(&app, &name).await?;
    let mut response = if is_cached(request.headers(), &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let thumbnail = app.store.thumbnails.get(&name).await.map_err(|error| match error {
            ThumbnailError::NotFound => ApiError::NotFound,
            ThumbnailError::Busy => ApiError::ThumbnailsBusy,
            ThumbnailError::Io(error) => ApiError::Store(error.into()),
        })?;
        ([(header::CONTENT_TYPE, HeaderValue::from_static("image/webp"))], thumbnail).into_response()
    };
    insert_headers(&mut response, etag, SANDBOX);
    Ok(response)
}

/// The raw path will do: a name in the store's form needs no escapes.
fn image_name(request: &Request, prefix: &str) -> Result<ImageName, ApiError> {
    request.uri().path().strip_prefix(prefix).and_then(ImageName::parse).ok_or(ApiError::NotFound)
}

fn etag(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(&format!("\"{text}\"")).map_err(|_| ApiError::Internal)
}

async fn find(app: &App, name: &ImageName) -> Result<ImageFile, ApiError> {
    let (store, name) = (app.store.clone(), name.clone());
    let stored = blocking(move || store.find(&name)).await;
    stored.map_err(|error| ApiError::Store(error.into()))?.ok_or(ApiError::NotFound)
}

fn insert_headers(response: &mut Response, etag: HeaderValue, sandbox: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, IMMUTABLE);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, sandbox);
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
