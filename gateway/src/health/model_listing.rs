//! The models that a backend lists: fetched after each probe and published, so that routing depends on what is known and not on
//! which backends respond just now. A list is read entry by entry, and unusable entries are skipped.

use std::{collections::HashSet, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use serde_json::{Map, Value, value::RawValue};
use service::outbound::{ReadBodyError, read_limited};
use wire::openai::{
    models::Model,
    object::{Duplicates, JsonObject, for_each_element},
};

use super::probe::is_html;
use crate::config::Backend;

pub(super) const MAX_LIST_BYTES: usize = 8 << 20;
/// Further entries are skipped.
const MAX_MODELS: usize = 10_000;
/// What a model is and can do, as `ada2-sidecar` says it. Other members of an entry are not passed on.
const DETAILS: &[&str] = &["default", "family", "variant", "capabilities"];
/// An entry with more of it loses it.
const MAX_DETAILS_BYTES: usize = 16 << 10;

/// A backend's last model list.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelListing {
    /// With the class as owner.
    pub(super) models: Arc<[Model]>,
    /// What is wrong with the list, or why the last attempt to get one failed; for the status.
    pub(super) warning: Option<String>,
}

#[derive(Debug)]
pub(super) enum ListOutcome {
    Listed(ModelListing),
    /// The backend has no list, which is not a failure.
    Unsupported,
    Failed(String),
}

/// `timeout` is that of a probe.
pub(super) async fn fetch_listing(client: &Client, backend: &Backend, timeout: Duration) -> ListOutcome {
    let late = || ListOutcome::Failed(format!("no response within {} s", timeout.as_secs_f64()));
    tokio::time::timeout(timeout, request_listing(client, backend)).await.unwrap_or_else(|_| late())
}

async fn request_listing(client: &Client, backend: &Backend) -> ListOutcome {
    let url = backend.api_url("models");
    let failed = |why: &str| ListOutcome::Failed(format!("{} {why}", url.path()));
    let Ok(response) = backend.authorized(client.get(url.clone())).send().await else {
        return failed("failed: the connection was lost");
    };
    match response.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            return ListOutcome::Unsupported;
        }
        status => return failed(&format!("returned {}", status.as_u16())),
    }
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    match read_limited(response, MAX_LIST_BYTES).await {
        Ok(body) if is_html(content_type.as_ref(), &body) => failed("returned a web page (HTML)"),
        Ok(body) => parse_listing(&body, &backend.class).map_or_else(failed, ListOutcome::Listed),
        Err(ReadBodyError::TooLarge) => failed(&format!("returned more than {} MiB", MAX_LIST_BYTES >> 20)),
        Err(ReadBodyError::Transport(_)) => failed("ended its response early"),
    }
}

/// Parses `{"data": […]}`. An empty body is an empty list (mlx_lm without a model cache sends it), and so is `null` (Ollama).
fn parse_listing(body: &[u8], class: &str) -> Result<ModelListing, &'static str> {
    if body.trim_ascii().is_empty() {
        return Ok(ModelListing::default());
    }
    let not_an_object = "did not return a JSON object";
    let text = str::from_utf8(body).map_err(|_| not_an_object)?;
    let list = JsonObject::parse_with(text, &["data"], Duplicates::KeepLast).map_err(|_| not_an_object)?;
    let (mut models, mut count) = (Vec::new(), 0_usize);
    let (mut skipped, mut reduced) = (EntryProblems::default(), EntryProblems::default());
    let mut seen_ids = HashSet::new();
    let each = |entry| {
        count += 1;
        match id(entry) {
            // Of duplicates, the first counts.
            Ok(id) if !seen_ids.insert(id.clone()) => {}
            Ok(_) if models.len() == MAX_MODELS => skipped.add(count, "there are too many"),
            Ok(id) => {
                let details = details(entry).unwrap_or_else(|why| {
                    reduced.add(count, why);
                    Map::new()
                });
                models.push(Model { details, ..Model::new(id, created(entry), class) });
            }
            Err(why) => skipped.add(count, why),
        }
        true
    };
    match list.members.last().map(|member| member.value) {
        Some(data) if data.get() == "null" || for_each_element(data, each) => {}
        Some(_) | None => return Err("returned JSON without a list `data`"),
    }
    let warnings = [skipped.warning(count, "ignored"), reduced.warning(count, "without their details")];
    let warning = warnings.into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
    Ok(ModelListing { models: models.into(), warning })
}

