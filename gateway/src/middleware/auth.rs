//! Access control: by `Host`, by `Origin`, by client address, by token. Every path that
//! is not in [`RouteAccess::for_path`] needs a token.

mod page_path;

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

pub(crate) use self::page_path::is_page_path;
use super::{access_log::RequestRecord, is_covered_by_cors};
use crate::{
    app::App,
    config::{AccessConfig, Token},
    error::ApiError,
};

/// An authenticated client; without a token if none is required.
#[derive(Debug, Clone, Default)]
pub(crate) struct Caller(Option<Arc<Token>>);

impl Caller {
    /// Whether it sees the images of all owners.
    pub(crate) fn sees_all(&self) -> bool {
        self.0.as_ref().is_none_or(|token| token.sees_all)
    }

    /// The owner that its images are stored under.
    pub(crate) fn owner(&self) -> Option<&str> {
        self.0.as_ref().map(|token| token.owner())
    }

    /// Whether an image of this owner is its own.
    pub(crate) fn is_owner(&self, owner: &str) -> bool {
        self.0.as_ref().is_some_and(|token| token.is_owner(owner))
    }

    /// Whether it sees what belongs to this owner, or to none.
    pub(crate) fn sees(&self, owner: Option<&str>) -> bool {
        self.sees_all() || owner.is_some_and(|owner| self.is_owner(owner))
    }

    /// The name of its token.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|token| token.name.as_str())
    }
}

/// Which check guards a path. Compares the raw path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteAccess {
    /// Liveness and readiness.
    Public,
    /// The page, its files and its images: by address.
    Address,
    /// Everything else: by token, and by address if a list is set.
    Token,
}

impl RouteAccess {
    fn for_path(path: &str) -> Self {
        match path {
            "/healthz" | "/readyz" => Self::Public,
            "/ui" => Self::Address,
            _ if is_below_page(path) => Self::Address,
            _ => Self::Token,
        }
    }
}

/// Whether it is one of the page's files, or an image or its thumbnail.
fn is_below_page(path: &str) -> bool {
    let name = path.strip_prefix("/ui/images/").or_else(|| path.strip_prefix("/ui/thumbnails/"));
    path.strip_prefix("/ui/page/").is_some_and(is_page_path) || name.is_some_and(|name| !name.contains('/'))
}

/// What to do with a request that is not refused.
#[derive(Debug)]
enum AuthOutcome {
    /// To its route, with a valid token, or without one if none is required.
    Authenticated(Caller),
    /// To its route, which only the address guards.
    Anonymous,
    /// An allowed CORS preflight.
    Preflight,
    /// A browser at `/`.
    StartPage,
}

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

/// The layer of a listener that requires no token.
pub(crate) async fn layer_without_token(State(app): State<App>, request: Request, next: Next) -> Response {
    let access = &app.config.access;
    let client = match ClientInfo::of(&request, &access.trusted_proxies) {
        Ok(client) => client,
        Err(error) => return ApiError::Address(error).into_response(),
    };
    let guard = &access.guard;
    let checked =
        guard.check_host(&request, &client).and_then(|()| guard.check_origin(request.headers(), &client));
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => ApiError::Guard(error).into_response(),
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
    let (preflight, start_page) =
        (is_preflight(request) && is_covered_by_cors(path), path == "/" && wants_page(request));
    access.guard.check_host(request, client).map_err(ApiError::Guard)?;
    if access_rule != RouteAccess::Token || !access.auth_required || preflight || start_page {
        access.guard.check_origin(request.headers(), client).map_err(ApiError::Guard)?;
    }
    if start_page {
        return Ok(AuthOutcome::StartPage); // `/ui` checks the address
    }
    check_address(access, client, access_rule).map_err(ApiError::Address)?;
    if preflight {
        return Ok(AuthOutcome::Preflight); // browsers send no token with a preflight
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

/// The token in the `Authorization` header. All tokens are compared, so that the time taken does not reveal which one
/// matches.
fn find_token(access: &AccessConfig, headers: &HeaderMap) -> Option<Arc<Token>> {
    let credential = bearer_credential(headers)?;
    let token = access
        .tokens
        .iter()
        .fold(None, |found, token| if token.secret.matches(credential) { Some(token) } else { found });
    token.cloned()
}

/// Whether a browser asks for a page to show to a person. Programs, and pages that fetch, do not ask for HTML.
fn wants_page(request: &Request) -> bool {
    let headers = request.headers();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let is_document = headers.get("sec-fetch-dest").is_some_and(|dest| dest == "document");
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    is_read && (is_document || accepted.any(|line| line.to_ascii_lowercase().contains("text/html")))
}

/// `GET /` of a browser redirects to the page, even if the legacy gateway has its own `/`.
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
