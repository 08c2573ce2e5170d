//! Pictures in the store, and the answer that hands them out.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use service::{clock::unix_now, slots::Place};

use super::inline::{self, Part};
use crate::{
    app::App,
    backend::{Made, Pictures},
    blocking::blocking_under,
    config::Delivery,
    error::ApiError,
    store::{Picture, PictureName, disk, records::Note, writable::Prepared},
};

/// Pictures in the store, ready to be handed out.
pub(super) struct Kept {
    pictures: Vec<(disk::Kept, Map<String, Value>)>,
    /// What stands before the list of them in the answer, and what behind.
    around: (String, String),
    delivery: Delivery,
}

/// Gives every picture its name, base64 or not. The place in the backend is held until it is done.
pub(super) async fn keep(app: &App, pictures: Pictures, note: Note) -> Result<Kept, ApiError> {
    let Pictures { grant, made, rest } = pictures;
    let (store, unix) = (app.store.clone(), unix_now());
    let (pictures, words): (Vec<_>, Vec<_>) =
        made.into_iter().map(|Made { picture, words }| (picture, words)).unzip();
    let kept = blocking_under(grant.place(), move || store.keep(pictures, unix, &note)).await;
    let kept = kept.map_err(ApiError::Store)?;
    app.metrics.stored(kept.len(), kept.iter().map(|kept| kept.bytes).sum());
    let delivery = grant.permitted().delivery();
    Ok(Kept { pictures: kept.into_iter().zip(words).collect(), around: rest.around(unix), delivery })
}

/// Stores one picture, which came under this place, in the file prepared for it, and gives its address.
pub(super) async fn keep_one(
    app: &App,
    place: Place,
    mut prepared: Prepared,
    picture: Picture,
    note: Note,
) -> Result<String, ApiError> {
    let store = app.store.clone();
    let keep = move || store.keep(vec![store.write_prepared(&mut prepared, &picture)?], unix_now(), &note);
    let kept = blocking_under(place, keep).await;
    let kept = kept.map_err(ApiError::Store)?;
    app.metrics.stored(kept.len(), kept.iter().map(|kept| kept.bytes).sum());
    Ok(address(app, &kept.first().expect("one picture is kept as one").name))
}

/// The answer.
pub(super) fn render(app: &App, kept: Kept) -> Response {
    let Kept { pictures, around, delivery } = kept;
    match delivery {
        Delivery::Url => with_addresses(app, pictures, around),
        Delivery::Base64 => with_base64(pictures, around),
    }
}

fn with_addresses(
    app: &App,
    pictures: Vec<(disk::Kept, Map<String, Value>)>,
    (before, behind): (String, String),
) -> Response {
    let entry = |(kept, mut words): (disk::Kept, Map<String, Value>)| {
        words.insert("url".to_owned(), address(app, &kept.name).into());
        Value::Object(words)
    };
    let data: Value = pictures.into_iter().map(entry).collect();
    let answer = format!("{before}{data}{behind}");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], answer).into_response()
}

/// The pictures are encoded from the store while they are sent, so that none is in memory whole.
fn with_base64(
    pictures: Vec<(disk::Kept, Map<String, Value>)>,
    (before, behind): (String, String),
) -> Response {
    let mut parts = Vec::with_capacity(2 * pictures.len() + 1);
    let mut text = before + "[";
    let mut between = "";
    for (kept, words) in pictures {
        text.extend([between, &opened(words), "\"b64_json\":\""]);
        parts.extend([Part::Text(std::mem::replace(&mut text, "\"}".to_owned()).into()), kept.into()]);
        between = ",";
    }
    parts.push(Part::Text((text + "]" + &behind).into()));
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, inline::length(&parts).to_string()),
    ];
    (headers, inline::body(parts)).into_response()
}

/// An object with these members that another one follows.
fn opened(members: Map<String, Value>) -> String {
    let comma = if members.is_empty() { "" } else { "," };
    let mut text = Value::Object(members).to_string();
    text.pop();
    text + comma
}

fn address(app: &App, name: &PictureName) -> String {
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    format!("{base}/ui/images/{}", name.as_str())
}
