//! Files in and out: uploads, `/view`, and the names under which images are saved.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Core, api,
    queue::{ComfyPrompt, ComfyState},
};
use crate::form;

/// `/object_info`, as recorded: what each class of nodes takes and gives.
pub(super) static CLASSES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/comfyui/object_info.json")).expect("a JSON fixture")
});

/// Where a name in a workflow points: `in.png`, `ada2/in.png`, `t.png [temp]`.
fn annotated(name: &str) -> String {
    let of =
        |directory: &str| Some(format!("{directory}/{}", name.strip_suffix(&format!(" [{directory}]"))?));
    ["output", "temp"].into_iter().find_map(of).unwrap_or_else(|| format!("input/{name}"))
}

/// The image and the mask of an edit.
pub(super) fn source(state: &ComfyState, prompt: &ComfyPrompt) -> Option<(Bytes, Option<Bytes>)> {
    let loaded = |class: &str| state.files.get(&annotated(prompt.node(class)?["image"].as_str()?)).cloned();
    Some((loaded("LoadImage")?, loaded("LoadImageMask")))
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

/// `/object_info` of a class, with the checkpoints of this moment.
pub(super) fn object_info(state: &ComfyState, class: &str) -> Option<Value> {
    let mut about = CLASSES.get(class)?.clone();
    let script = &state.script;
    if script.removed_classes.iter().any(|removed| removed == class) {
        return None;
    }
    let diffusion_models = script.diffusion_models.as_deref().unwrap_or_default();
    for (input, files) in [("ckpt_name", &script.checkpoints[..]), ("unet_name", diffusion_models)] {
        if let Some(spec) = about["input"]["required"].get_mut(input) {
            spec[0] = json!(files);
        }
    }
    Some(about)
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
