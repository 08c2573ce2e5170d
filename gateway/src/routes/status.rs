//! `GET /v1/gateway/status`: slots, backends, the store and the gateway itself, from snapshots.

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};
use service::slots::Slots;

use super::AuthorizedRequest;
use crate::{app::App, middleware::auth::Caller};

pub(crate) async fn status(State(app): State<App>, authorized: AuthorizedRequest) -> Json<Value> {
    Json(with_readings(&app, state(&app, &authorized.caller)))
}

/// The status as this caller sees it, without what changes all the time.
pub(super) fn state(app: &App, caller: &Caller) -> Value {
    let slots = app
        .admission
        .snapshot()
        .map(|(class, capability, slots)| (format!("{class}.{capability}"), slot_usage(slots)));
    let backends = app.health.snapshot().into_iter().map(|(backend, health)| {
        let entry = json!({
            "healthy": health.alive,
            "ready": health.ready,
            "error": health.error,
            "warnings": health.warnings,
        });
        (backend.class.clone(), entry)
    });
    // Only clients that see everyone's images see everyone's token limits.
    let tokens = app.admission.tokens().filter(|(name, _)| caller.sees_all() || caller.name() == Some(name));
    let tokens = tokens.map(|(name, slots)| (name.to_owned(), slot_usage(slots)));
    let reload = app.reloads.status();
    let (observed, totals) = (app.warnings.load(), app.store.totals());
    json!({
        "admission_control": slots.collect::<Map<_, _>>(),
        "token_limits": tokens.collect::<Map<_, _>>(),
        "backend_health": backends.collect::<Map<_, _>>(),
        "gateway": {
            "version": env!("CARGO_PKG_VERSION"),
            "images_backend": app.config.images.engine.as_str(),
            "images_class": app.config.images.class,
            "config": {
                "loaded_at": reload.loaded_at,
                "last_error": reload.last_error,
                "reloads": reload.attempts,
            },
            "warnings": observed.warnings,
        },
        "store": {
            "pictures": totals.images,
            "bytes": totals.bytes,
            "max_bytes": app.config.retention.max_bytes,
            "disk_bytes": observed.disk.map(|disk| disk.total),
            "disk_free_bytes": observed.disk.map(|disk| disk.free),
        },
    })
}

/// Adds what changes all the time.
pub(super) fn with_readings(app: &App, mut state: Value) -> Value {
    state["gateway"]["uptime_seconds"] = app.started.elapsed().as_secs().into();
    for (backend, health) in app.health.snapshot() {
        let entry = &mut state["backend_health"][&backend.class];
        entry["last_check"] = health.last_check.into();
        entry["gpu"] = json!(health.gpu());
    }
    state
}

fn slot_usage(slots: &Slots) -> Value {
    json!({"limit": slots.limit(), "available": slots.available(), "inflight": slots.inflight()})
}
