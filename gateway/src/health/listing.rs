//! The models that a ready backend lists: asked for after each probe and published, so that a request's way depends on
//! what is known and not on who answers just now.

use std::{sync::Arc, time::Duration};

use reqwest::Client;
use shared::{
    openai::models::{Model, ModelList},
    service::outbound::read_limited,
};

use crate::config::Backend;

/// For a list. What a backend is ready for waits on it, so it is short; a slow backend's former list stays.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a list.
const LIST_LIMIT: usize = 1 << 20;

/// The list, with the class as owner. None where the backend gives none in time.
pub(super) async fn ask(client: &Client, backend: &Backend) -> Option<Arc<[Model]>> {
    tokio::time::timeout(PATIENCE, listed(client, backend)).await.ok().flatten()
}

async fn listed(client: &Client, backend: &Backend) -> Option<Arc<[Model]>> {
    let request = backend.authorized(client.get(backend.api("models")));
    let answer = request.send().await.ok().filter(|answer| answer.status().is_success())?;
    let body = read_limited(answer, LIST_LIMIT).await.ok()?;
    // mlx_lm, where it has no cache of models.
    if body.trim_ascii().is_empty() {
        return Some(Arc::default());
    }
    let list: ModelList = serde_json::from_slice(&body).ok()?;
    Some(list.data.into_iter().map(|model| Model { owned_by: backend.class.clone(), ..model }).collect())
}
