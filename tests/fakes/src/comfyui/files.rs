//! Files in and out: uploads, `/view`, and the names under which pictures are saved.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use axum::{
    extract::{Query, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{Html, IntoResponse, Response},
};
use bytes::Bytes;
use multer::Multipart;
use serde_json::{Value, json};

use super::{Core, api, graph::CLASSES, pixels::Pixels, queue};

const FOLDERS: [&str; 3] = ["input", "output", "temp"];

/// Where a name in a workflow points: `in.png`, `req-1/in.png`, `t.png [temp]`. None if it leads out of the folder.
pub(super) fn annotated(name: &str) -> Option<String> {
    let of = |folder: &'static str| Some((name.strip_suffix(&format!(" [{folder}]"))?, folder));
    let (name, folder) = FOLDERS.into_iter().find_map(of).unwrap_or((name, "input"));
    path(folder, "", name)
}

fn path(folder: &str, subfolder: &str, name: &str) -> Option<String> {
    let path = [folder, subfolder, name].into_iter().filter(|part| !part.is_empty());
    let path = path.collect::<Vec<_>>().join("/");
    let leads_out =
        name.starts_with('/') || subfolder.starts_with('/') || path.split('/').any(|part| part == "..");
    (!leads_out).then_some(path)
}

pub(super) async fn upload(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(mut fields) = read_form(&headers, body).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Some((name, bytes)) = fields.remove("image") else { return StatusCode::BAD_REQUEST.into_response() };
    let word = |field: &str| fields.get(field).map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
    let folder = word("type").unwrap_or_else(|| "input".to_owned());
    let subfolder = word("subfolder").unwrap_or_default();
    let overwrite = word("overwrite").is_some_and(|word| matches!(word.as_str(), "true" | "1"));
    if !FOLDERS.contains(&folder.as_str()) {
        return api::server_error();
    }
    core.change(|state| match store(state, (&folder, &subfolder, &name), bytes, overwrite) {
        Some(name) => api::json_answer(&json!({"name": name, "subfolder": subfolder, "type": folder})),
        None => StatusCode::BAD_REQUEST.into_response(),
    })
}

/// Each field's file name and bytes. None if it is no form.
async fn read_form(headers: &HeaderMap, body: Bytes) -> Option<HashMap<String, (String, Bytes)>> {
    let boundary = multer::parse_boundary(headers.get(CONTENT_TYPE)?.to_str().ok()?).ok()?;
    let whole = futures_util::stream::once(async move { Ok::<_, Infallible>(body) });
    let mut form = Multipart::new(whole, boundary);
    let mut fields = HashMap::new();
    while let Some(field) = form.next_field().await.ok()? {
        let name = field.name()?.to_owned();
        let file = field.file_name().unwrap_or_default().to_owned();
        fields.insert(name, (file, field.bytes().await.ok()?));
    }
    Some(fields)
}

/// Other bytes under a name that is taken get `name (1).png`, the same bytes keep the name.
fn store(
    state: &mut queue::ComfyState,
    (folder, subfolder, name): (&str, &str, &str),
    bytes: Bytes,
    overwrite: bool,
) -> Option<String> {
    let (stem, ending) =
        name.rsplit_once('.').map_or((name, String::new()), |(stem, end)| (stem, format!(".{end}")));
    let mut free = name.to_owned();
    for nth in 1.. {
        let path = path(folder, subfolder, &free)?;
        let is_free = state.files.get(&path).is_none_or(|old| overwrite || *old == bytes);
        if is_free {
            state.files.insert(path, bytes);
            break;
        }
        free = format!("{stem} ({nth}){ending}");
    }
    Some(free)
}

pub(super) async fn view(
    State(core): State<Arc<Core>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let word = |name: &str| query.get(name).map(String::as_str);
    let folder = word("type").unwrap_or("output");
    let Some(name) = word("filename") else { return StatusCode::NOT_FOUND.into_response() };
    if name.is_empty() || !FOLDERS.contains(&folder) || path(folder, "", name).is_none() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Some(path) = path(folder, word("subfolder").unwrap_or_default(), name) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let path = if name.ends_with(']') { annotated(name).unwrap_or(path) } else { path };
    let (bytes, how) = core.look(|state| (state.files.get(&path).cloned(), state.script.image_bytes));
    let Some(bytes) = bytes else { return StatusCode::NOT_FOUND.into_response() };
    let bytes = match word("channel") {
        // Encoded anew, so without the text chunks.
        Some("rgb") => Pixels::read(&bytes).map_or(bytes, |pixels| pixels.to_png(&[])),
        _ => bytes,
    };
    let headers = |kind: &'static str| {
        let disposition = format!("filename=\"{}\"", name.rsplit('/').next().unwrap_or(name));
        [(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)]
    };
    let kind = picture::Format::detect(&bytes).map_or("application/octet-stream", |format| format.mime());
    match how.of(&bytes) {
        Some(bytes) => (headers(kind), bytes).into_response(),
        None => Html(api::PAGE).into_response(),
    }
}

/// `/object_info`, with the checkpoints and the uploads of this moment.
pub(super) fn object_info(state: &queue::ComfyState) -> Value {
    let mut info = CLASSES.clone();
    let uploads = state.files.keys().filter_map(|path| path.strip_prefix("input/"));
    let uploads: Vec<&str> = uploads.filter(|name| !name.contains('/')).collect();
    info["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = json!(state.script.checkpoints);
    info["UNETLoader"]["input"]["required"]["unet_name"][0] =
        json!(state.script.diffusion_models.clone().unwrap_or_default());
    for class in ["LoadImage", "LoadImageMask"] {
        info[class]["input"]["required"]["image"][0] = json!(uploads);
    }
    if let Some(classes) = info.as_object_mut() {
        classes.retain(|class, _| !state.script.gone_classes.contains(class));
    }
    info
}

/// Saves pictures under the next free numbers of their prefix, counted from the files that are there. Gives what
/// history lists. None if the prefix leads out of the folder.
pub(super) fn save(
    state: &mut queue::ComfyState,
    folder: &str,
    prefix: &str,
    pictures: Vec<Bytes>,
    size: (u32, u32),
) -> Option<Value> {
    let prefix = prefix.replace("%width%", &size.0.to_string()).replace("%height%", &size.1.to_string());
    let (subfolder, stem) = prefix.rsplit_once('/').unwrap_or(("", &prefix));
    let start = path(folder, subfolder, stem)?;
    let number =
        |path: &String| path.strip_prefix(&start)?.strip_prefix('_')?.strip_suffix("_.png")?.parse().ok();
    let last: usize = state.files.keys().filter_map(number).max().unwrap_or(0);
    let mut images = Vec::new();
    for (number, picture) in (last + 1..).zip(pictures) {
        let name = format!("{stem}_{number:05}_.png");
        state.files.insert(path(folder, subfolder, &name)?, picture);
        images.push(json!({"filename": name, "subfolder": subfolder, "type": folder}));
    }
    Some(json!({"images": images}))
}
