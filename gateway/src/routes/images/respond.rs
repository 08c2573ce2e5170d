//! Stores images and makes the response that hands them out.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use service::{clock::unix_now, slots::SharedPermit};

use super::{
    base64_body::{self, BodyPart},
    recorder::Recorder,
};
use crate::{
    app::App,
    backend::images::{GeneratedImage, GeneratedImages},
    blocking::run_blocking_with_permit,
    config::ResponseFormat,
    error::ApiError,
    jobs::JobGuard,
    store::{
        EncodedImage, ImageName, StoreError, disk::StoredImage, metadata::Provenance, writable::ReservedFiles,
    },
};

/// A stored image and its metadata from the backend.
type ImageEntry = (StoredImage, Map<String, Value>);

/// Stores all images, whatever the response format, and responds. The backend's slot is held until they are stored.
pub(super) async fn store_images(
    app: &App,
    generated: GeneratedImages,
    recorder: &Recorder,
    job: &Arc<JobGuard>,
) -> Result<Response, ApiError> {
    let GeneratedImages { grant, images, envelope } = generated;
    let (store, unix) = (app.store.clone(), unix_now());
    let split = |GeneratedImage { file, metadata }| {
        ((file, recorder.provenance(&[&envelope.common, &metadata])), metadata)
    };
    let (files, metadata): (Vec<_>, Vec<_>) = images.into_iter().map(split).unzip();
    let commit = move || store.commit(files, unix);
    let stored = store_recorded(app, job, grant.slot(), commit).await?;
    let entries = stored.into_iter().zip(metadata).collect();
    let around = envelope.split_at_data(unix);
    Ok(match grant.routed().response_format() {
        ResponseFormat::Url => url_response(app, entries, around),
        ResponseFormat::Base64 => base64_response(entries, around),
    })
}

/// Stores one image of a stream in its reserved file; returns its URL.
pub(super) async fn store_image(
    app: &App,
    slot: SharedPermit,
    mut file: ReservedFiles,
    image: EncodedImage,
    provenance: Provenance,
    job: &Arc<JobGuard>,
) -> Result<String, ApiError> {
    let store = app.store.clone();
    let commit =
        move || store.commit(vec![(store.write_reserved(&mut file, &image)?, provenance)], unix_now());
    let stored = store_recorded(app, job, slot, commit).await?;
    Ok(image_url(app, &stored.first().expect("one image is stored as one").name))
}

/// Has `commit` store the images of a job that was not cancelled before. Images that are stored belong to a job that is done: that
/// is recorded where they are stored, because the client may disconnect meanwhile.
async fn store_recorded(
    app: &App,
    job: &Arc<JobGuard>,
    slot: SharedPermit,
    commit: impl FnOnce() -> Result<Vec<StoredImage>, StoreError> + Send + 'static,
) -> Result<Vec<StoredImage>, ApiError> {
    if !job.begin_storing() {
        return Err(ApiError::Cancelled);
    }
    let (metrics, job) = (app.metrics.clone(), job.clone());
    let stored = run_blocking_with_permit(slot, move || {
        let stored = commit()?;
        metrics.record_stored_images(stored.len(), stored.iter().map(|image| image.size).sum());
        job.complete(stored.iter().map(|image| image.name.as_str().to_owned()).collect());
        Ok(stored)
    });
    stored.await.map_err(ApiError::Store)
}

fn url_response(app: &App, images: Vec<ImageEntry>, (before, after): (String, String)) -> Response {
    let entry = |(stored, mut metadata): ImageEntry| {
        metadata.insert("url".to_owned(), image_url(app, &stored.name).into());
        Value::Object(metadata)
    };
    let data: Value = images.into_iter().map(entry).collect();
    let body = format!("{before}{data}{after}");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

/// Encodes the images from the store while they are sent, so that none is in memory as a whole.
fn base64_response(images: Vec<ImageEntry>, (before, after): (String, String)) -> Response {
    let mut parts = Vec::with_capacity(2 * images.len() + 1);
    let mut text = before + "[";
    let mut separator = "";
    for (stored, metadata) in images {
        text.extend([separator, &open_object(metadata), "\"b64_json\":\""]);
        parts.extend([BodyPart::Text(std::mem::replace(&mut text, "\"}".to_owned()).into()), stored.into()]);
        separator = ",";
    }
    parts.push(BodyPart::Text((text + "]" + &after).into()));
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, base64_body::content_length(&parts).to_string()),
    ];
    (headers, base64_body::body(parts)).into_response()
}

/// An object with these members, left open for one more.
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
