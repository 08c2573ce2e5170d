//! Multi-user mode: user, password, tokens.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Core, api::detail, queue::InvokeState, script::Users};

/// The one user of the fake.
pub const USER: &str = "admin@example.com";
/// The user's password, unless a test changes it.
pub const PASSWORD: &str = "s3same-sesame-pa55";

/// Open without a token; the socket's is in its first frame.
const OPEN: [&str; 3] = ["/api/v1/app/version", "/api/v1/auth/login", "/ws/socket.io/"];

/// Lets in what carries a valid token, and answers a change with a fresh one.
pub(super) async fn guard(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let closed = core.look(|state| state.script.users) == Users::Multiple;
    if !closed || OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(token) = bearer.and_then(|value| value.strip_prefix("Bearer ")) else {
        return detail(StatusCode::UNAUTHORIZED, "Authentication required");
    };
    if !core.look(|state| state.is_valid(token)) {
        return detail(StatusCode::UNAUTHORIZED, "Invalid or expired token");
    }
    let is_change = request.method() != Method::GET;
    let mut response = next.run(request).await;
    if is_change && response.status().is_success() {
        let token = core.change(InvokeState::new_token);
        response.headers_mut().insert("x-refreshed-token", HeaderValue::from_str(&token).expect("ASCII"));
    }
    response
}

pub(super) async fn login(State(core): State<Arc<Core>>, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (users, password) = core.look(|state| (state.script.users, state.script.password.clone()));
    if users == Users::Single {
        let text = "Multiuser mode is disabled. Authentication is not required in single-user mode.";
        return detail(StatusCode::FORBIDDEN, text);
    }
    if body["email"] != USER || body["password"] != password {
        return detail(StatusCode::UNAUTHORIZED, "Incorrect email or password");
    }
    let token = core.change(InvokeState::new_token);
    let user = json!({"user_id": "f94c23e5-eb1d-47f2-9acb-280fa20e0ce1", "email": USER, "is_admin": true});
    axum::Json(json!({"token": token, "user": user, "expires_in": 604_800})).into_response()
}

impl InvokeState {
    fn new_token(&mut self) -> String {
        let token = format!("fake-token.{}", self.uuid());
        self.tokens.push(token.clone());
        token
    }

    pub(super) fn is_valid(&self, token: &str) -> bool {
        self.tokens.iter().any(|valid| valid == token)
    }
}
