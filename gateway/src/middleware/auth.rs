//! The gate: which `Host` we answer to, which web page may speak, which address may come, whose token is good.
//! Denies by default: whatever is not in [`RouteAccess::for_path`] needs a token.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use service::{
    client_info::{AddressError, ClientInfo},
    cors::{is_preflight, preflight},
    secret::bearer_credential,
};

use super::{access_log::RequestRecord, is_covered_by_cors};
use crate::{
    app::App,
    config::{AccessConfig, Token},
    error::ApiError,
};

/// A caller who showed a good token, or whom nobody asks for one: that one has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller(Option<Arc<Token>>);

impl Caller {
    /// Whether everybody's pictures are there for it.
    pub(crate) fn sees_all(&self) -> bool {
        self.0.as_ref().is_none_or(|token| token.sees_all)
    }

    /// What the pictures that it makes are noted under.
    pub(crate) fn owner(&self) -> Option<&str> {
        self.0.as_ref().map(|token| token.owner())
    }

    /// Whether a picture that is noted under this is its own.
    pub(crate) fn is_owner(&self, noted: &str) -> bool {
        self.0.as_ref().is_some_and(|token| token.is_owner(noted))
    }

    /// The name of its token.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|token| token.name.as_str())
    }
}

/// Which check guards a path. Told by the raw path, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteAccess {
    /// Bare liveness and readiness.
    Public,
    /// Pictures and the page: by address.
    Address,
    /// Everything else: by token, and by address where a list is set.
    Token,
}

impl RouteAccess {
    fn for_path(path: &str) -> Self {
        match path {
            "/healthz" | "/readyz" => Self::Public,
            "/ui" => Self::Address,
            _ if path.strip_prefix("/ui/images/").is_some_and(|name| !name.contains('/')) => Self::Address,
            _ => Self::Token,
        }
    }
}

/// What becomes of a request that is not refused.
#[derive(Debug)]
enum AuthOutcome {
    /// To its route, with a good token, or where nobody is asked for one.
    Authenticated(Caller),
    /// To its route, which the address alone guards.
    Anonymous,
    /// A browser asks whether a page may send a request; it may.
    Preflight,
    /// A person opened the bare address.
    StartPage,
}

/// The layer.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let access = &app.config.access;
    let client = match ClientInfo::of(&request, &access.trusted_proxies) {
        Ok(client) => client,
        Err(error) => return ApiError::Address(error).into_response(),
    };
    let record = request.extensions().get::<RequestRecord>().cloned().unwrap_or_default();
    record.record(|fields| fields.client = Some(client.address));
    match authorize(access, &client, &request, &record) {
        Ok(AuthOutcome::Preflight) => return preflight(request.headers()),
        Ok(AuthOutcome::StartPage) => return redirect_to_page(),
        Ok(AuthOutcome::Authenticated(caller)) => drop(request.extensions_mut().insert(caller)),
        Ok(AuthOutcome::Anonymous) => {}
        Err(error) => return error.into_response(),
    }
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The layer of a listener that asks nobody for a token.
pub(crate) async fn layer_without_token(State(app): State<App>, request: Request, next: Next) -> Response {
    let access = &app.config.access;
    let client = match ClientInfo::of(&request, &access.trusted_proxies) {
        Ok(client) => client,
        Err(error) => return ApiError::Address(error).into_response(),
    };
    let guard = &access.guard;
    let ours =
        guard.check_host(&request, &client).and_then(|()| guard.check_origin(request.headers(), &client));
    match ours {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::Guard(refusal).into_response(),
    }
}

fn authorize(
    access: &AccessConfig,
    client: &ClientInfo,
    request: &Request,
    record: &RequestRecord,
) -> Result<AuthOutcome, ApiError> {
    let path = request.uri().path();
    let access_rule = RouteAccess::for_path(path);
    let (preflight, home) =
        (is_preflight(request) && is_covered_by_cors(path), path == "/" && wants_page(request));
    access.guard.check_host(request, client).map_err(ApiError::Guard)?;
    if access_rule != RouteAccess::Token || !access.auth_required || preflight || home {
        access.guard.check_origin(request.headers(), client).map_err(ApiError::Guard)?;
    }
    if home {
        return Ok(AuthOutcome::StartPage); // whether the address may see the page is asked there
    }
    check_address(access, client, access_rule).map_err(ApiError::Address)?;
    if preflight {
        return Ok(AuthOutcome::Preflight); // browsers show no token when they ask
    }
    if !access.auth_required {
        return Ok(AuthOutcome::Authenticated(Caller::default()));
    }
    match find_token(access, request.headers()) {
        Some(token) => {
            record.record(|fields| fields.caller = Some(token.name.clone()));
            Ok(AuthOutcome::Authenticated(Caller(Some(token))))
        }
        None if access_rule == RouteAccess::Token => Err(ApiError::Unauthenticated),
        None => Ok(AuthOutcome::Anonymous),
    }
}

fn check_address(
    access: &AccessConfig,
    client: &ClientInfo,
    access_rule: RouteAccess,
) -> Result<(), AddressError> {
    let ranges = match access_rule {
        RouteAccess::Public => return Ok(()),
        RouteAccess::Address => Some(access.ui_ranges.as_slice()),
        RouteAccess::Token => Some(access.api_ranges.as_slice()).filter(|ranges| !ranges.is_empty()),
    };
    client.check_address(ranges, access_rule == RouteAccess::Token && access.auth_required)
}

/// The token that the one `Authorization` header holds. Every token is compared, so that the time taken does not tell
/// which.
fn find_token(access: &AccessConfig, headers: &HeaderMap) -> Option<Arc<Token>> {
    let credential = bearer_credential(headers)?;
    let found = access
        .tokens
        .iter()
        .fold(None, |found, token| if token.secret.matches(credential) { Some(token) } else { found });
    found.cloned()
}

/// Whether a browser asks for a page to show to a person. Programs, and pages that fetch, do not ask for HTML.
fn wants_page(request: &Request) -> bool {
    let headers = request.headers();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let is_document = headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    is_read && (is_document || accepted.any(|line| line.to_ascii_lowercase().contains("text/html")))
}

/// `GET /` of a browser leads to the page, whatever an old gateway behind serves there.
fn redirect_to_page() -> Response {
    let headers = [
        (header::LOCATION, HeaderValue::from_static("/ui")),
        (header::VARY, HeaderValue::from_static("Accept, Sec-Fetch-Dest")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

#[cfg(test)]
mod tests;
