//! The models that a backend lists: asked for after each probe and published, so that a request's way depends on what is
//! known and not on who answers just now. A list is read entry by entry: what is usable counts.

use std::{collections::HashSet, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use serde_json::value::RawValue;
use service::outbound::{ReadBodyError, read_limited};
use wire::openai::{
    models::Model,
    object::{Duplicates, JsonObject, for_each_element},
};

use super::probe::is_html;
use crate::config::Backend;

/// Bytes of a list.
pub(super) const MAX_LIST_BYTES: usize = 1 << 20;
/// Most entries of a list that are kept.
const MAX_MODELS: usize = 10_000;

/// What a backend listed last.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelListing {
    /// The models, with the class as owner.
    pub(super) models: Arc<[Model]>,
    /// What of the list, or of the last try to get one, could not be used. A warning in the status.
    pub(super) warning: Option<String>,
}

/// What asking for a list comes to.
#[derive(Debug)]
pub(super) enum ListOutcome {
    /// A list.
    Listed(ModelListing),
    /// The backend keeps none, which is no fault.
    Unsupported,
    /// None could be read, for this reason.
    Failed(String),
}

/// Asks for the list, and waits for it as long as for a probe.
pub(super) async fn fetch_listing(client: &Client, backend: &Backend, timeout: Duration) -> ListOutcome {
    let late = || ListOutcome::Failed(format!("it did not come within {} s", timeout.as_secs_f64()));
    tokio::time::timeout(timeout, request_listing(client, backend)).await.unwrap_or_else(|_| late())
}

async fn request_listing(client: &Client, backend: &Backend) -> ListOutcome {
    let url = backend.api_url("models");
    let failed = |why: &str| ListOutcome::Failed(format!("{} {why}", url.path()));
    let Ok(answer) = backend.authorized(client.get(url.clone())).send().await else {
        return failed("was not answered: the connection broke");
    };
    match answer.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            return ListOutcome::Unsupported;
        }
        status => return failed(&format!("answered {}", status.as_u16())),
    }
    let kind = answer.headers().get(CONTENT_TYPE).cloned();
    match read_limited(answer, MAX_LIST_BYTES).await {
        Ok(body) if is_html(kind.as_ref(), &body) => failed("answered a web page (HTML)"),
        Ok(body) => parse_listing(&body, &backend.class).map_or_else(failed, ListOutcome::Listed),
        Err(ReadBodyError::TooLarge) => failed(&format!("answered more than {} MiB", MAX_LIST_BYTES >> 20)),
        Err(ReadBodyError::Transport(_)) => failed("broke off its answer"),
    }
}

/// Reads `{"data": […]}`. No bytes at all are an empty list, as mlx_lm sends one where it has no cache of models, and so is
/// `null`, as Ollama sends it.
fn parse_listing(body: &[u8], class: &str) -> Result<ModelListing, &'static str> {
    if body.trim_ascii().is_empty() {
        return Ok(ModelListing::default());
    }
    let no_object = "answered no JSON object";
    let text = str::from_utf8(body).map_err(|_| no_object)?;
    let list = JsonObject::parse_with(text, &["data"], Duplicates::KeepLast).map_err(|_| no_object)?;
    let (mut models, mut count, mut unusable) = (Vec::new(), 0_usize, SkippedEntries::default());
    let mut seen_ids = HashSet::new();
    let each = |entry| {
        count += 1;
        match id(entry) {
            // Twice in one list is one model, the first.
            Ok(id) if !seen_ids.insert(id.clone()) => {}
            Ok(_) if models.len() == MAX_MODELS => unusable.add(count, "there are too many"),
            Ok(id) => models.push(Model::new(id, created(entry), class)),
            Err(why) => unusable.add(count, why),
        }
        true
    };
    match list.members.last().map(|member| member.value) {
        Some(data) if data.get() == "null" || for_each_element(data, each) => {}
        Some(_) | None => return Err("answered JSON without a list `data`"),
    }
    Ok(ModelListing { models: models.into(), warning: unusable.warning(count) })
}

/// Entries that name no model.
#[derive(Debug, Default)]
struct SkippedEntries {
    count: usize,
    /// Which is the first, and why.
    first: Option<(usize, &'static str)>,
}

impl SkippedEntries {
    fn add(&mut self, nth: usize, why: &'static str) {
        self.count += 1;
        self.first.get_or_insert((nth, why));
    }

    fn warning(&self, all: usize) -> Option<String> {
        let (nth, why) = self.first?;
        let entries = if self.count == 1 { "entry" } else { "entries" };
        Some(format!(
            "list of models: {} {entries} of {all} left out, the first is number {nth}: {why}",
            self.count
        ))
    }
}

fn member<'a>(entry: &'a RawValue, name: &'static str) -> Option<&'a RawValue> {
    JsonObject::parse_with(entry.get(), &[name], Duplicates::KeepLast).ok()?.get(name)
}

fn id(entry: &RawValue) -> Result<String, &'static str> {
    if !entry.get().starts_with('{') {
        return Err("it is no JSON object");
    }
    let value = member(entry, "id").ok_or("it has no `id`")?;
    let id: String = serde_json::from_str(value.get()).map_err(|_| "its `id` is no string")?;
    if id.trim().is_empty() { Err("its `id` is empty") } else { Ok(id) }
}

