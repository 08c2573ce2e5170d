//! `GET /ui`, the web page, and `GET /ui/page/{path}`, the files that it loads. All are part of the program; no path reaches the
//! disk. The page holds no secret and needs no token.

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use service::client_info::ClientInfo;

use super::is_cached;
use crate::{app::App, error::ApiError, tls::Tls};

/// The page loads and runs nothing but its own files.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(if cfg!(feature = "headless") {
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
} else {
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
});
/// Names that every browser with this header knows; one that it does not know it reports on its console.
const NO_PERMISSIONS: HeaderValue = HeaderValue::from_static(
    "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), \
     payment=(), usb=()",
);

/// A file of the page.
#[derive(Debug)]
struct PageFile {
    /// As in `/ui/page/{name}`.
    name: &'static str,
    mime: &'static str,
    plain: Representation,
    gzip: Representation,
}

#[derive(Debug)]
struct Representation {
    bytes: &'static [u8],
    /// Of these bytes, so that no two representations share one.
    etag: &'static str,
}

/// What the build script found, sorted by name.
const FILES: &[PageFile] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Also answers HEAD.
pub(crate) async fn page(
    State(app): State<App>,
    client: Option<Extension<ClientInfo>>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut response = if app.config.access.auth_required {
        serve("index.html", request.headers()).ok_or(ApiError::NotFound)?
    } else {
        page_without_sign_in()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("permissions-policy", NO_PERMISSIONS);
    let behind_https = client.is_some_and(|Extension(client)| client.scheme == Some("https"));
    // Over plain HTTP browsers ignore it, and report that on their console.
    if behind_https || !matches!(app.config.tls, Tls::Off) {
        headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    }
    Ok(response)
}

/// Also answers HEAD.
pub(crate) async fn file(request: Request) -> Result<Response, ApiError> {
    // The raw path will do: no name of a file needs escapes.
    let name = request.uri().path().strip_prefix("/ui/page/").filter(|name| *name != "index.html");
    name.and_then(|name| serve(name, request.headers())).ok_or(ApiError::NotFound)
}

/// Tells the page not to ask for a token. Only for loopback, so it is neither compressed nor cached.
fn page_without_sign_in() -> Response {
    let page = FILES.iter().find(|file| file.name == "index.html").map_or(&[][..], |file| file.plain.bytes);
    let page = String::from_utf8_lossy(page).replacen("<html", "<html data-auth=\"off\"", 1);
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Html(page)).into_response()
}

fn serve(name: &str, request: &HeaderMap) -> Option<Response> {
    let file = FILES.iter().find(|file| file.name == name)?;
    let compressed = prefers_gzip(request);
    let Representation { bytes, etag } = if compressed { &file.gzip } else { &file.plain };
    let etag = HeaderValue::from_static(etag);
    let mut response = if is_cached(request, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Body::from(*bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.mime));
        if compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Some(response)
}

/// Whether the client takes gzip, and likes it no less than the plain bytes.
fn prefers_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let codings: Vec<_> = lines.flat_map(|line| line.split(',')).filter_map(weighted_coding).collect();
    let weight = |wanted: &[&str]| {
        let is_wanted = |(coding, _): &&(String, f32)| wanted.contains(&coding.as_str());
        codings.iter().find(is_wanted).map(|(_, weight)| *weight)
    };
    let gzip = weight(&["gzip", "x-gzip"]).or_else(|| weight(&["*"])).unwrap_or(0.0);
    gzip > 0.0 && gzip >= weight(&["identity"]).unwrap_or(0.0)
}

/// `gzip;q=0.5`; a weight that is none counts as zero.
fn weighted_coding(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let coding = parts.next().filter(|coding| !coding.is_empty())?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((coding, weight.map_or(1.0, |weight| weight.trim().parse().unwrap_or(0.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it_and_like_it_no_less() {
        for (lines, expected) in [
            (&[][..], false),
            (&["gzip, deflate, br, zstd"], true),
            (&["GZIP"], true),
            (&["x-gzip"], true),
            (&["br", "deflate;q=0.5, gzip ; q=0.1"], true),
            (&["*"], true),
            (&["*;q=0"], false),
            (&["gzip;q=0, *"], false),
            (&["gzip;q=0.000"], false),
            (&["gzip;q=nothing"], false),
            (&["identity"], false),
            (&["identity;q=1, gzip;q=0.9"], false),
            (&["identity;q=0.5, gzip;Q=0.5"], true),
            (&["identity;q=0"], false),
            (&["gzipped"], false),
            (&["", ",;q=1,"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(prefers_gzip(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn every_file_is_embedded_once_and_the_page_is_one_of_them() {
        assert!(FILES.iter().any(|file| file.name == "index.html" && file.mime.starts_with("text/html")));
        assert!(FILES.is_sorted_by(|one, other| one.name < other.name));
        assert!(FILES.iter().all(|file| file.gzip.etag != file.plain.etag));
        assert_eq!(FILES.len() == 1, cfg!(feature = "headless"), "without the page there is nothing to load");
    }
}
