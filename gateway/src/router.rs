//! Every path and every layer.

use axum::{
    Router,
    http::Response,
    middleware::{from_fn, from_fn_with_state},
    routing::{delete, get, post},
};
use service::request_id;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    app::App,
    error::ApiError,
    middleware::{self, access_log, auth},
    routes::{events, gallery, images, jobs, legacy, metrics, models, page, probes, status, text, ui},
};

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/images/generations", post(images::generations))
        .route("/v1/images/edits", post(images::edits))
        .route("/v1/chat/completions", post(text::chat))
        .route("/v1/completions", post(text::completions))
        .route("/v1/embeddings", post(text::embeddings))
        .route("/v1/models", get(models::list_models))
        .route("/v1/models/{*id}", get(models::get_model))
        .route("/v1/gateway/status", get(status::status))
        .route("/v1/gateway/events", get(events::events))
        .route("/v1/gateway/images", get(gallery::list_images))
        .route("/v1/gateway/images/{name}", get(gallery::get_image).delete(gallery::delete_image))
        .route("/v1/gateway/jobs/{request_id}", delete(jobs::cancel))
        .route("/metrics", get(metrics::scrape))
        .route("/ui", get(page::page))
        .route("/ui/page/{*path}", get(page::file))
        .route("/ui/images/{name}", get(ui::get_image))
        .route("/ui/thumbnails/{name}", get(ui::get_thumbnail))
        .route("/healthz", get(probes::healthz))
        .route("/readyz", get(probes::readyz))
        .fallback(legacy::forward)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(
            // In the order that a request passes them.
            ServiceBuilder::new()
                .layer(from_fn(request_id::layer)) // every response has an id
                .layer(from_fn_with_state(app.clone(), access_log::layer)) // one line per request, and the headers that say where it went
                .layer(from_fn_with_state(app.clone(), middleware::cors)) // what pages of allowed origins may read
                .layer(CatchPanicLayer::custom(panicked)) // a panic fails one request, not the service
                .layer(from_fn_with_state(app.clone(), auth::layer)), // Host, Origin, address, token; preflights end here
        )
        .with_state(app)
}

/// The router of the metrics listener: no token, and no access log, because scrapes come every few seconds.
pub(crate) fn metrics_router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics::scrape))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(
            ServiceBuilder::new()
                .layer(from_fn(request_id::layer))
                .layer(CatchPanicLayer::custom(panicked))
                .layer(from_fn_with_state(app.clone(), auth::layer_without_token)), // Host, Origin
        )
        .with_state(app)
}

/// The panic's message is already in the log: the standard library's hook wrote it.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<axum::body::Body> {
    ApiError::Internal.to_response(None, None)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request};
    use tower::ServiceExt;

    use super::*;

    #[test]
    fn every_path_of_the_router_is_in_the_list() {
        let code = include_str!("router.rs").split_once("pub(crate) fn metrics_router").unwrap().0;
        let routed: Vec<_> =
            code.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(routed, crate::routes::ROUTE_PATHS);
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_envelope_that_does_not_reveal_it() {
        let router = Router::new()
            .route("/", get(async || -> &'static str { panic!("secret") }))
            .route("/fine", get(async || "fine"))
            .layer(CatchPanicLayer::custom(panicked));
        let request = |path: &str| router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        let response = request("/").await.unwrap();
        assert_eq!(response.status().as_u16(), 500);
        assert_eq!(response.headers()["x-should-retry"], "false");
        let body = axum::body::to_bytes(response.into_body(), 9999).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains("internal_error") && !body.contains("secret"), "{body}");
        assert_eq!(request("/fine").await.unwrap().status().as_u16(), 200);
    }
}
