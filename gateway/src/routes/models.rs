//! `GET /v1/models` and `GET /v1/models/{id}`: what all ready backends list together, as last published, and the names
//! that the configuration has for some of it.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use wire::openai::models::{Model, ModelList};

use crate::{app::App, error::ApiError};

/// All of them.
pub(crate) async fn list_models(State(app): State<App>) -> Response {
    Json(ModelList::new(available_models(&app))).into_response()
}

/// One of them; a name may have slashes in it.
pub(crate) async fn get_model(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    // What is no text is the name of nothing.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    let models = available_models(&app);
    let exact = models.iter().find(|model| model.id == id).cloned();
    let found = exact.or_else(|| for_images(&models, &id, &app.config.images.class));
    found.map(Json).ok_or(ApiError::UnknownModel(id))
}

/// What the backend of pictures takes a name for: it ignores case, and takes OpenAI's own names for its default model.
fn for_images(models: &[Model], id: &str, class: &str) -> Option<Model> {
    let mut own = models.iter().filter(|model| model.owned_by == class);
    if is_openai_image_model(id) {
        return own.next().map(|model| Model { id: id.to_owned(), ..model.clone() });
    }
    own.find(|model| model.id.eq_ignore_ascii_case(id)).cloned()
}

fn is_openai_image_model(id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    ["gpt-image", "chatgpt-image", "dall-e"].iter().any(|name| id.starts_with(name))
}

/// An alias stands for itself: a model that a backend lists by the same name cannot be asked for.
fn available_models(app: &App) -> Vec<Model> {
    let (backends, aliases) = (&app.config.backends, &app.config.routing.aliases);
    let lists = app.health.ready_models();
    let ready = |class: &str| lists.iter().any(|(backend, _)| backend.class == class);
    let named = aliases.iter().filter_map(|(name, alias)| {
        let class = &backends.resolve(&alias.backend)?.class;
        ready(class).then(|| Model::new(name, app.started_at, class))
    });
    let listed = lists.iter().flat_map(|(_, models)| models.iter());
    listed.filter(|model| !aliases.contains_key(&model.id)).cloned().chain(named).collect()
}
