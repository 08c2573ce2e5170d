//! `/v1/models`: the models that a request may name.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use wire::openai::models::{Model, ModelList};

use crate::{app::App, error::ApiError, images::{Task, choice}};

/// Presets, the engine's models by name, and the built-in aliases that resolve to one of them.
pub(crate) async fn list(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    Ok(Json(ModelList::new(models(&app)?)))
}

/// By name, alias or the engine's key.
pub(crate) async fn get(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    // An undecodable name matches nothing.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    let listed = models(&app)?;
    let exact = listed.iter().find(|model| model.id.eq_ignore_ascii_case(&id)).cloned();
    if let Some(model) = exact {
        return Ok(Json(model));
    }
    let status = app.engine_status()?;
    let config = &app.config;
    let choice =
        choice::resolve(&status.models, &config.presets, Some(&id), config.default_model.as_deref(), Task::Generate)?;
    Ok(Json(Model::new(choice.name, app.started_at, config.engine.name())))
}

fn models(app: &App) -> Result<Vec<Model>, ApiError> {
    let (owner, created) = (app.config.engine.name(), app.started_at);
    Ok(choice::names(&app.engine_status()?.models, &app.config.presets)
        .into_iter()
        .map(|name| Model::new(name, created, owner))
        .collect())
}
