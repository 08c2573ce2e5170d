//! `GET /v1/models` and `GET /v1/models/{id}`: the models of all ready backends, as last listed, and the aliases from the
//! configuration.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use wire::openai::models::{Model, ModelList};

use crate::{app::App, error::ApiError};

pub(crate) async fn list_models(State(app): State<App>) -> Response {
    Json(ModelList::new(available_models(&app))).into_response()
}

/// An id may contain slashes.
pub(crate) async fn get_model(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    // An id that is not UTF-8 names no model.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    let models = available_models(&app);
    let exact = models.iter().find(|model| model.id == id).cloned();
    let model = exact.or_else(|| image_model(&models, &id, &app.config.images.class));
    model.map(Json).ok_or(ApiError::UnknownModel(id))
}

/// Resolves a name as the image backend does: it ignores case, and takes OpenAI's own names for its default model.
fn image_model(models: &[Model], id: &str, class: &str) -> Option<Model> {
    let mut candidates = models.iter().filter(|model| model.owned_by == class);
    if is_openai_image_model(id) {
        return candidates.next().map(|model| Model { id: id.to_owned(), ..model.clone() });
    }
    candidates.find(|model| model.id.eq_ignore_ascii_case(id)).cloned()
}

fn is_openai_image_model(id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    ["gpt-image", "chatgpt-image", "dall-e"].iter().any(|name| id.starts_with(name))
}

/// An alias hides a model that a backend lists by the same name: that one cannot be requested.
fn available_models(app: &App) -> Vec<Model> {
    let (backends, aliases) = (&app.config.backends, &app.config.routing.aliases);
    let lists = app.health.ready_models();
    let ready = |class: &str| lists.iter().any(|(backend, _)| backend.class == class);
    let listed = || lists.iter().flat_map(|(_, models)| models.iter());
    let named = aliases.iter().filter_map(|(name, alias)| {
        let class = &backends.resolve(&alias.backend)?.class;
        let meant = |model: &&Model| model.owned_by == *class && model.id == alias.model;
        ready(class).then(|| {
            let details = listed().find(meant).map(|model| model.details.clone()).unwrap_or_default();
            Model { details, ..Model::new(name, app.started_at, class) }
        })
    });
    listed().filter(|model| !aliases.contains_key(&model.id)).cloned().chain(named).collect()
}
