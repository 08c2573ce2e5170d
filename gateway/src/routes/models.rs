//! `GET /v1/models` and `GET /v1/models/{id}`: what all ready backends list together.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use shared::{
    openai::models::{Model, ModelList},
    service::outbound::read_limited,
};
use tracing::warn;

use crate::{config::Backend, error::ApiError, state::App};

/// For one backend's list.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes of one backend's list.
const LIST_LIMIT: usize = 1 << 20;

/// All of them. A backend that lists nothing now is left out.
pub(crate) async fn list(State(app): State<App>) -> Response {
    Json(ModelList::of(listed(&app).await)).into_response()
}

/// One of them; a name may have slashes in it.
pub(crate) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    let found = listed(&app).await.into_iter().find(|model| model.id == id);
    found.map(Json).ok_or(ApiError::UnknownModel(id))
}

async fn listed(app: &App) -> Vec<Model> {
    let ready = app.health.snapshot().into_iter().filter(|(_, health)| health.ready);
    let lists = ready.map(|(backend, _)| {
        let app = app.clone();
        async move {
            let listed = tokio::time::timeout(PATIENCE, models(&app, &backend)).await;
            listed.ok().flatten().unwrap_or_else(|| {
                warn!(backend = backend.class, "no list of models from this backend");
                Vec::new()
            })
        }
    });
    join_all(lists).await.concat()
}

async fn models(app: &App, backend: &Backend) -> Option<Vec<Model>> {
    let request = backend.authorized(app.backends.pooled().get(backend.api("models")));
    let answer = request.send().await.ok().filter(|answer| answer.status().is_success())?;
    let body = read_limited(answer, LIST_LIMIT).await.ok()?;
    if body.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    let list: ModelList = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().map(|model| Model { owned_by: backend.class.clone(), ..model }).collect())
}
