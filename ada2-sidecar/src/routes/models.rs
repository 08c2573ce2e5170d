//! `/v1/models`: the models that a request may name, and what each can do.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde_json::{Value, json};
use wire::openai::models::{Model, ModelList};

use crate::{
    app::App,
    engine::EngineStatus,
    error::ApiError,
    images::{
        Task, capabilities,
        choice::{self, ModelChoice},
    },
};

/// Presets, the engine's models by name, and the built-in aliases that resolve to one of them.
pub(crate) async fn list(State(app): State<App>) -> Result<Json<ModelList>, ApiError> {
    let status = app.engine_status()?;
    let listed = choice::listed(&status.models, &app.config.presets);
    let default = default_name(&app, &status);
    let entries = listed.into_iter().map(|(name, choice)| entry(&app, name, &choice, default.as_deref()));
    Ok(Json(ModelList::new(entries.collect())))
}

/// By name, alias or the engine's key; with the files and LoRAs that it may use.
pub(crate) async fn get(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    // An undecodable name matches nothing.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    let status = app.engine_status()?;
    let names = choice::names(&status.models, &app.config.presets);
    let listed = names.into_iter().find(|name| name.eq_ignore_ascii_case(&id));
    let choice = resolve(&app, &status, &id)?;
    let name = listed.unwrap_or_else(|| choice.name.clone());
    let mut entry = entry(&app, name, &choice, default_name(&app, &status).as_deref());
    if let Some(files) = files(&choice) {
        entry.details.insert("files".to_owned(), files);
    }
    entry.details.insert("loras".to_owned(), capabilities::loras_to_json(&choice));
    Ok(Json(entry))
}

fn resolve(app: &App, status: &EngineStatus, name: &str) -> Result<ModelChoice, ApiError> {
    let config = &app.config;
    let default = config.default_model.as_deref();
    let resolve = |task| choice::resolve(&status.models, &config.presets, Some(name), default, task);
    let choice = resolve(Task::Generate)
        .or_else(|error| resolve(Task::Edit).or_else(|_| resolve(Task::Inpaint)).map_err(|_| error))?;
    Ok(ModelChoice { loras: status.loras.clone(), ..choice })
}

/// The name of what requests without `model` get.
fn default_name(app: &App, status: &EngineStatus) -> Option<String> {
    let default = app.config.default_model.as_deref();
    choice::resolve_default(&status.models, &app.config.presets, default).ok().map(|choice| choice.name)
}

fn entry(app: &App, name: String, choice: &ModelChoice, default: Option<&str>) -> Model {
    let is_default = default == Some(name.as_str());
    let mut entry = Model::new(name, app.started_at, app.config.engine.name());
    let model = choice.model.as_ref();
    let details = [
        ("default", is_default.then_some(Value::Bool(true))),
        ("family", model.and_then(|model| model.family_name()).map(|family| json!(family))),
        ("variant", model.and_then(|model| model.variant.clone()).map(Value::from)),
        ("capabilities", Some(capabilities::to_json(choice, app.limits()))),
    ];
    entry.details.extend(details.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    entry
}

/// The files or models that a built-in graph consists of, by its inputs.
fn files(choice: &ModelChoice) -> Option<Value> {
    let model = choice.model.as_ref()?;
    let name = |value: &Value| value.get("name").unwrap_or(value).clone();
    let others = model.inputs().map(|(input, value)| (input.field.clone(), name(value)));
    let main = Some(&model.handle).filter(|handle| !handle.is_null());
    let files: serde_json::Map<_, _> =
        main.map(|handle| ("model".to_owned(), name(handle))).into_iter().chain(others).collect();
    if files.is_empty() { None } else { Some(Value::Object(files)) }
}
