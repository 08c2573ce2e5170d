//! The recorded events, and how they are made those of another item. Frames are edited as text, value by value, so
//! that order and shape stay as recorded.

use std::sync::LazyLock;

use serde_json::{Value, json, value::RawValue};

use super::queue::{InvokeState, ItemStatus, QueueItem};
use crate::engine::EngineFailure;

static SD_1: LazyLock<Vec<RecordedEvent>> =
    LazyLock::new(|| load(include_str!("../../../fixtures/invokeai/txt2img-sd-1.json")));
static SDXL: LazyLock<Vec<RecordedEvent>> =
    LazyLock::new(|| load(include_str!("../../../fixtures/invokeai/txt2img-sdxl.json")));
static FAILURE: LazyLock<Vec<RecordedEvent>> =
    LazyLock::new(|| load(include_str!("../../../fixtures/invokeai/fail-unknown-model.json")));
static CANCEL: LazyLock<Vec<RecordedEvent>> =
    LazyLock::new(|| load(include_str!("../../../fixtures/invokeai/cancel-batch.json")));

/// One recorded event.
#[derive(Debug, Clone)]
pub(super) struct RecordedEvent {
    /// The complete text frame.
    pub(super) text: String,
    pub(super) event: String,
    /// The node's type, empty for events of no node.
    pub(super) kind: String,
    /// The node's name in the graph.
    source: String,
    /// Progress of the denoiser.
    pub(super) denoising: bool,
}

fn load(fixture: &str) -> Vec<RecordedEvent> {
    let frames: Vec<Box<RawValue>> = serde_json::from_str(fixture).expect("a JSON fixture");
    frames.iter().map(|frame| parse(format!("42{}", frame.get()))).collect()
}

fn parse(text: String) -> RecordedEvent {
    let (event, data): (String, Value) = serde_json::from_str(&text[2..]).expect("a recorded event");
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    RecordedEvent {
        event,
        kind: text_of(&data["invocation"]["type"]),
        source: text_of(&data["invocation_source_id"]),
        denoising: data["message"] == "Denoising",
        text,
    }
}

/// What happens between an item's two status events: the recording for its kind of model, as this item's.
/// Nodes that do not compute, because the node cache has their result, make no progress and load no model.
pub(super) fn events_for(
    item: &QueueItem,
    image: &str,
    computes: impl Fn(&str) -> bool,
) -> Vec<RecordedEvent> {
    let nodes = item.graph["nodes"].as_object().cloned().unwrap_or_default();
    let kind_of = |name: &str| nodes[name]["type"].as_str().unwrap_or_default();
    let is_sdxl = nodes.keys().any(|name| kind_of(name).starts_with("sdxl"));
    let role_of = |name: &str| role(kind_of(name), is_sdxl);
    let mut events = Vec::new();
    let (mut denoised, mut node) = (false, "");
    for event in if is_sdxl { &*SDXL } else { &*SD_1 } {
        let progress = event.event == "invocation_progress" || event.event.starts_with("model_load");
        if !event.kind.is_empty() {
            node = &event.kind;
        }
        if matches!(event.event.as_str(), "batch_enqueued" | "queue_item_status_changed")
            || (progress && !computes(node))
            || (event.denoising && denoised)
        {
            continue;
        }
        let mut named = event.clone();
        if !event.kind.is_empty() {
            // A graph may call its nodes what it likes; one that lacks a recorded node is silent about it.
            let same = nodes.contains_key(&event.source) && role_of(&event.source) == event.kind;
            let other = || nodes.keys().find(|name| role_of(name) == event.kind);
            let Some(source) = same.then_some(&event.source).or_else(other) else { continue };
            named.text = set(&retarget(&event.text, item), "invocation_source_id", &json!(source));
            let of = |kind: &str| format!("\"type\":\"{kind}\"");
            named.text = named.text.replace(&of(&event.kind), &of(kind_of(source)));
            named.text = set(&named.text, "image_name", &json!(image));
            let size = format!("\"width\":{},\"height\":{}", item.number("width"), item.number("height"));
            named.text = named.text.replace("\"width\":64,\"height\":64", &size);
        }
        if event.denoising {
            denoised = true;
            let steps = item.steps().max(1);
            events.extend((0..=steps).map(|step| RecordedEvent {
                #[expect(clippy::cast_precision_loss, reason = "a few hundred steps")]
                text: set(&named.text, "percentage", &json!(step as f64 / steps as f64)),
                ..named.clone()
            }));
        } else {
            events.push(named);
        }
    }
    paste_back(&mut events, item);
    events
}

/// The type of node in the recordings that does what one of this type does in its family.
fn role(kind: &str, is_sdxl: bool) -> &str {
    match kind {
        kind if kind.ends_with("model_loader") && is_sdxl => "sdxl_model_loader",
        kind if kind.ends_with("model_loader") => "main_model_loader",
        kind if kind.ends_with("text_encoder") => "compel",
        kind if kind.ends_with("_denoise") => "denoise_latents",
        kind if kind.ends_with("_l2i") || kind.ends_with("_vae_decode") => "l2i",
        kind => kind,
    }
}

