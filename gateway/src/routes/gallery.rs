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

use super::Visit;
use crate::{
    app::App,
    blocking::blocking,
    config::Access,
    error::ApiError,
    middleware::gate::Caller,
    request::demand::Malformed,
    store::{PictureName, disk::Store, index::Known, records::Record, shelf::Listed},
};

/// Pictures of a page that names no number.
const USUAL: usize = 50;
/// Most pictures of a page.
const MOST: usize = 200;

/// A page, newest first.
pub(crate) async fn list(
    State(app): State<App>,
    visit: Visit,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let page = Page::of(query.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::Malformed(Malformed::Field(error)))?;
    let (store, caller) = (app.store.clone(), visit.caller);
    let (pictures, has_more, totals) = on_disk(move || match (&page.request_id, caller.sees_all()) {
        (None, true) => {
            let (pictures, has_more) = store.page(page.before.as_ref(), page.limit)?;
            Ok((pictures, has_more, store.totals()))
        }
        (id, sees_all) => {
            let wants = |known: &Known| {
                let seen = sees_all || known.owners.iter().any(|owner| caller.is_owner(owner));
                seen && id.as_ref().is_none_or(|id| known.request_ids.contains(id))
            };
            store.page_of(&wants, page.before.as_ref(), page.limit)
        }
    })
    .await?;
    let next = pictures.last().filter(|_| has_more).map(|last| last.name.as_str().to_owned());
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    let entries: Vec<_> = pictures.iter().map(|listed| entry(listed, base)).collect();
    Ok(Json(json!({
        "object": "list",
        "data": entries,
        "has_more": has_more,
        "next_before": next,
        "total": {"pictures": totals.pictures, "bytes": totals.bytes},
    })))
}

fn entry(listed: &Listed, base: &str) -> Value {
    let name = listed.name.as_str();
    json!({
        "name": name,
        "url": format!("{base}/ui/images/{name}"),
        "bytes": listed.bytes,
        "created": listed.name.unix(),
        "content_type": listed.mime,
    })
}

/// One, and what is known of it.
pub(crate) async fn one(State(app): State<App>, visit: Visit, uri: Uri) -> Result<Json<Value>, ApiError> {
    let (name, store, caller) = (named(&uri)?, app.store.clone(), visit.caller.clone());
    let found = on_disk(move || seen(&store, &name, &caller)).await?;
    let (listed, record) = found.ok_or(ApiError::NotFound)?;
    let base = app.config.public_base_url.as_deref().unwrap_or_default();
    let mut all = told(record, &app.config.access, &visit.caller);
    // What is in the store counts for more than what was written beside it.
    all.extend(entry(&listed, base).as_object().cloned().unwrap_or_default());
    Ok(Json(all.into()))
}

/// A picture and its record, if they are there for this caller.
fn seen(store: &Store, name: &PictureName, caller: &Caller) -> std::io::Result<Option<(Listed, Record)>> {
    let Some(listed) = store.listed(name)? else { return Ok(None) };
    let record = store.record(name)?;
    let is_seen = caller.sees_all() || record.owners.iter().any(|owner| caller.is_owner(owner));
    Ok(is_seen.then_some((listed, record)))
}

/// A record as its reader sees it: whose the picture is besides is the business of those who see all.
fn told(record: Record, access: &Access, caller: &Caller) -> Map<String, Value> {
    let Record { owners, request_ids, further } = record;
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
pub(crate) async fn delete(State(app): State<App>, visit: Visit, uri: Uri) -> Result<Response, ApiError> {
    let (name, store, caller) = (named(&uri)?, app.store.clone(), visit.caller);
    let picture = name.clone();
    let there = on_disk(move || {
        if caller.sees_all() {
            store.remove(&picture)
        } else {
            store.remove_from(&picture, &|owner| caller.is_owner(owner))
        }
    });
    if !there.await? {
        return Err(ApiError::NotFound);
    }
    info!(picture = name.as_str(), "picture deleted on request");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// By the raw path: a name in the store's form needs no escapes.
fn named(uri: &Uri) -> Result<PictureName, ApiError> {
    uri.path().strip_prefix("/v1/gateway/images/").and_then(PictureName::parse).ok_or(ApiError::NotFound)
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    blocking(work).await.map_err(|error| ApiError::Store(error.into()))
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    before: Option<PictureName>,
    /// Those only that this request made.
    request_id: Option<String>,
}

impl Page {
    /// Both values are plain where they are right: nothing in them is ever escaped.
    fn of(query: &str) -> Result<Self, FieldError> {
        let mut page = Self { limit: USUAL, before: None, request_id: None };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    let expected =
                        || FieldError::new("limit", format!("limit must be between 1 and {MOST}."));
                    page.limit = limit.ok_or_else(expected)?;
                }
                "before" => {
                    let expected =
                        || FieldError::new("before", "before must be the name of a stored picture.");
                    page.before = Some(PictureName::parse(value).ok_or_else(expected)?);
                }
                "request_id" => {
                    let expected =
                        || FieldError::new("request_id", "request_id must be an X-Request-Id of an answer.");
                    page.request_id = Some(
                        Some(value)
                            .filter(|id| request_id::is_sane(id.as_bytes()))
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
        let before = PictureName::parse(name);
        for (query, limit, before) in [
            ("", USUAL, None),
            ("limit=1&other=2", 1, None),
            (&*format!("before={name}&limit={MOST}"), MOST, before),
        ] {
            assert_eq!(Page::of(query), Ok(Page { limit, before, request_id: None }), "{query}");
        }
        assert_eq!(Page::of("request_id=a.B-1_").unwrap().request_id.as_deref(), Some("a.B-1_"));
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
            assert_eq!(Page::of(query).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
    }
}
