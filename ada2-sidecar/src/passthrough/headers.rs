//! Which headers pass between client and engine: all but hop-by-hop ones and those that say who asked. Pure.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{CONNECTION, EXPECT, HOST, ORIGIN, TE, TRAILER, UPGRADE},
    request::Parts,
    uri::PathAndQuery,
};
use service::{
    client_info::ClientInfo,
    proxy_headers::{remove_hop_by_hop, set_forwarded_headers},
    request_id::X_REQUEST_ID,
};

/// Fetch metadata of browsers. Our guard has checked it; engines would compare it with a `Host` that is not theirs.
const FETCH_METADATA: [HeaderName; 4] = [
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-user"),
];

/// Turns the client's request head into the one for the engine.
pub(super) fn prepare_request(parts: &mut Parts, client: &ClientInfo, id: &HeaderValue, websocket: bool) {
    parts.uri = origin_form(&parts.uri);
    let headers = &mut parts.headers;
    let trailers = headers.get_all(TE).iter().any(|te| has_token(te, "trailers"));
    remove_hop_by_hop(headers);
    // The HTTP library has sent its 100 by the time the engine could, and trailers are dropped.
    for name in [EXPECT, TRAILER].iter().chain(&FETCH_METADATA) {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if websocket {
        insert_upgrade_headers(headers);
    }
    let host = headers.get(HOST).cloned();
    if let Some(host) = &host
        && headers.contains_key(ORIGIN)
        // It has passed the guard; engines compare it with `Host`.
        && let Ok(own_origin) = HeaderValue::from_bytes(&[b"http://", host.as_bytes()].concat())
    {
        headers.insert(ORIGIN, own_origin);
    }
    set_forwarded_headers(headers, client, "http");
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Turns the engine's response head into the one for the client.
pub(super) fn prepare_response(headers: &mut HeaderMap, websocket: bool) {
    remove_hop_by_hop(headers);
    if websocket {
        insert_upgrade_headers(headers);
    }
}

/// Whether this asks for, or agrees to, an upgrade to WebSocket and nothing else.
pub(super) fn is_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let websocket = upgrades.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    websocket
        && upgrades.next().is_none()
        && headers.get_all(CONNECTION).iter().any(|value| has_token(value, "upgrade"))
}

fn insert_upgrade_headers(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// The target without the scheme and authority that a request to a proxy has.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests;
