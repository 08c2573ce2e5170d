//! `GET /v1/gateway/images`, `GET` and `DELETE /v1/gateway/images/{name}`: lists, describes and deletes stored images. A token
//! sees the images that it made, and some see all; any other image is 404. A name that is not in the store's form never reaches
//! the disk.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use service::request_id;
use tracing::info;
use wire::openai::fields::FieldError;

use super::AuthorizedRequest;
use crate::{
    app::App,
    blocking::blocking,
    config::AccessConfig,
    error::ApiError,
    middleware::auth::Caller,
    request::image_request::Malformed,
    store::{
        ImageName, disk::ImageStore, index::CachedMetadata, listing::ListedImage, metadata::ImageMetadata,
    },
};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 200;

/// A page, newest first.
pub(crate) async fn list_images(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let page = PageQuery::parse(query.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::Malformed(Malformed::Field(error)))?;
    let (store, caller) = (app.store.clone(), authorized.caller);
    let (images, has_more, totals) = on_disk(move || match (&page.request_id, caller.sees_all()) {
        (None, true) => {
            let (images, has_more) = store.page(page.before.as_ref(), page.limit)?;
            Ok((images, has_more, store.totals()))
        }
        (id, sees_all) => {
            let matches = |entry: &CachedMetadata| {
                let visible = sees_all || entry.owners.iter().any(|owner| caller.is_owner(owner));
                visible && id.as_ref().is_none_or(|id| entry.request_ids.contains(id))
            };
            store.page_matching(&matches, page.before.as_ref(), page.limit)
        }
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

fn entry(listed: &ListedImage, base: &str) -> Value {
    let name = listed.name.as_str();
    json!({
        "name": name,
        "url": format!("{base}/ui/images/{name}"),
        "bytes": listed.size,
        "created": listed.name.unix(),
        "content_type": listed.mime,
    })
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
    all.extend(entry(&listed, base).as_object().cloned().unwrap_or_default());
    Ok(Json(all.into()))
}

/// An image and its metadata, if the caller may see them.
fn find_visible(
    store: &ImageStore,
    name: &ImageName,
    caller: &Caller,
) -> std::io::Result<Option<(ListedImage, ImageMetadata)>> {
    let Some(listed) = store.stat(name)? else { return Ok(None) };
    let metadata = store.read_metadata(name)?;
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

#[derive(Debug, PartialEq, Eq)]
struct PageQuery {
    limit: usize,
    before: Option<ImageName>,
    /// Only images that this request made.
    request_id: Option<String>,
}

impl PageQuery {
    /// Valid values never need escapes, so none are decoded.
    fn parse(query: &str) -> Result<Self, FieldError> {
        let mut page = Self { limit: DEFAULT_LIMIT, before: None, request_id: None };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                    let expected =
                        || FieldError::new("limit", format!("limit must be between 1 and {MAX_LIMIT}."));
                    page.limit = limit.ok_or_else(expected)?;
                }
                "before" => {
                    let expected = || FieldError::new("before", "before must be the name of a stored image.");
                    page.before = Some(ImageName::parse(value).ok_or_else(expected)?);
                }
                "request_id" => {
                    let expected = || {
                        FieldError::new("request_id", "request_id must be the X-Request-Id of a response.")
                    };
                    page.request_id = Some(
                        Some(value)
                            .filter(|id| request_id::is_valid(id.as_bytes()))
                            .ok_or_else(expected)?
                            .to_owned(),
                    );
                }
                _ => {}
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_parsed_and_a_wrong_parameter_is_named() {
        let name = "1736697234_0123456789abcdef.png";
        let before = ImageName::parse(name);
        for (query, limit, before) in [
            ("", DEFAULT_LIMIT, None),
            ("limit=1&other=2", 1, None),
            (&*format!("before={name}&limit={MAX_LIMIT}"), MAX_LIMIT, before),
        ] {
            assert_eq!(PageQuery::parse(query), Ok(PageQuery { limit, before, request_id: None }), "{query}");
        }
        assert_eq!(PageQuery::parse("request_id=a.B-1_").unwrap().request_id.as_deref(), Some("a.B-1_"));
        for (query, param) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit", "limit"),
            ("limit=ten", "limit"),
            ("before=", "before"),
            ("before=../.env", "before"),
            ("request_id=", "request_id"),
            ("request_id=a%20b", "request_id"),
        ] {
            assert_eq!(PageQuery::parse(query).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
    }
}
