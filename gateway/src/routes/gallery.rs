//! `GET /v1/gateway/images` and `DELETE /v1/gateway/images/{name}`: what is in the store, and taking something out. A name
//! that is not of the store's form never reaches the disk.

use axum::{
    Json,
    extract::{RawQuery, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use shared::openai::fields::FieldError;
use tracing::info;

use crate::{
    blocking::blocking,
    error::ApiError,
    policy::demand::Malformed,
    state::App,
    store::{PictureName, shelf::Listed},
};

/// Pictures of a page that names no number.
const USUAL: usize = 50;
/// Most pictures of a page.
const MOST: usize = 200;

/// A page, newest first.
pub(crate) async fn list(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let Page { limit, before } = Page::of(query.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::Malformed(Malformed::Field(error)))?;
    let store = app.store.clone();
    let page = blocking(move || store.page(before.as_ref(), limit)).await;
    let (pictures, has_more) = page.map_err(|error| ApiError::Store(error.into()))?;
    let next = pictures.last().filter(|_| has_more).map(|last| last.name.as_str().to_owned());
    let totals = app.store.totals();
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

/// Deletes one.
pub(crate) async fn delete(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    // The raw path: a name in the store's form needs no escapes.
    let name = request.uri().path().strip_prefix("/v1/gateway/images/").and_then(PictureName::parse);
    let name = name.ok_or(ApiError::NotFound)?;
    let (store, picture) = (app.store.clone(), name.clone());
    let there = blocking(move || store.remove(&picture)).await;
    if !there.map_err(|error| ApiError::Store(error.into()))? {
        return Err(ApiError::NotFound);
    }
    info!(picture = name.as_str(), "picture deleted on request");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Which page is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    before: Option<PictureName>,
}

impl Page {
    /// Both values are plain where they are right: nothing in them is ever escaped.
    fn of(query: &str) -> Result<Self, FieldError> {
        let mut page = Self { limit: USUAL, before: None };
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
            assert_eq!(Page::of(query), Ok(Page { limit, before }), "{query}");
        }
        for (query, param) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit", "limit"),
            ("limit=ten", "limit"),
            ("before=", "before"),
            ("before=../.env", "before"),
        ] {
            assert_eq!(Page::of(query).unwrap_err().param.as_deref(), Some(param), "{query}");
        }
    }
}
