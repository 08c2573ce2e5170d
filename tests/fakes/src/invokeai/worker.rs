//! The one worker: runs items first in, first out, by playing their recording.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{
    Core,
    evaluation::Evaluation,
    faults,
    queue::{InvokeState, ItemStatus, QueueItem},
    recording::{self, RecordedEvent},
};
use crate::{engine::EngineFailure, painting::encode};

pub(super) async fn work(core: Arc<Core>) {
    loop {
        let id = core.until(InvokeState::next_pending).await;
        core.unless_hung().await;
        if let Some(item) = core.change(|state| begin(state, id)) {
            run(&core, &item).await;
            core.change(|state| state.processing = false);
        }
    }
}

/// None if it was cancelled in the last moment.
fn begin(state: &mut InvokeState, id: u32) -> Option<QueueItem> {
    if state.next_pending() != Some(id) {
        return None;
    }
    state.processing = true;
    state.set_status(id, ItemStatus::InProgress);
    state.item(id).cloned()
}

async fn run(core: &Core, item: &QueueItem) {
    let is_cached = core.look(|state| state.cache.contains_key(&item.graph.to_string()));
    let (image, is_new) = core.change(|state| image_name(state, item));
    let images = core.look(|state| state.images.clone());

    let computes = |kind: &str| if kind == "l2i" { is_new } else { !is_cached || uncached(item, "denoise") };
    let mut fault = core.look(|state| faults::fault(state, item));
    let painting = (is_new && fault.is_none()).then(|| paint_job(item.clone(), images));
    let mut previews = 0;
    for event in recording::events_for(item, &image, computes) {
        core.unless_hung().await;
        if event.denoising {
            pause(core, item, previews).await;
            previews += 1;
            core.change(|state| state.previewed.entry(item.id).or_default().push(Instant::now()));
        }
        if core.change(|state| !emit_if_running(state, item.id, &event.text)) {
            return finish_step(core).await;
        }
        let scripted = core.look(|state| state.script.fail.clone()).filter(|_| previews == 2);
        // What is wrong with any node is found in the first.
        let found = if event.kind.is_empty() { None } else { fault.take() };
        if let Some(failure) = scripted.or(found) {
            return core.change(|state| fail(state, item.id, failure, &event));
        }
    }
    complete(core, item, image, painting).await;
}

/// The next preview's time; after the first one also whatever the script holds up. Ends early with the item.
async fn pause(core: &Core, item: &QueueItem, previews: u32) {
    let steps = u32::try_from(item.steps()).expect("few steps");
    let step = core.look(|state| state.script.item) / (steps + 1);
    let over =
        |state: &InvokeState| state.item(item.id).is_none_or(|item| item.status != ItemStatus::InProgress);
    tokio::select! {
        () = core.until(|state| over(state).then_some(())) => {}
        () = async {
            tokio::time::sleep(step).await;
            core.until(|state| (previews == 0 || !state.script.hold).then_some(())).await;
        } => {}
    }
}

/// Sends an event of an item that still runs; none follows its end.
fn emit_if_running(state: &InvokeState, id: u32, text: &str) -> bool {
    let runs = state.item(id).is_some_and(|item| item.status == ItemStatus::InProgress);
    if runs {
        state.emit(text.to_owned(), None);
    }
    runs
}

/// A cancelled item's step cannot be interrupted.
async fn finish_step(core: &Core) {
    let tail = core.look(|state| state.script.cancel_tail);
    tokio::select! {
        () = tokio::time::sleep(tail) => {}
        () = core.until(|state| (state.script.cancel_tail == Duration::ZERO).then_some(())) => {}
    }
}

/// The status event comes before the error event, as recorded.
fn fail(state: &mut InvokeState, id: u32, failure: EngineFailure, at: &RecordedEvent) {
    let Some(item) = state.items.iter_mut().find(|item| item.id == id) else { return };
    item.failure = Some(failure);
    let item = item.clone();
    state.set_status(id, ItemStatus::Failed);
    state.emit(recording::invocation_error(&item, at), None);
}

async fn complete(core: &Core, item: &QueueItem, image: String, painting: Option<JoinHandle<Bytes>>) {
    let bytes = match painting {
        Some(painting) => Some(painting.await.expect("the painter does not panic")),
        None => None,
    };
    core.unless_hung().await;
    let done = core.change(|state| {
        let item = state.items.iter_mut().find(|one| one.id == item.id);
        let Some(item) = item.filter(|item| item.status == ItemStatus::InProgress) else { return false };
        item.image = Some(image.clone());
        let id = item.id;
        if let Some(bytes) = bytes {
            state.images.insert(image, bytes);
        }
        state.set_status(id, ItemStatus::Completed);
        true
    });
    if !done {
        finish_step(core).await;
    }
}

/// The stored image of an equal graph, unless its node asks to be computed again, or else a new name.
fn image_name(state: &mut InvokeState, item: &QueueItem) -> (String, bool) {
    let key = item.graph.to_string();
    let stored = state.cache.get(&key).filter(|name| state.images.contains_key(*name)).cloned();
    if let Some(name) = stored.filter(|_| !uncached(item, "l2i")) {
        return (name, false);
    }
    let name = format!("{}.png", state.uuid());
    state.cache.insert(key, name.clone());
    (name, true)
}

fn uncached(item: &QueueItem, kind: &str) -> bool {
    let nodes = item.graph["nodes"].as_object();
    nodes.into_iter().flat_map(serde_json::Map::values).any(|node| {
        node["type"].as_str().is_some_and(|name| name.starts_with(kind)) && node["use_cache"] == false
    })
}

fn paint_job(item: QueueItem, images: BTreeMap<String, Bytes>) -> JoinHandle<Bytes> {
    tokio::task::spawn_blocking(move || {
        let picture = Evaluation::of(&item.graph, &images).picture();
        encode(&picture, None)
    })
}
