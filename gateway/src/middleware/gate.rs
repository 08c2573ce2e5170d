//! The gate: which `Host` we answer to, which web page may speak, which address may come, whose token is good.
//! Denies by default: whatever is not in [`Door::of`] needs a token.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::{IntoResponse, Response},
};
use shared::service::{client::Client, guard::in_ranges, secret::credential, serve::Peer};

use super::access_log::Account;
use crate::{
    config::{Access, Token},
    error::ApiError,
    state::App,
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
enum Door {
    /// Bare liveness and readiness.
    Open,
    /// Pictures and the page: by address.
    Address,
    /// Everything else: by token, and by address where a list is set.
    Token,
}

impl Door {
    fn of(path: &str) -> Self {
        match path {
            "/healthz" | "/readyz" => Self::Open,
            "/ui" => Self::Address,
            _ if path.strip_prefix("/ui/images/").is_some_and(|name| !name.contains('/')) => Self::Address,
            _ => Self::Token,
        }
    }
}

/// The layer.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let Some(Peer(peer)) = peer else { return ApiError::AddressNotAllowed.into_response() };
    let access = &app.config.access;
    let client = Client::of(peer.ip(), request.headers(), &access.proxies);
    let account = request.extensions().get::<Account>().cloned().unwrap_or_default();
    account.note(|known| known.client = Some(client.address));
    match pass(access, client, &request, &account) {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// The layer of a listener that asks nobody for a token.
pub(crate) async fn without_token(State(app): State<App>, request: Request, next: Next) -> Response {
    let guard = &app.config.access.guard;
    let ours = guard.host(&request).and_then(|()| guard.origin(request.headers()));
    match ours {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::Guard(refusal).into_response(),
    }
}

fn pass(
    access: &Access,
    client: Client,
    request: &Request,
    account: &Account,
) -> Result<Option<Caller>, ApiError> {
    let door = Door::of(request.uri().path());
    access.guard.host(request).map_err(ApiError::Guard)?;
    if door != Door::Token || !access.asks_tokens {
        access.guard.origin(request.headers()).map_err(ApiError::Guard)?;
    }
    let allowed = match door {
        Door::Open => true,
        Door::Address => !client.doubtful && in_ranges(client.address, &access.ui_ranges),
        Door::Token if access.api_ranges.is_empty() => true,
        Door::Token => {
            // Without tokens the address alone guards.
            (access.asks_tokens || !client.doubtful) && in_ranges(client.address, &access.api_ranges)
        }
    };
    if !allowed {
        return Err(ApiError::AddressNotAllowed);
    }
    if !access.asks_tokens {
        return Ok(Some(Caller::default()));
    }
    match known_token(access, request.headers()) {
        Some(token) => {
            account.note(|known| known.caller = Some(token.name.clone()));
            Ok(Some(Caller(Some(token))))
        }
        None if door == Door::Token => Err(ApiError::Unauthenticated),
        None => Ok(None),
    }
}

/// The token that the one `Authorization` header holds. Every token is compared, so that the time taken does not tell
/// which.
fn known_token(access: &Access, headers: &HeaderMap) -> Option<Arc<Token>> {
    let credential = credential(headers)?;
    let found = access
        .tokens
        .iter()
        .fold(None, |found, token| if token.secret.matches(credential) { Some(token) } else { found });
    found.cloned()
}

#[cfg(test)]
mod tests;
