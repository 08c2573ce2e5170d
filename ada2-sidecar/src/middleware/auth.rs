//! Who may send requests: which `Host`, which web page, which address, whose token.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::Response,
};
use service::{
    body::BudgetOwner,
    client_info::ClientInfo,
    cors::{is_preflight, preflight},
    guard::GuardError,
    secret::{bearer_credential, strip_credentials},
};

use crate::{app::App, config::Config, error::ApiError};

/// The guards of our own routes, in order: host, origin, address, token. Raw paths are compared: no other spelling of a path
/// reaches its route.
pub(crate) async fn layer(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let client = ClientInfo::of(&request, &app.config.trusted_proxies)?;
    check_own_route(&app.config, &request, &client)?;
    if is_preflight(&request) {
        return Ok(preflight(request.headers()));
    }
    let base_url = BaseUrl(client.base_url(request.headers(), "http").unwrap_or_default());
    let owner = body_owner(&app.config, &request, &client);
    request.extensions_mut().insert(owner);
    request.extensions_mut().insert(base_url);
    Ok(next.run(request).await)
}

/// This server as the client reaches it; empty if the client named no host, so that URLs are relative.
#[derive(Debug, Clone)]
pub(crate) struct BaseUrl(pub(crate) String);

fn check_own_route<B>(config: &Config, request: &Request<B>, client: &ClientInfo) -> Result<(), ApiError> {
    config.guard.check_host(request, client)?;
    let path = request.uri().path();
    let guarded = path == "/v1" || path.starts_with("/v1/");
    let preflight_request = is_preflight(request);
    let has_token = guarded && !preflight_request && has_valid_token(config, request.headers());
    if !has_token {
        config.guard.check_origin(request.headers(), client)?;
    }
    if !guarded {
        return Ok(());
    }
    client.check_address(Some(&config.allow_from), has_token)?;
    // A browser sends no token with a preflight.
    if config.token.is_some() && !has_token && !is_image_file(path) && !preflight_request {
        return Err(ApiError::Unauthenticated);
    }
    Ok(())
}

/// The guards of the pass-through, which needs no token; returns the client.
pub(crate) fn check_passthrough<B>(config: &Config, request: &Request<B>) -> Result<ClientInfo, ApiError> {
    let client = ClientInfo::of(request, &config.trusted_proxies)?;
    config.guard.check_host(request, &client)?;
    config.guard.check_origin(request.headers(), &client)?;
    reject_cross_site(request)?;
    // The pass-through is not a forward proxy.
    if request.method() == Method::CONNECT {
        return Err(ApiError::MethodNotAllowed);
    }
    client.check_address(Some(&config.allow_from), false)?;
    Ok(client)
}

/// Embedding pages send no `Origin`, but newer browsers send fetch metadata. A link that a person follows is harmless; a form
/// that another site submits is not.
fn reject_cross_site<B>(request: &Request<B>) -> Result<(), ApiError> {
    let header_is =
        |name: &str, value: &str| request.headers().get(name).is_some_and(|actual| actual == value);
    let is_cross_site =
        header_is("sec-fetch-site", "cross-site") && !request.headers().contains_key(header::ORIGIN);
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let is_navigation =
        is_read && header_is("sec-fetch-mode", "navigate") && header_is("sec-fetch-dest", "document");
    if is_cross_site && !is_navigation {
        Err(GuardError::OriginNotAllowed("another site".to_owned()).into())
    } else {
        Ok(())
    }
}

/// Whose budget the request's body counts against.
fn body_owner<B>(config: &Config, request: &Request<B>, client: &ClientInfo) -> BudgetOwner {
    if has_valid_token(config, request.headers()) {
        return BudgetOwner::Token("token".to_owned());
    }
    BudgetOwner::Address(client.address)
}

fn has_valid_token(config: &Config, headers: &HeaderMap) -> bool {
    config.token.as_ref().zip(bearer_credential(headers)).is_some_and(|(token, given)| token.matches(given))
}

/// Removes our token, which the engine must not see.
pub(crate) fn strip_own_token(config: &Config, headers: &mut HeaderMap) {
    if let Some(token) = &config.token {
        strip_credentials(headers, |given| token.matches(given));
    }
}

/// Whether this is the URL of a generated image. Its name cannot be guessed, and browsers and client libraries fetch a `url`
/// without a token.
fn is_image_file(path: &str) -> bool {
    path.strip_prefix("/v1/images/files/").is_some_and(|name| !name.is_empty() && !name.contains('/'))
}
