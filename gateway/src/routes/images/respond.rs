//! Pictures in the store, and the answer that hands them out.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use service::{clock::unix_now, slots::SharedPermit};

use super::base64_body::{self, BodyPart};
use crate::{
    app::App,
    backend::{GeneratedImage, GeneratedImages},
    blocking::run_blocking_with_permit,
    config::ResponseFormat,
    error::ApiError,
    store::{EncodedImage, ImageName, disk, metadata::Provenance, writable::ReservedFiles},
};

/// Pictures in the store, ready to be handed out.
pub(super) struct StoredImages {
    images: Vec<(disk::StoredImage, Map<String, Value>)>,
    /// What stands before the list of them in the answer, and what behind.
    envelope: (String, String),
    delivery: ResponseFormat,
}

/// Gives every picture its name, base64 or not. The place in the backend is held until it is done.
pub(super) async fn store_images(
    app: &App,
    generated: GeneratedImages,
    provenance: Provenance,
) -> Result<StoredImages, ApiError> {
    let GeneratedImages { grant, images: made, envelope: rest } = generated;
    let (store, unix) = (app.store.clone(), unix_now());
    let (pictures, words): (Vec<_>, Vec<_>) =
        made.into_iter().map(|GeneratedImage { image: picture, metadata: words }| (picture, words)).unzip();
    let stored =
        run_blocking_with_permit(grant.slot(), move || store.commit(pictures, unix, &provenance)).await;
    let stored = stored.map_err(ApiError::Store)?;
    app.metrics.record_stored_images(stored.len(), stored.iter().map(|kept| kept.size).sum());
    let delivery = grant.routed().response_format();
    Ok(StoredImages {
        images: stored.into_iter().zip(words).collect(),
        envelope: rest.split_at_data(unix),
        delivery,
    })
}

/// Stores one picture, which came under this place, in the file prepared for it, and gives its address.
pub(super) async fn store_image(
    app: &App,
    place: SharedPermit,
    mut prepared: ReservedFiles,
    image: EncodedImage,
    provenance: Provenance,
) -> Result<String, ApiError> {
    let store = app.store.clone();
    let keep =
        move || store.commit(vec![store.write_reserved(&mut prepared, &image)?], unix_now(), &provenance);
    let stored = run_blocking_with_permit(place, keep).await;
    let stored = stored.map_err(ApiError::Store)?;
    app.metrics.record_stored_images(stored.len(), stored.iter().map(|kept| kept.size).sum());
    Ok(image_url(app, &stored.first().expect("one picture is kept as one").name))
}

/// The answer.
pub(super) fn respond(app: &App, stored: StoredImages) -> Response {
    let StoredImages { images: pictures, envelope: around, delivery } = stored;
    match delivery {
        ResponseFormat::Url => url_response(app, pictures, around),
        ResponseFormat::Base64 => base64_response(pictures, around),
    }
}

fn url_response(
    app: &App,
    images: Vec<(disk::StoredImage, Map<String, Value>)>,
    (before, behind): (String, String),
) -> Response {
    let entry = |(stored, mut metadata): (disk::StoredImage, Map<String, Value>)| {
        metadata.insert("url".to_owned(), image_url(app, &stored.name).into());
        Value::Object(metadata)
    };
    let data: Value = images.into_iter().map(entry).collect();
    let answer = format!("{before}{data}{behind}");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], answer).into_response()
}

/// The pictures are encoded from the store while they are sent, so that none is in memory whole.
fn base64_response(
    images: Vec<(disk::StoredImage, Map<String, Value>)>,
    (before, behind): (String, String),
) -> Response {
    let mut parts = Vec::with_capacity(2 * images.len() + 1);
    let mut text = before + "[";
    let mut between = "";
    for (stored, metadata) in images {
        text.extend([between, &open_object(metadata), "\"b64_json\":\""]);
        parts.extend([BodyPart::Text(std::mem::replace(&mut text, "\"}".to_owned()).into()), stored.into()]);
        between = ",";
    }
    parts.push(BodyPart::Text((text + "]" + &behind).into()));
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, base64_body::content_length(&parts).to_string()),
    ];
    (headers, base64_body::body(parts)).into_response()
}

/// An object with these members that another one follows.
fn open_object(members: Map<String, Value>) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    let mut text = Value::Object(members).to_string();
    text.pop();
    text + comma
}

fn image_url(app: &App, name: &ImageName) -> String {
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    format!("{base}/ui/images/{}", name.as_str())
}