#[derive(Debug, Default)]
struct EntryProblems {
    count: usize,
    /// The number of the first entry, and what is wrong with it.
    first: Option<(usize, &'static str)>,
}

impl EntryProblems {
    fn add(&mut self, nth: usize, why: &'static str) {
        self.count += 1;
        self.first.get_or_insert((nth, why));
    }

    fn warning(&self, all: usize, outcome: &str) -> Option<String> {
        let ((nth, why), count) = (self.first?, self.count);
        Some(format!("model list: {count} of {all} entries {outcome}; the first is entry {nth}: {why}"))
    }
}

fn member<'a>(entry: &'a RawValue, name: &'static str) -> Option<&'a RawValue> {
    JsonObject::parse_with(entry.get(), &[name], Duplicates::KeepLast).ok()?.get(name)
}

fn id(entry: &RawValue) -> Result<String, &'static str> {
    if !entry.get().starts_with('{') {
        return Err("it is not a JSON object");
    }
    let value = member(entry, "id").ok_or("it has no `id`")?;
    let id: String = serde_json::from_str(value.get()).map_err(|_| "its `id` is not a string")?;
    if id.trim().is_empty() { Err("its `id` is empty") } else { Ok(id) }
}

fn details(entry: &RawValue) -> Result<Map<String, Value>, &'static str> {
    let unusable = "they cannot be parsed";
    let object = JsonObject::parse_with(entry.get(), DETAILS, Duplicates::KeepLast).map_err(|_| unusable)?;
    let members: Vec<_> = DETAILS.iter().filter_map(|name| Some((*name, object.get(name)?.get()))).collect();
    if members.iter().map(|(name, text)| name.len() + text.len()).sum::<usize>() > MAX_DETAILS_BYTES {
        return Err("they have more than 16 KiB");
    }
    let parsed = members.into_iter().map(|(name, text)| Ok((name.to_owned(), serde_json::from_str(text)?)));
    parsed.collect::<Result<_, serde_json::Error>>().map_err(|_| unusable)
}

