//! Every path and every layer, on one page. Paths that are not the sidecar's own go to the engine.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::Request,
    http::Uri,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use service::{
    nearest_route::nearest_route,
    request_id::{self, RequestId, X_REQUEST_ID},
    serve::{Handler, RequestBody},
};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    app::App,
    config::Config,
    error::ApiError,
    middleware::{
        self,
        access_log::{self, AccessLogEntry},
        auth,
    },
    passthrough::{PassThrough, PassThroughError, engine_down_page, wants_html_page},
    routes::{health, images, models},
};

/// Answers every request of a listener. Cheap to clone, which each request does; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct RequestRouter(Arc<RouterInner>);

#[derive(Debug)]
struct RouterInner {
    app: App,
    routes: Router,
    engine: Option<Arc<PassThrough>>,
}

impl RequestRouter {
    /// Without an engine to pass through to (the builtin one), every path is the sidecar's own.
    pub(crate) fn new(app: App, engine: Option<Arc<PassThrough>>) -> Self {
        Self(Arc::new(RouterInner { routes: with_layers(routes(), app.clone()), app, engine }))
    }

    pub(crate) fn with_config(&self, config: Arc<Config>) -> Self {
        Self::new(self.0.app.with_config(config), self.0.engine.clone())
    }
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

/// Compares raw paths: any other spelling of a path is the engine's, and no path of the engine's shadows ours.
fn is_own_path(path: &str) -> bool {
    let is_below =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(path, "/healthz" | "/metrics") || ["/v1", "/readyz", "/gpu"].into_iter().any(is_below)
}

/// Every path of [`routes`], for suggestions to requests with an unknown one.
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

fn routes() -> Router<App> {
    Router::new()
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
        .fallback(async |uri: Uri| ApiError::UnknownPath(nearest_route(uri.path(), ROUTE_PATHS)))
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

/// The layers in the order in which a request passes them.
fn with_layers(routes: Router<App>, app: App) -> Router {
    let layers = (
        from_fn(request_id::layer),
        from_fn_with_state(app.metrics.clone(), access_log::layer),
        from_fn_with_state(app.clone(), middleware::cors),
        CatchPanicLayer::custom(|_: Box<dyn Any + Send>| ApiError::Internal.into_response()),
        from_fn_with_state(app.clone(), auth::layer),
    );
    routes.layer(layers).with_state(app)
}

impl RequestRouter {
    async fn forward_to_engine(&self, engine: &PassThrough, mut request: Request<RequestBody>) -> Response {
        let app = &self.0.app;
        let id = RequestId::from_header(request.headers().get(X_REQUEST_ID));
        let mut log_entry = AccessLogEntry::new(&request, Some(id.clone()), app.metrics.clone());
        let wants_page = wants_html_page(&request);
        let client = auth::check_passthrough(&app.config, &request);
        auth::strip_own_token(&app.config, request.headers_mut());
        let mut response = match client {
            Err(error) => error.into_response(),
            Ok(client) => match engine.forward(request, &client, &id.to_header_value()).await {
                Ok(response) => response,
                Err(error) => self.engine_error_response(error, wants_page),
            },
        };
        response.headers_mut().insert(X_REQUEST_ID, id.to_header_value());
        log_entry.status = Some(response.status());
        response
    }

    fn engine_error_response(&self, error: PassThroughError, wants_page: bool) -> Response {
        let message = error.to_string();
        let response = ApiError::PassThrough(error).into_response();
        if wants_page {
            engine_down_page(response, &message, &self.0.app.config.engine_unit)
        } else {
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use axum::body::Body;
    use service::{lifecycle::Lifecycle, reload::Reloadable, serve::PeerAddr};
    use tokio::sync::watch;
    use wire::openai::error::ErrorEnvelope;

    use super::*;
    use crate::{
        config,
        engine::{Engine, EngineSetup},
        gpu,
        graph_validation::GraphErrors,
        host::{HostSample, OutputDisk},
        jobs::Jobs,
        metrics::Metrics,
        readiness::{self, ReadinessSources, WarmUp},
    };

    async fn app() -> App {
        let state_dir =
            std::env::temp_dir().join(format!("ada2-router-{}", uuid::Uuid::new_v4())).display().to_string();
        let flags = [
            "--engine",
            "builtin",
            "--gpu",
            "optional",
            "--nvml-lib",
            "/nonexistent",
            "--state-dir",
            &state_dir,
        ];
        let flags = [&["ada2-sidecar"], &flags[..]].concat();
        let config = config::load(&crate::cli::command().get_matches_from(flags), &|_| None).unwrap().config;
        let lifecycle = Lifecycle::new();
        let engine = Engine::new(config.engine, &EngineSetup::default());
        let metrics = Metrics::default();
        let jobs = Jobs::new(engine, 1, lifecycle.clone(), metrics.clone());
        let state = jobs.engine().start(jobs.slots().clone(), &lifecycle);
        let mut gpu = gpu::start(config.gpu_sampler_config()).unwrap();
        gpu.wait_for(Option::is_some).await.unwrap();
        // Not this machine's memory and disks.
        let host = HostSample {
            taken: std::time::Instant::now(),
            memory_total: 64 << 30,
            memory_available: 64 << 30,
            swap_total: 0,
            swap_used: 0,
            disk: OutputDisk::NotConfigured,
            engine: None,
        };
        let host = watch::channel(Some(Arc::new(host))).1;
        let warm_up = watch::channel(WarmUp::Off).1;
        let graphs = watch::channel(GraphErrors::default()).1;
        let sources =
            ReadinessSources { gpu, host, engine: state.clone(), graphs, warm_up, jobs: jobs.clone() };
        let (published, _) = readiness::start(
            Reloadable::new(crate::reload::readiness_rules(&config)),
            sources,
            None,
            &lifecycle,
        );
        App::new(Arc::new(config), jobs, state, published, metrics)
    }

    async fn send(router: &Router, mut request: Request<Body>) -> (u16, Vec<u8>) {
        request.headers_mut().insert("host", "ada2".parse().unwrap());
        request.extensions_mut().insert(PeerAddr((Ipv4Addr::LOCALHOST, 1).into()));
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        let status = response.status().as_u16();
        (status, axum::body::to_bytes(response.into_body(), 100_000).await.unwrap().into())
    }

    fn code(body: &[u8]) -> Option<String> {
        serde_json::from_slice::<ErrorEnvelope>(body).unwrap().error.code
    }

    #[test]
    fn every_path_of_the_router_is_in_the_list() {
        let code = include_str!("router.rs").split_once("mod tests").unwrap().0;
        let routed: Vec<_> =
            code.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(routed, ROUTE_PATHS);
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_request_and_its_cause_stays_private() {
        async fn boom() -> &'static str {
            panic!("a secret cause")
        }
        let test_routes = Router::new().route("/boom", get(boom)).route("/fine", get(async || "fine"));
        let router = with_layers(test_routes, app().await);
        let (status, body) = send(&router, Request::get("/boom").body(Body::empty()).unwrap()).await;
        assert_eq!((status, code(&body).as_deref()), (500, Some("internal_error")));
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
        assert_eq!(send(&router, Request::get("/fine").body(Body::empty()).unwrap()).await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_limit_covers_the_upload() {
        let router = with_layers(routes(), app().await);
        let until_ready = async {
            while send(&router, Request::get("/readyz").body(Body::empty()).unwrap()).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until_ready).await.expect("it becomes ready");
        let json = r#"{"prompt":"a","size":"64x64","steps":1}"#;
        for (upload_ms, expected) in [(0, 200), (600, 504)] {
            let upload = futures_util::stream::once(async move {
                tokio::time::sleep(Duration::from_millis(upload_ms)).await;
                Ok::<_, std::io::Error>(json)
            });
            let request = Request::post("/v1/images/generations").header("x-request-timeout-ms", "500");
            let (status, body) = send(&router, request.body(Body::from_stream(upload)).unwrap()).await;
            assert_eq!(status, expected, "{}", String::from_utf8_lossy(&body));
            assert!(status == 200 || code(&body).as_deref() == Some("engine_timeout"));
            assert_eq!(String::from_utf8_lossy(&body).contains("upload was not finished"), status == 504);
        }
    }

    #[test]
    fn own_paths_are_recognised_by_their_raw_spelling() {
        for path in [
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
            assert!(is_own_path(path), "{path}");
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