/// Unix seconds; 0 where the backend gives none that make sense. Some give fractions.
fn created(entry: &RawValue) -> u64 {
    let number = || serde_json::from_str::<f64>(member(entry, "created")?.get()).ok();
    // A float that is negative, or too large, becomes the nearest that can be.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    number().map_or(0, |seconds| seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(body: &str) -> (Vec<String>, Option<String>) {
        let listing = parse_listing(body.as_bytes(), "local_mlx").unwrap();
        assert!(listing.models.iter().all(|model| model.owned_by == "local_mlx" && model.object == "model"));
        (listing.models.iter().map(|model| model.id.clone()).collect(), listing.warning)
    }

    #[test]
    fn one_odd_entry_does_not_cost_the_others() {
        let list = r#"{"object":"list","data":[{"id":"good","object":"model","created":1,"owned_by":"x"},
            {"id":"odd","object":"model","created":null,"owned_by":null}]}"#;
        assert_eq!(ids(list), (vec!["good".to_owned(), "odd".to_owned()], None));
        for (entry, why) in [
            ("7", "it is no JSON object"),
            ("null", "it is no JSON object"),
            ("\"name\"", "it is no JSON object"),
            ("[]", "it is no JSON object"),
            ("{}", "it has no `id`"),
            (r#"{"id":null}"#, "it has no `id`"),
            (r#"{"id":7}"#, "its `id` is no string"),
            (r#"{"id":{"a":1}}"#, "its `id` is no string"),
            (r#"{"id":""}"#, "its `id` is empty"),
            (r#"{"id":" "}"#, "its `id` is empty"),
            (r#"{"id":"\ud83d"}"#, "its `id` is no string"),
        ] {
            let (ids, warning) = ids(&format!(r#"{{"data":[{{"id":"a"}},{entry},{entry},{{"id":"b"}}]}}"#));
            assert_eq!(ids, ["a", "b"], "{entry}");
            let words = format!("list of models: 2 entries of 4 left out, the first is number 2: {why}");
            assert_eq!(warning, Some(words), "{entry}");
        }
    }

    #[test]
    fn a_model_that_is_listed_twice_is_one_model() {
        let list = r#"{"data":[{"id":"a","created":1},{"id":"b"},{"id":"a","created":2},{"id":"A"}]}"#;
        assert_eq!(ids(list), (["a", "b", "A"].map(str::to_owned).to_vec(), None));
        assert_eq!(parse_listing(list.as_bytes(), "c").unwrap().models[0].created, 1, "the first counts");
    }

    #[test]
    fn what_is_odd_besides_the_id_is_filled_in() {
        for (more, created) in [
            ("", 0),
            (r#","created":1736697234"#, 1_736_697_234),
            (r#","created":1736697234.9"#, 1_736_697_234),
            (r#","created":-1"#, 0),
            (r#","created":1e300"#, u64::MAX),
            (r#","created":"2025-01-12T15:53:54Z""#, 0),
            (r#","created":{},"object":null,"owned_by":[]"#, 0),
            (r#","object":"foreign","permission":[{"id":"modelperm"}],"created":5"#, 5),
            (r#","id":"a""#, 0),
        ] {
            let body = format!(r#"{{"data":[{{"id":"a"{more}}}]}}"#);
            let listing = parse_listing(body.as_bytes(), "c").unwrap();
            assert_eq!((listing.models[0].created, &listing.warning), (created, &None), "{more}");
        }
    }

    #[test]
    fn an_empty_list_is_one_and_what_is_none_says_why() {
        for empty in ["", " \n", r#"{"object":"list","data":[]}"#, r#"{"object":"list","data":null}"#] {
            assert_eq!(ids(empty), (vec![], None), "{empty}");
        }
        for (other, words) in [
            ("[]", "answered no JSON object"),
            ("{\"data\":[{\"id\":\"a\"},", "answered no JSON object"),
            ("{}", "answered JSON without a list `data`"),
            ("{\"data\":{\"id\":\"a\"}}", "answered JSON without a list `data`"),
            ("{\"error\":\"Unexpected endpoint\"}", "answered JSON without a list `data`"),
        ] {
            assert_eq!(parse_listing(other.as_bytes(), "c").unwrap_err(), words, "{other}");
        }
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let many: Vec<_> = (0..MAX_MODELS).map(|nth| format!(r#"{{"id":"m{nth}"}}"#)).collect();
        let body = format!(r#"{{"data":[{},{{"id":"last"}}]}}"#, many.join(","));
        let listing = parse_listing(body.as_bytes(), "c").unwrap();
        assert_eq!(listing.models.len(), MAX_MODELS);
        assert!(listing.warning.is_some_and(|words| words.contains("too many")));
    }
}
