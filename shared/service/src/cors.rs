//! CORS: lets pages at `allowed_origins` read our responses.
//!
//! tower-http's `CorsLayer` does not fit: it answers every preflight with 200 before any guard has seen it, and those of
//! foreign origins have to be 403.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
            ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
            ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
        },
    },
    response::Response,
};

use super::guard::Guard;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("X-Request-Id, X-Backend-Used, X-Model-Used, Retry-After, x-should-retry");
/// Seconds for which a browser caches a preflight. An origin that is removed from the list is cut off at once all the same:
/// each response has to allow it.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const PREFLIGHT_VARY: HeaderValue =
    HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers");
const MAX_HEADERS: usize = 64;

/// Chrome asks before a public page reaches a private address (Private Network Access).
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The CORS headers of a response. Taken from the request before it is handled.
#[derive(Debug, Clone)]
pub struct Cors {
    /// The request's origin, if it is allowed.
    origin: Option<HeaderValue>,
    /// Responses differ by origin, which caches must know.
    varies: bool,
}

impl Cors {
    /// For a request with these headers.
    pub fn for_request(guard: &Guard, headers: &HeaderMap) -> Self {
        Self { origin: guard.allowed_origin(headers).cloned(), varies: !guard.allowed_origins.is_empty() }
    }

    /// Lets the allowed origin read the response, and nobody else.
    pub fn apply(self, headers: &mut HeaderMap) {
        // Only our list counts, whatever a server behind us allows.
        headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if self.varies && !varies_by_origin(headers) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = self.origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// Whether this is a CORS preflight.
pub fn is_preflight<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The response to a preflight whose origin has passed the guard. [`Cors::apply`] adds the origin.
pub fn preflight(request_headers: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    if let Some(names) = header_names(request_headers) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    if request_headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|asks| asks == "true") {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    headers.append(VARY, PREFLIGHT_VARY);
    response
}

/// The valid header names that a preflight asks for.
fn header_names(request_headers: &HeaderMap) -> Option<HeaderValue> {
    let lines =
        request_headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter().filter_map(|line| line.to_str().ok());
    let names = lines.flat_map(|line| line.split(',')).map(str::trim);
    let names: Vec<_> = names.filter(|name| name.parse::<HeaderName>().is_ok()).take(MAX_HEADERS).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|_| !names.is_empty())
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(VARY).iter().filter_map(|line| line.to_str().ok());
    let mut names = lines.flat_map(|line| line.split(',')).map(str::trim);
    names.any(|name| name == "*" || name.eq_ignore_ascii_case("origin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::WebOrigin;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn guard(origins: &[&str]) -> Guard {
        let allowed_origins = origins.iter().map(|origin| WebOrigin::parse(origin).unwrap()).collect();
        Guard { allowed_origins, ..Guard::default() }
    }

    #[test]
    fn only_an_allowed_origin_may_read_and_caches_know_it() {
        let ui = guard(&["https://ui.example"]);
        let finished = |guard: &Guard, origin: Option<&str>, answer: &[(&'static str, &str)]| {
            let requested: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
            let mut answer = headers(answer);
            Cors::for_request(guard, &headers(&requested)).apply(&mut answer);
            answer
        };
        let read = finished(&ui, Some("https://ui.example"), &[]);
        assert_eq!(read[ACCESS_CONTROL_ALLOW_ORIGIN], "https://ui.example");
        assert_eq!(
            read[ACCESS_CONTROL_EXPOSE_HEADERS],
            "X-Request-Id, X-Backend-Used, X-Model-Used, Retry-After, x-should-retry"
        );
        assert_eq!(read[VARY], "Origin");
        let behind = [("access-control-allow-origin", "*"), ("vary", "Accept, Origin")];
        for origin in [None, Some("https://evil.example"), Some("null"), Some("http://ui.example")] {
            let closed = finished(&ui, origin, &behind);
            assert!(!closed.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN), "{origin:?}");
            assert_eq!(closed.get_all(VARY).iter().count(), 1, "{origin:?}");
        }
        assert!(
            finished(&guard(&[]), Some("https://ui.example"), &[]).is_empty(),
            "without origins nothing varies"
        );
        let twice = headers(&[("origin", "https://ui.example"), ("origin", "https://evil.example")]);
        assert!(ui.allowed_origin(&twice).is_none());
    }

    #[test]
    fn a_preflight_gets_the_valid_header_names_that_it_asks_for() {
        for (requested, allowed) in [
            (&["authorization,content-type"][..], Some("authorization, content-type")),
            (&["authorization", "x-backend"], Some("authorization, x-backend")),
            (&[" X-Stainless-OS ,, a b, c\"d, e:f"], Some("X-Stainless-OS")),
            (&["", ","], None),
            (&[], None),
        ] {
            let lines: Vec<_> =
                requested.iter().map(|line| ("access-control-request-headers", *line)).collect();
            let answer = preflight(&headers(&lines));
            let names = answer.headers().get(ACCESS_CONTROL_ALLOW_HEADERS);
            assert_eq!(names.map(|names| names.to_str().unwrap()), allowed, "{requested:?}");
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        }
        let many = vec!["x-a"; 999].join(",");
        let answer = preflight(&headers(&[("access-control-request-headers", &many)]));
        assert!(answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS].len() < 400);
    }

    #[test]
    fn private_network_access_is_allowed_on_request() {
        let requested = headers(&[("access-control-request-private-network", "true")]);
        assert_eq!(preflight(&requested).headers()[ALLOW_PRIVATE_NETWORK], "true");
        assert!(!preflight(&HeaderMap::new()).headers().contains_key(ALLOW_PRIVATE_NETWORK));
    }

    #[test]
    fn an_options_request_without_cors_headers_is_no_preflight() {
        let of = |method: Method, lines: &[(&'static str, &str)]| {
            let mut request = Request::builder().method(method).body(()).unwrap();
            *request.headers_mut() = headers(lines);
            is_preflight(&request)
        };
        let (origin, method) = (("origin", "https://a"), ("access-control-request-method", "POST"));
        assert!(of(Method::OPTIONS, &[origin, method]));
        assert!(
            !of(Method::OPTIONS, &[origin])
                && !of(Method::OPTIONS, &[method])
                && !of(Method::GET, &[origin, method])
        );
    }
}
