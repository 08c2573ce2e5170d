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
    access::{self, Line},
    app::App,
    config::Config,
    error::ApiError,
    passthrough::{PassFault, PassThrough, engine_down, is_person},
    routes,
};

/// Answers every request of a listener. Cheap to clone, which each request does; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Edge(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    app: App,
    routes: Router,
    engine: Option<Arc<PassThrough>>,
}

impl Handler for Edge {
    async fn handle(&self, request: Request<RequestBody>) -> Response {
        match &self.0.engine {
            Some(engine) if !is_ours(request.uri().path()) => Box::pin(self.pass(engine, request)).await,
            _ => self.0.routes.handle(request).await,
        }
    }
}

impl Edge {
    /// Without engine, in front of the builtin one, every path is ours.
    pub(crate) fn new(app: App, engine: Option<Arc<PassThrough>>) -> Self {
        Self(Arc::new(Parts { routes: routes::router(app.clone()), app, engine }))
    }

    /// The same with another configuration.
    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        Self::new(self.0.app.with_config(config), self.0.engine.clone())
    }

    async fn pass(&self, engine: &PassThrough, mut request: Request<RequestBody>) -> Response {
        let id = RequestId::accept(request.headers().get(X_REQUEST_ID));
        let mut line = Line::of(&request, Some(id.clone()), self.0.app.metrics.clone());
        let person = is_person(&request);
        let client = access::to_engine(&self.0.app.config, &request);
        access::drop_our_token(&self.0.app.config, request.headers_mut());
        let mut response = match client {
            Err(refused) => refused.into_response(),
            Ok(client) => match engine.forward(request, &client, &id.header()).await {
                Ok(response) => response,
                Err(fault) => self.say(fault, person),
            },
        };
        response.headers_mut().insert(X_REQUEST_ID, id.header());
        line.status = Some(response.status());
        response
    }

    fn say(&self, fault: PassFault, person: bool) -> Response {
        let words = fault.to_string();
        let error = ApiError::PassThrough(fault).into_response();
        if person { engine_down(error, &words, &self.0.app.config.engine_unit) } else { error }
    }
}

/// Told by the raw path: other spellings of a path are the engine's, and no path of the engine's shadows ours.
fn is_ours(path: &str) -> bool {
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
            assert!(is_ours(ours), "{ours}");
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
            assert!(!is_ours(engine), "{engine}");
        }
    }
}
