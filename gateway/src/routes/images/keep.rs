//! Pictures in the store, and the answer that hands them out.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{
    backend::{Made, Pictures},
    blocking::blocking,
    config::Delivery,
    error::ApiError,
    state::{App, unix_now},
    store::{Picture, PictureName},
};

/// Pictures in the store, ready to be handed out.
pub(super) struct Kept {
    pictures: Vec<KeptPicture>,
    rest: Map<String, Value>,
    unix: u64,
}

struct KeptPicture {
    name: PictureName,
    base64: Option<String>,
    words: Map<String, Value>,
}

/// Stores every picture, base64 or not. The place in the backend is held until it is done.
pub(super) async fn keep(app: &App, pictures: Pictures) -> Result<Kept, ApiError> {
    let Pictures { grant, made, rest } = pictures;
    let store = app.store.clone();
    let bytes = made.iter().map(|made| made.picture.bytes().len()).sum();
    let inline = grant.permitted().delivery() == Delivery::Base64;
    let unix = unix_now();
    let pictures = blocking(move || {
        let pictures: Vec<_> = made.iter().map(|made| &made.picture).collect();
        let names = store.keep(&pictures, unix)?;
        let hand_out = |(name, Made { picture, words })| KeptPicture {
            name,
            base64: inline.then(|| base64_simd::STANDARD.encode_to_string(picture.bytes())),
            words,
        };
        Ok(names.into_iter().zip(made).map(hand_out).collect())
    });
    let pictures: Vec<_> = pictures.await.map_err(ApiError::Store)?;
    app.metrics.stored(pictures.len(), bytes);
    drop(grant);
    Ok(Kept { pictures, rest, unix })
}

/// Stores one picture and gives its address.
pub(super) async fn keep_one(app: &App, picture: Picture) -> Result<String, ApiError> {
    let (store, bytes) = (app.store.clone(), picture.bytes().len());
    let names = blocking(move || store.keep(&[&picture], unix_now())).await.map_err(ApiError::Store)?;
    app.metrics.stored(names.len(), bytes);
    Ok(address(app, names.first().expect("one picture has one name")))
}

/// The answer.
pub(super) fn render(app: &App, kept: Kept) -> Response {
    let Kept { pictures, rest: mut answer, unix } = kept;
    let entry = |picture: KeptPicture| {
        let mut entry = picture.words;
        match picture.base64 {
            Some(base64) => entry.insert("b64_json".to_owned(), base64.into()),
            None => entry.insert("url".to_owned(), address(app, &picture.name).into()),
        };
        Value::Object(entry)
    };
    answer.insert("data".to_owned(), pictures.into_iter().map(entry).collect());
    if !answer.get("created").is_some_and(Value::is_u64) {
        answer.insert("created".to_owned(), json!(unix));
    }
    Json(Value::Object(answer)).into_response()
}

fn address(app: &App, name: &PictureName) -> String {
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    format!("{base}/ui/images/{}", name.as_str())
}
