//! `GET /v1/gateway/images`, `GET` and `DELETE /v1/gateway/images/{name}`: what is in the store, and taking something out. A
//! token sees the pictures that it made, and some see all; what a caller does not see is not there. A name that is not of the
//! store's form never reaches the disk.

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

/// Pictures of a page that names no number.
const DEFAULT_LIMIT: usize = 50;
/// Most pictures of a page.
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
            let wants = |entry: &CachedMetadata| {
                let seen = sees_all || entry.owners.iter().any(|owner| caller.is_owner(owner));
                seen && id.as_ref().is_none_or(|id| entry.request_ids.contains(id))
            };
            store.page_matching(&wants, page.before.as_ref(), page.limit)
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

/// One, and what is known of it.
pub(crate) async fn get_image(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    uri: Uri,
) -> Result<Json<Value>, ApiError> {
    let (name, store, caller) = (image_name(&uri)?, app.store.clone(), authorized.caller.clone());
    let found = on_disk(move || find_visible(&store, &name, &caller)).await?;
    let (listed, record) = found.ok_or(ApiError::NotFound)?;
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    let mut all = record_json(record, &app.config.access, &authorized.caller);
    // What is in the store counts for more than what was written beside it.
    all.extend(entry(&listed, base).as_object().cloned().unwrap_or_default());
    Ok(Json(all.into()))
}

/// A picture and its record, if they are there for this caller.
fn find_visible(
    store: &ImageStore,
    name: &ImageName,
    caller: &Caller,
) -> std::io::Result<Option<(ListedImage, ImageMetadata)>> {
    let Some(listed) = store.stat(name)? else { return Ok(None) };
    let record = store.read_metadata(name)?;
    let is_seen = caller.sees_all() || record.owners.iter().any(|owner| caller.is_owner(owner));
    Ok(is_seen.then_some((listed, record)))
}

/// A record as its reader sees it: whose the picture is besides is the business of those who see all.
fn record_json(record: ImageMetadata, access: &AccessConfig, caller: &Caller) -> Map<String, Value> {
    let ImageMetadata { owners, request_ids, further } = record;
    let name = |owner: &String| {
        let holder = access.tokens.iter().find(|token| token.is_owner(owner));
        // Of a bare token that is gone nothing is left to call it by.
        holder.map_or_else(|| owner.trim_start_matches('#').to_owned(), |token| token.name.clone())
    };
    let mine = owners.iter().filter(|owner| caller.sees_all() || caller.is_owner(owner));
    let mut all = further;
    all.insert("owners".to_owned(), mine.map(name).collect());
    all.insert("request_ids".to_owned(), request_ids.into());
    all
}

/// Deletes one.
pub(crate) async fn delete_image(
    State(app): State<App>,
    authorized: AuthorizedRequest,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (name, store, caller) = (image_name(&uri)?, app.store.clone(), authorized.caller);
    let image = name.clone();
    let there = on_disk(move || {
        if caller.sees_all() {
            store.remove(&image)
        } else {
            store.remove_owner(&image, &|owner| caller.is_owner(owner))
        }
    });
    if !there.await? {
        return Err(ApiError::NotFound);
    }
    info!(picture = name.as_str(), "picture deleted on request");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// By the raw path: a name in the store's form needs no escapes.
fn image_name(uri: &Uri) -> Result<ImageName, ApiError> {
    uri.path().strip_prefix("/v1/gateway/images/").and_then(ImageName::parse).ok_or(ApiError::NotFound)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    blocking(work).await.map_err(|error| ApiError::Store(error.into()))
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
struct PageQuery {
    limit: usize,
    before: Option<ImageName>,
    /// Those only that this request made.
    request_id: Option<String>,
}

impl PageQuery {
    /// Both values are plain where they are right: nothing in them is ever escaped.
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
                    let expected =
                        || FieldError::new("before", "before must be the name of a stored picture.");
                    page.before = Some(ImageName::parse(value).ok_or_else(expected)?);
                }
                "request_id" => {
                    let expected =
                        || FieldError::new("request_id", "request_id must be an X-Request-Id of an answer.");
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
    fn a_page_is_read_from_the_query_and_what_is_wrong_is_named() {
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