/// The node that pastes kept pixels back ends as the decoder before it does (recorded so; its frames differ in names
/// only).
fn paste_back(events: &mut Vec<RecordedEvent>, item: &QueueItem) {
    let last = item.last_node();
    let decoded =
        events.iter().rposition(|event| event.event == "invocation_complete" && event.kind == "l2i");
    if let (Some(last), Some(at)) = (last, decoded)
        && item.graph["nodes"][&last]["type"] == "canvas_paste_back"
    {
        let text = set(&events[at].text, "invocation_source_id", &json!(last));
        events.insert(
            at + 1,
            RecordedEvent { text, kind: "canvas_paste_back".to_owned(), ..events[at].clone() },
        );
    }
}

/// `queue_item_status_changed`, with the counts of this moment.
pub(super) fn status_changed(item: &QueueItem, state: &InvokeState) -> String {
    let of =
        |status: &str| FAILURE.iter().find(|event| event.text.contains(&format!("\"status\":\"{status}\"")));
    let running = item.status == ItemStatus::InProgress;
    let recorded = of(if running { "in_progress" } else { "failed" }).expect("both are in the recording");
    let failure = item.failure.as_ref();
    let mut text = retarget(&recorded.text, item);
    text = set(&text, "status", &json!(item.status.name()));
    text = set(&text, "status_sequence", &json!(if running { 1 } else { 2 }));
    text = failed(&text, failure);
    let id = json!({ "batch": item.batch_id, "origin": item.origin, "destination": item.destination });
    let batch = state.counts(|other| other.batch_id == item.batch_id);
    text = set_raw(
        &text,
        "batch_status",
        &format!(
            "{{\"queue_id\":\"default\",\"batch_id\":{},\"origin\":{},\"destination\":{},{batch}}}",
            id["batch"], id["origin"], id["destination"]
        ),
    );
    set_raw(&text, "queue_status", &queue_status(state))
}

/// The `queue` of `GET status` and of status events.
pub(super) fn queue_status(state: &InvokeState) -> String {
    let current = state.items.iter().find(|item| item.status == ItemStatus::InProgress);
    let pending = state.items.iter().filter(|item| item.status == ItemStatus::Pending).count();
    format!(
        "{{\"queue_id\":\"default\",\"item_id\":{},\"batch_id\":{},\"session_id\":{},{},\"user_pending\":{pending},\
         \"user_in_progress\":{}}}",
        json!(current.map(|item| item.id)),
        json!(current.map(|item| &item.batch_id)),
        json!(current.map(|item| &item.session_id)),
        state.counts(|_| true),
        u8::from(current.is_some()),
    )
}

/// `invocation_error`, which follows the status event `failed`.
pub(super) fn invocation_error(item: &QueueItem, at: &RecordedEvent) -> String {
    let recorded = FAILURE.last().expect("the recording ends with it");
    let (_, failing): (String, Box<RawValue>) = serde_json::from_str(&at.text[2..]).expect("an event");
    let failing: Value = serde_json::from_str(failing.get()).expect("an event's data");
    let mut text = retarget(&recorded.text, item);
    text = set(&text, "invocation", &failing["invocation"]);
    text = set(&text, "invocation_source_id", &failing["invocation_source_id"]);
    failed(&text, item.failure.as_ref())
}

/// `batch_enqueued`.
pub(super) fn batch_enqueued(batch: &str, origin: Option<&str>, enqueued: usize, requested: usize) -> String {
    let mut text = FAILURE.first().expect("the recording begins with it").text.clone();
    for (key, value) in [
        ("batch_id", json!(batch)),
        ("enqueued", json!(enqueued)),
        ("requested", json!(requested)),
        ("origin", json!(origin)),
    ] {
        text = set(&text, key, &value);
    }
    text
}

/// `queue_items_canceled`: the only event about waiting items of a cancelled batch.
pub(super) fn items_canceled(ids: &[u32]) -> String {
    let text =
        set(&CANCEL.last().expect("the recording ends with it").text, "canceled_item_ids", &json!(ids));
    set(&text, "system", &json!(ids))
}

fn failed(text: &str, failure: Option<&EngineFailure>) -> String {
    let text = set(text, "error_type", &json!(failure.map(|failure| &failure.error_type)));
    let text = set(&text, "error_message", &json!(failure.map(|failure| &failure.message)));
    set(&text, "error_traceback", &json!(failure.map(traceback)))
}

/// Names a file, so that tests can see that it never reaches a client.
pub(super) fn traceback(failure: &EngineFailure) -> String {
    let EngineFailure { error_type, message } = failure;
    format!(
        "Traceback (most recent call last):\n  File \"/srv/invokeai/session_processor.py\", line 130, in \
         run_node\n    output = invocation.invoke_internal(context)\n{error_type}: {message}\n"
    )
}

fn retarget(text: &str, item: &QueueItem) -> String {
    let mut text = set(text, "item_id", &json!(item.id));
    for (key, value) in [
        ("batch_id", json!(item.batch_id)),
        ("session_id", json!(item.session_id)),
        ("origin", json!(item.origin)),
        ("destination", json!(item.destination)),
    ] {
        text = set(&text, key, &value);
    }
    text
}

fn set(text: &str, key: &str, value: &Value) -> String {
    set_raw(text, key, &value.to_string())
}

/// Puts a value at every occurrence of a key; all other bytes stay.
fn set_raw(text: &str, key: &str, value: &str) -> String {
    let key = format!("\"{key}\":");
    let mut parts = text.split(&key);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut old = serde_json::Deserializer::from_str(part).into_iter::<&RawValue>();
        old.next().expect("a key has a value").expect("recorded JSON");
        result.extend([&key, value, &part[old.byte_offset()..]]);
    }
    result
}