/// Unix seconds; 0 without a usable number. Some backends give fractions.
fn created(entry: &RawValue) -> u64 {
    let number = || serde_json::from_str::<f64>(member(entry, "created")?.get()).ok();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    number().map_or(0, |seconds| seconds as u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ids(body: &str) -> (Vec<String>, Option<String>) {
        let listing = parse_listing(body.as_bytes(), "local_mlx").unwrap();
        assert!(listing.models.iter().all(|model| model.owned_by == "local_mlx" && model.object == "model"));
        (listing.models.iter().map(|model| model.id.clone()).collect(), listing.warning)
    }

    #[test]
    fn an_unusable_entry_does_not_affect_the_others() {
        let list = r#"{"object":"list","data":[{"id":"good","object":"model","created":1,"owned_by":"x"},
            {"id":"odd","object":"model","created":null,"owned_by":null}]}"#;
        assert_eq!(ids(list), (vec!["good".to_owned(), "odd".to_owned()], None));
        for (entry, why) in [
            ("7", "it is not a JSON object"),
            ("null", "it is not a JSON object"),
            ("\"name\"", "it is not a JSON object"),
            ("[]", "it is not a JSON object"),
            ("{}", "it has no `id`"),
            (r#"{"id":null}"#, "it has no `id`"),
            (r#"{"id":7}"#, "its `id` is not a string"),
            (r#"{"id":{"a":1}}"#, "its `id` is not a string"),
            (r#"{"id":""}"#, "its `id` is empty"),
            (r#"{"id":" "}"#, "its `id` is empty"),
            (r#"{"id":"\ud83d"}"#, "its `id` is not a string"),
        ] {
            let (ids, warning) = ids(&format!(r#"{{"data":[{{"id":"a"}},{entry},{entry},{{"id":"b"}}]}}"#));
            assert_eq!(ids, ["a", "b"], "{entry}");
            let message = format!("model list: 2 of 4 entries ignored; the first is entry 2: {why}");
            assert_eq!(warning, Some(message), "{entry}");
        }
    }

    #[test]
    fn what_a_model_is_and_can_do_is_kept_up_to_a_limit() {
        let details = json!({"family": "z-image", "variant": null, "capabilities": {"max_images": 3, "tasks": ["edit"]}});
        let entry = |id: &str, more: &Value| {
            let mut entry = json!({"id": id, "root": "/home/me/m", "files": {}, "owned_by": "invokeai"});
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            entry
        };
        let long = json!({"family": "f", "capabilities": ["x".repeat(MAX_DETAILS_BYTES)]});
        let list = json!({"data": [entry("a", &details), entry("b", &json!({})), entry("c", &long)]});
        let listing = parse_listing(list.to_string().as_bytes(), "gpu_heavy").unwrap();
        let kept = json!([{"id": "a", "object": "model", "created": 0, "owned_by": "gpu_heavy", "family": "z-image",
                "capabilities": {"max_images": 3, "tasks": ["edit"]}},
            {"id": "b", "object": "model", "created": 0, "owned_by": "gpu_heavy"},
            {"id": "c", "object": "model", "created": 0, "owned_by": "gpu_heavy"}]);
        assert_eq!(serde_json::to_value(&listing.models[..]).unwrap(), kept);
        let warning = "model list: 1 of 3 entries without their details; the first is entry 3: they have more than 16 KiB";
        assert_eq!(listing.warning.as_deref(), Some(warning));
        let both = json!({"data": [7, entry("c", &long)]}).to_string();
        let warning = parse_listing(both.as_bytes(), "c").unwrap().warning.unwrap();
        assert!(
            warning.contains("1 of 2 entries ignored") && warning.contains("; model list: 1 of 2"),
            "{warning}"
        );
    }

    #[test]
    fn a_duplicate_model_counts_once() {
        let list = r#"{"data":[{"id":"a","created":1},{"id":"b"},{"id":"a","created":2},{"id":"A"}]}"#;
        assert_eq!(ids(list), (["a", "b", "A"].map(str::to_owned).to_vec(), None));
        assert_eq!(parse_listing(list.as_bytes(), "c").unwrap().models[0].created, 1, "the first counts");
    }

    #[test]
    fn everything_but_the_id_has_a_default() {
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
    fn an_empty_list_is_valid_and_an_invalid_one_says_why() {
        for empty in ["", " \n", r#"{"object":"list","data":[]}"#, r#"{"object":"list","data":null}"#] {
            assert_eq!(ids(empty), (vec![], None), "{empty}");
        }
        for (body, why) in [
            ("[]", "did not return a JSON object"),
            ("{\"data\":[{\"id\":\"a\"},", "did not return a JSON object"),
            ("{}", "returned JSON without a list `data`"),
            ("{\"data\":{\"id\":\"a\"}}", "returned JSON without a list `data`"),
            ("{\"error\":\"Unexpected endpoint\"}", "returned JSON without a list `data`"),
        ] {
            assert_eq!(parse_listing(body.as_bytes(), "c").unwrap_err(), why, "{body}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let many: Vec<_> = (0..MAX_MODELS).map(|nth| format!(r#"{{"id":"m{nth}"}}"#)).collect();
        let body = format!(r#"{{"data":[{},{{"id":"last"}}]}}"#, many.join(","));
        let listing = parse_listing(body.as_bytes(), "c").unwrap();
        assert_eq!(listing.models.len(), MAX_MODELS);
        assert!(listing.warning.is_some_and(|warning| warning.contains("too many")));
        const { assert!(MAX_MODELS * 810 <= MAX_LIST_BYTES, "what ada2-sidecar says of each fits") };
    }
}
