//! `GET /v1/gateway/images`, `GET` and `DELETE /v1/gateway/images/{name}`: lists, describes and deletes stored images. A token
//! sees the images that it made, and some see all; any other image is 404. A name that is not in the store's form never reaches
//! the disk.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod query;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use tracing::info;

use self::query::PageQuery;
use super::AuthorizedRequest;
use crate::{
    app::App,
    blocking::blocking,
    config::AccessConfig,
    error::ApiError,
    middleware::auth::Caller,
    request::image_request::Malformed,
    store::{
        ImageName,
        cached_metadata::CachedMetadata,
        disk::ImageStore,
        index::Filter,
        listing::{ImagePage, ListedImage},
        metadata::ImageMetadata,
    },
};

/// A page, newest first.
pub(crate) async fn list_images(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let page = PageQuery::parse(query.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::Malformed(Malformed::Field(error)))?;
    let (store, caller) = (app.store.clone(), authorized.caller);
    let ImagePage { images, has_more, totals } = on_disk(move || {
        let matches = |name: &ImageName, image: &CachedMetadata| {
            let visible = caller.sees_all() || image.owners.iter().any(|owner| caller.is_owner(owner));
            visible && page.filter.matches(name, image)
        };
        let filter = (!caller.sees_all() || page.filter.is_set()).then_some(&matches as Filter<'_>);
        store.page(filter, page.before.as_ref(), page.limit)
    })
    .await?;
    let next = images.last().filter(|_| has_more).map(|last| last.name.as_str().to_owned());
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    let entries: Vec<_> = images.iter().map(|listed| entry(listed, base)).collect();
    Ok(Json(json!({
        "object": "list",
        "data": entries,
        "has_more": has_more,
        "next_before": next,
        "total": {"pictures": totals.images, "bytes": totals.bytes},
    })))
}

/// An image in a list: what its record says in short, and what the store knows, which wins.
fn entry(listed: &ListedImage, base: &str) -> Map<String, Value> {
    let mut entry = listed.metadata.summary();
    entry.extend(file_members(listed, base));
    entry
}

fn file_members(listed: &ListedImage, base: &str) -> impl Iterator<Item = (String, Value)> {
    let name = listed.name.as_str();
    // For the page, which is of the same origin. Drawings have none.
    let thumbnail = (!listed.name.is_svg()).then(|| format!("/ui/thumbnails/{name}"));
    let members = [
        ("name", Some(name.into())),
        ("url", Some(format!("{base}/ui/images/{name}").into())),
        ("thumbnail", thumbnail.map(Value::from)),
        ("bytes", Some(listed.size.into())),
        ("created", Some(listed.name.unix().into())),
        ("content_type", Some(listed.mime.into())),
    ];
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)))
}

/// An image and its metadata.
pub(crate) async fn get_image(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let (name, store, caller) = (image_name(&uri)?, app.store.clone(), authorized.caller.clone());
    let image = on_disk(move || find_visible(&store, &name, &caller)).await?;
    let (listed, metadata) = image.ok_or(ApiError::NotFound)?;
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    let mut all = metadata_json(metadata, &app.config.access, &authorized.caller);
    // What the store knows overrides what the metadata file says.
    all.extend(file_members(&listed, base));
    Ok(Json(all.into()))
}

/// An image and its metadata, if the caller may see them.
fn find_visible(
    store: &ImageStore,
    name: &ImageName,
    caller: &Caller,
) -> std::io::Result<Option<(ListedImage, ImageMetadata)>> {
    let Some((listed, metadata)) = store.describe(name)? else { return Ok(None) };
    let visible = caller.sees_all() || metadata.owners.iter().any(|owner| caller.is_owner(owner));
    Ok(visible.then_some((listed, metadata)))
}

/// Metadata as this caller may see it: only those who see all learn who else owns the image.
fn metadata_json(metadata: ImageMetadata, access: &AccessConfig, caller: &Caller) -> Map<String, Value> {
    let ImageMetadata { owners, request_ids, further } = metadata;
    let name = |owner: &String| {
        let token = access.tokens.iter().find(|token| token.is_owner(owner));
        // An unnamed token that was removed has only its fingerprint.
        token.map_or_else(|| owner.trim_start_matches('#').to_owned(), |token| token.name.clone())
    };
    let owners = owners.iter().filter(|owner| caller.sees_all() || caller.is_owner(owner));
    let mut all = further;
    all.insert("owners".to_owned(), owners.map(name).collect());
    all.extend(request_ids.last().map(|newest| ("request_id".to_owned(), newest.as_str().into())));
    all.insert("request_ids".to_owned(), request_ids.into());
    all
}

/// Deletes an image; for a caller that does not see all, only its share in it.
pub(crate) async fn delete_image(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (name, store, caller) = (image_name(&uri)?, app.store.clone(), authorized.caller);
    let image = name.clone();
    let removed = on_disk(move || {
        if caller.sees_all() {
            store.remove(&image)
        } else {
            store.remove_owner(&image, &|owner| caller.is_owner(owner))
        }
    });
    if !removed.await? {
        return Err(ApiError::NotFound);
    }
    info!(picture = name.as_str(), "image deleted on request");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// From the raw path: a name in the store's form needs no escapes.
fn image_name(uri: &Uri) -> Result<ImageName, ApiError> {
    uri.path().strip_prefix("/v1/gateway/images/").and_then(ImageName::parse).ok_or(ApiError::NotFound)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    blocking(work).await.map_err(|error| ApiError::Store(error.into()))
}
