//! Files in and out: uploads, `/view`, and the names under which images are saved.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Core, api, queue::ComfyState};
use crate::form;

/// Where a name in a workflow points: `in.png`, `ada2/in.png`, `t.png [temp]`.
pub(super) fn annotated(name: &str) -> String {
    let of =
        |directory: &str| Some(format!("{directory}/{}", name.strip_suffix(&format!(" [{directory}]"))?));
    ["output", "temp"].into_iter().find_map(of).unwrap_or_else(|| format!("input/{name}"))
}

/// The file that a workflow names as its input.
pub(super) fn input<'a>(state: &'a ComfyState, name: &str) -> Option<&'a Bytes> {
    state.files.get(&annotated(name))
}

pub(super) async fn upload(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Response {
    let parts = form::read(&headers, &body).await;
    let text = |name: &str| {
        let part = parts.iter().find(|part| part.name == name);
        part.map(|part| String::from_utf8_lossy(&part.bytes).into_owned()).unwrap_or_default()
    };
    let Some(image) = parts.iter().find(|part| part.name == "image") else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (name, subfolder, directory) =
        (image.file.clone().unwrap_or_default(), text("subfolder"), text("type"));
    core.change(|state| state.files.insert(path(&directory, &subfolder, &name), image.bytes.clone()));
    api::json_answer(&json!({"name": name, "subfolder": subfolder, "type": directory}))
}

fn path(directory: &str, subfolder: &str, name: &str) -> String {
    [directory, subfolder, name].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

pub(super) async fn view(
    State(core): State<Arc<Core>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let text = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let path = path(text("type"), text("subfolder"), text("filename"));
    let (bytes, how) = core.look(|state| (state.files.get(&path).cloned(), state.script.image_bytes));
    let Some(bytes) = bytes else { return StatusCode::NOT_FOUND.into_response() };
    match how.of(&bytes) {
        Some(bytes) => ([(CONTENT_TYPE, "image/png")], bytes).into_response(),
        None => Html(api::PAGE).into_response(),
    }
}

/// Saves an image under the next free number of the node's prefix. Returns its entry in the history.
pub(super) fn save(state: &mut ComfyState, node: &Value, image: Bytes) -> Value {
    let (directory, prefix) = if node["class_type"] == "PreviewImage" {
        ("temp", "ComfyUI_temp_fake")
    } else {
        ("output", node["inputs"]["filename_prefix"].as_str().unwrap_or_default())
    };
    let (subfolder, stem) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    let name = |number: u32| format!("{stem}_{number:05}_.png");
    let is_free = |number: &u32| !state.files.contains_key(&path(directory, subfolder, &name(*number)));
    let name = name((1..=99_999).find(is_free).expect("few files"));
    state.files.insert(path(directory, subfolder, &name), image);
    json!({"images": [{"filename": name, "subfolder": subfolder, "type": directory}]})
}
