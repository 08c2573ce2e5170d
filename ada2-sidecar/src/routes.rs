//! Every path and every layer, on one page. Requests travel downwards through the layers, then to the routes.

mod health;
mod images;
mod metrics;
mod models;

use axum::{
    Router,
    http::Uri,
    middleware::{from_fn, from_fn_with_state},
    response::IntoResponse,
    routing::{get, post},
};
use service::{nearest_route::nearest_route, request_id};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{access, app::App, error::ApiError};

/// Every path in the router, so that a path that is none can be told what is near.
const ROUTE_PATHS: &[&str] = &[
    "/healthz",
    "/readyz",
    "/readyz/{check}",
    "/gpu",
    "/metrics",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/images/files/{name}",
    "/v1/models",
    "/v1/models/{*id}",
];

/// All of it.
pub(crate) fn router(app: App) -> Router {
    let routes = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/readyz/{check}", get(health::check))
        .route("/gpu", get(health::gpu))
        .route("/metrics", get(health::metrics))
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/images/files/{name}", get(images::image_file))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get))
        .fallback(async |uri: Uri| ApiError::NotFound { suggestion: nearest_route(uri.path(), ROUTE_PATHS) })
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed);
    with_middleware(routes, app)
}

fn with_middleware(routes: Router<App>, app: App) -> Router {
    routes
        // The last layer added is the first that a request meets.
        .layer(from_fn_with_state(app.clone(), access::guard_layer))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| ApiError::Panic.into_response()))
        .layer(from_fn_with_state(app.clone(), access::cors))
        .layer(from_fn_with_state(app.metrics.clone(), access::access_log))
        .layer(from_fn(request_id::layer))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use axum::{body::Body, extract::Request};
    use service::{lifecycle::Lifecycle, reload::Reloadable, serve::PeerAddr};
    use wire::openai::error::ErrorEnvelope;

    use tokio::sync::watch;

    use super::*;
    use crate::{
        config,
        engine::Engine,
        graph_validation::GraphErrors,
        jobs::Jobs,
        metrics::Metrics,
        readiness::{self, ReadinessSources, WarmUp},
        reload::readiness_rules,
    };

    fn app() -> App {
        let state =
            std::env::temp_dir().join(format!("ada2-routes-{}", uuid::Uuid::new_v4())).display().to_string();
        let flags = ["ada2-sidecar", "--engine", "builtin", "--gpu", "optional", "--state-dir", &state];
        let config = config::load(&crate::cli::command().get_matches_from(flags), &|_| None).unwrap().config;
        let lifecycle = Lifecycle::new();
        let engine = Engine::new(config.engine, None, "");
        let state = engine.start(&lifecycle);
        let metrics = Metrics::default();
        let jobs = Jobs::new(engine, 1, lifecycle.clone(), metrics.clone());
        let (gpu, host) = (watch::channel(None).1, watch::channel(None).1);
        let warm_up = watch::channel(WarmUp::Off).1;
        let graphs = watch::channel(GraphErrors::default()).1;
        let sources =
            ReadinessSources { gpu, host, engine: state.clone(), graphs, warm_up, jobs: jobs.clone() };
        let (published, _) =
            readiness::start(Reloadable::new(readiness_rules(&config)), sources, None, &lifecycle);
        App::new(Arc::new(config), jobs, state, published, metrics)
    }

    #[test]
    fn every_path_of_the_router_is_in_the_list() {
        let code = include_str!("routes.rs").split_once("mod tests").unwrap().0;
        let routed: Vec<_> =
            code.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(routed, ROUTE_PATHS);
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_request_and_says_nothing_of_its_cause() {
        async fn boom() -> &'static str {
            panic!("a secret cause")
        }
        let router = with_middleware(
            Router::new().route("/boom", get(boom)).route("/fine", get(async || "fine")),
            app(),
        );
        let ask = async |path: &str| {
            let mut request = Request::get(path).header("host", "ada2").body(Body::empty()).unwrap();
            request.extensions_mut().insert(PeerAddr((Ipv4Addr::LOCALHOST, 1).into()));
            let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
            let status = response.status().as_u16();
            (status, axum::body::to_bytes(response.into_body(), 10_000).await.unwrap())
        };
        let (status, body) = ask("/boom").await;
        let envelope: ErrorEnvelope = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, envelope.error.code.as_deref()), (500, Some("internal_error")));
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
        assert_eq!(ask("/fine").await.0, 200);
    }
}
