//! The gate: which `Host` we answer to, which web page may speak, which address may come, whose token is good.
//! Denies by default: whatever is not in [`Door::of`] needs a token.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::{IntoResponse, Response},
};
use service::{
    client::{Client, Doubt},
    cors::{is_preflight, preflight},
    guard::in_ranges,
    secret::credential,
    serve::Peer,
};

use super::{
    access_log::Account,
    cors::is_ours,
    start_page::{redirect, wants_page},
};
use crate::{
    app::App,
    config::{Access, Token},
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

/// What becomes of a request that is not refused.
#[derive(Debug)]
enum Admitted {
    /// To its route, with a good token, or where nobody is asked for one.
    Caller(Caller),
    /// To its route, which the address alone guards.
    Anybody,
    /// A browser asks whether a page may send a request; it may.
    Preflight,
    /// A person opened the bare address.
    StartPage,
}

/// The layer.
pub(crate) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let access = &app.config.access;
    let Some(client) = client_of(access, &request) else {
        return ApiError::AddressNotAllowed.into_response();
    };
    let account = request.extensions().get::<Account>().cloned().unwrap_or_default();
    account.note(|known| known.client = Some(client.address));
    match pass(access, &client, &request, &account) {
        Ok(Admitted::Preflight) => return preflight(request.headers()),
        Ok(Admitted::StartPage) => return redirect(),
        Ok(Admitted::Caller(caller)) => drop(request.extensions_mut().insert(caller)),
        Ok(Admitted::Anybody) => {}
        Err(error) => return error.into_response(),
    }
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The layer of a listener that asks nobody for a token.
pub(crate) async fn without_token(State(app): State<App>, request: Request, next: Next) -> Response {
    let access = &app.config.access;
    let Some(client) = client_of(access, &request) else {
        return ApiError::AddressNotAllowed.into_response();
    };
    let guard = &access.guard;
    let ours = guard.host(&request, &client).and_then(|()| guard.origin(request.headers(), &client));
    match ours {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::Guard(refusal).into_response(),
    }
}

fn client_of(access: &Access, request: &Request) -> Option<Client> {
    let Peer(peer) = request.extensions().get()?;
    Some(Client::of(peer.ip(), request.headers(), &access.proxies))
}

fn pass(
    access: &Access,
    client: &Client,
    request: &Request,
    account: &Account,
) -> Result<Admitted, ApiError> {
    let path = request.uri().path();
    let door = Door::of(path);
    let (preflight, home) = (is_preflight(request) && is_ours(path), path == "/" && wants_page(request));
    access.guard.host(request, client).map_err(ApiError::Guard)?;
    if door != Door::Token || !access.asks_tokens || preflight || home {
        access.guard.origin(request.headers(), client).map_err(ApiError::Guard)?;
    }
    if home {
        return Ok(Admitted::StartPage); // whether the address may see the page is asked there
    }
    by_address(access, client, door)?;
    if preflight {
        return Ok(Admitted::Preflight); // browsers show no token when they ask
    }
    if !access.asks_tokens {
        return Ok(Admitted::Caller(Caller::default()));
    }
    match known_token(access, request.headers()) {
        Some(token) => {
            account.note(|known| known.caller = Some(token.name.clone()));
            Ok(Admitted::Caller(Caller(Some(token))))
        }
        None if door == Door::Token => Err(ApiError::Unauthenticated),
        None => Ok(Admitted::Anybody),
    }
}

/// Where the address is all that guards, one that somebody claims is none. Where a token guards as well, a stranger's
/// claim is nothing; but whom a trusted proxy means must be known if only some addresses may come.
fn by_address(access: &Access, client: &Client, door: Door) -> Result<(), ApiError> {
    let ranges = match door {
        Door::Open => return Ok(()),
        Door::Address => Some(&access.ui_ranges),
        Door::Token => Some(&access.api_ranges).filter(|ranges| !ranges.is_empty()),
    };
    let alone = door == Door::Address || !access.asks_tokens;
    let counts = |doubt: &Doubt| match doubt {
        Doubt::Untrusted => alone,
        Doubt::Unreadable => alone || ranges.is_some(),
        Doubt::Disagree => true,
    };
    if let Some(doubt) = client.doubt.filter(counts) {
        return Err(ApiError::AddressDoubtful(doubt));
    }
    let allowed = ranges.is_none_or(|ranges| in_ranges(client.address, ranges));
    if allowed { Ok(()) } else { Err(ApiError::AddressNotAllowed) }
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
