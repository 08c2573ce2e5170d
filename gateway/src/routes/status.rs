//! `GET /v1/gateway/status`: places, backends, the store and the gateway itself, from snapshots.

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};
use service::slots::Slots;

use super::AuthorizedRequest;
use crate::app::App;

/// The handler.
pub(crate) async fn status(State(app): State<App>, authorized: AuthorizedRequest) -> Json<Value> {
    let places = app
        .admission
        .snapshot()
        .map(|(class, capability, slots)| (format!("{class}.{capability}"), room(slots)));
    let backends = app.health.snapshot().into_iter().map(|(backend, health)| {
        let seen = json!({
            "healthy": health.alive,
            "ready": health.ready,
            "last_check": health.last_check,
            "error": health.error,
            "warnings": health.warnings,
            "gpu": health.gpu,
        });
        (backend.class.clone(), seen)
    });
    // Of others, a caller who sees their pictures sees how much they do.
    let caller = &authorized.caller;
    let tokens = app.admission.tokens().filter(|(name, _)| caller.sees_all() || caller.name() == Some(name));
    let tokens = tokens.map(|(name, slots)| (name.to_owned(), room(slots)));
    let in_force = app.reloads.status();
    let (seen, totals) = (app.warnings.load(), app.store.totals());
    Json(json!({
        "admission_control": places.collect::<Map<_, _>>(),
        "token_limits": tokens.collect::<Map<_, _>>(),
        "backend_health": backends.collect::<Map<_, _>>(),
        "gateway": {
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": app.started.elapsed().as_secs(),
            "images_backend": app.config.images.engine.as_str(),
            "images_class": app.config.images.class,
            "config": {
                "loaded_at": in_force.loaded_at,
                "last_error": in_force.last_error,
                "reloads": in_force.attempts,
            },
            "warnings": seen.warnings,
        },
        "store": {
            "pictures": totals.images,
            "bytes": totals.bytes,
            "max_bytes": app.config.retention.max_bytes,
            "disk_bytes": seen.disk.map(|disk| disk.total),
            "disk_free_bytes": seen.disk.map(|disk| disk.free),
        },
    }))
}

fn room(slots: &Slots) -> Value {
    json!({"limit": slots.limit(), "available": slots.available(), "inflight": slots.inflight()})
}
