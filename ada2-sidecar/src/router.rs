//! The door: what is ours goes to our routes, everything else to the engine.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use service::{
    request_id::{RequestId, X_REQUEST_ID},
    serve::{Handler, RequestBody},
};

use crate::{
    app::App,
    config::Config,
    error::ApiError,
    middleware::{access_log::AccessLogEntry, auth},
    passthrough::{PassThrough, PassThroughError, engine_down_page, wants_html_page},
    routes,
};

/// Answers every request of a listener. Cheap to clone, which each request does; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct RequestRouter(Arc<RouterInner>);

#[derive(Debug)]
struct RouterInner {
    app: App,
    routes: Router,
    engine: Option<Arc<PassThrough>>,
}

impl Handler for RequestRouter {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        match &self.0.engine {
            Some(engine) if !is_own_path(request.uri().path()) => {
                Box::pin(self.forward_to_engine(engine, request)).await
            }
            _ => self.0.routes.handle(request).await,
        }
    }
}

impl RequestRouter {
    /// Without engine, in front of the builtin one, every path is ours.
    pub(crate) fn new(app: App, engine: Option<Arc<PassThrough>>) -> Self {
        Self(Arc::new(RouterInner { routes: routes::router(app.clone()), app, engine }))
    }

    /// The same with another configuration.
    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        Self::new(self.0.app.with_config(config), self.0.engine.clone())
    }

    async fn forward_to_engine(&self, engine: &PassThrough, mut request: Request<RequestBody>) -> Response {
        let id = RequestId::from_header(request.headers().get(X_REQUEST_ID));
        let mut log_entry = AccessLogEntry::new(&request, Some(id.clone()), self.0.app.metrics.clone());
        let wants_page = wants_html_page(&request);
        let client = auth::check_passthrough(&self.0.app.config, &request);
        auth::strip_own_token(&self.0.app.config, request.headers_mut());
        let mut response = match client {
            Err(error) => error.into_response(),
            Ok(client) => match engine.forward(request, &client, &id.to_header_value()).await {
                Ok(response) => response,
                Err(fault) => self.error_response(fault, wants_page),
            },
        };
        response.headers_mut().insert(X_REQUEST_ID, id.to_header_value());
        log_entry.status = Some(response.status());
        response
    }

    fn error_response(&self, fault: PassThroughError, wants_page: bool) -> Response {
        let message = fault.to_string();
        let error = ApiError::PassThrough(fault).into_response();
        if wants_page { engine_down_page(error, &message, &self.0.app.config.engine_unit) } else { error }
    }
}

/// Told by the raw path: other spellings of a path are the engine's, and no path of the engine's shadows ours.
fn is_own_path(path: &str) -> bool {
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(path, "/healthz" | "/metrics") || ["/v1", "/readyz", "/gpu"].into_iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_paths_are_told_by_their_raw_spelling() {
        for ours in [
            "/healthz",
            "/metrics",
            "/readyz",
            "/readyz/",
            "/readyz/nvml",
            "/gpu",
            "/gpu/x",
            "/v1",
            "/v1/",
            "/v1/x",
        ] {
            assert!(is_own_path(ours), "{ours}");
        }
        for engine in [
            "/",
            "",
            "*",
            "/healthz/",
            "/%68ealthz",
            "//v1/models",
            "/V1/models",
            "/v1x",
            "/gpus",
            "/api/v1/x",
            "/metrics/",
        ] {
            assert!(!is_own_path(engine), "{engine}");
        }
    }
}
