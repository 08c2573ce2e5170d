//! Follows a running batch until all its images are here.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::broadcast::{self, error::RecvError};
use tracing::debug;

use super::{InvokeAi, api::Enqueued, events::InvokeAiEvent, item::QueueItem};
use crate::{
    engine::{
        self, EngineError, GeneratedImage, JobContext, previews::PreviewSubscription, sanitize_message,
    },
    images::{Job, template::Template},
};

/// Between polls without any event.
const FALLBACK_POLL: Duration = Duration::from_secs(5);

pub(super) struct BatchTracker<'a> {
    engine: &'a InvokeAi,
    batch: &'a Enqueued,
    /// The node whose images are the result.
    output: &'a str,
    context: &'a JobContext,
    /// None: the client requested no previews.
    previews: Option<PreviewSubscription<'a, (String, u64)>>,
    /// By item id, which is the order of the seeds.
    items: BTreeMap<u64, ItemState>,
}

struct ItemState {
    seed: u64,
    /// The engine's name for it.
    image_name: Option<String>,
    image: Option<GeneratedImage>,
}

impl<'a> BatchTracker<'a> {
    pub(super) fn new(
        engine: &'a InvokeAi,
        template: &'a Template,
        job: &'a Job,
        batch: &'a Enqueued,
        context: &'a JobContext,
    ) -> Self {
        let keys = batch.items.iter().map(|item| (batch.batch_id.clone(), *item));
        let previews = job.previews.then(|| engine.previews.subscribe(keys));
        let new_item = |seed: &u64| ItemState { seed: *seed, image_name: None, image: None };
        let items = batch.items.iter().copied().zip(job.seeds.iter().map(new_item)).collect();
        Self { engine, batch, output: &template.output, context, previews, items }
    }

    /// Waits for all images, or for the first failure.
    pub(super) async fn wait_for_images(
        &mut self,
        events: &mut broadcast::Receiver<InvokeAiEvent>,
    ) -> Result<(), EngineError> {
        let mut poll_timer = tokio::time::interval(FALLBACK_POLL);
        poll_timer.reset();
        while self.items.values().any(|item| item.image.is_none()) {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = poll_timer.tick() => Ok(InvokeAiEvent::Resync),
            };
            match event {
                Ok(InvokeAiEvent::Image { batch, item, node, image })
                    if node == self.output && self.is_ours(&batch, item) =>
                {
                    self.set_image_name(item, &image);
                }
                Ok(InvokeAiEvent::Progress { batch, item, fraction }) if self.is_ours(&batch, item) => {
                    self.report_progress(item, fraction);
                }
                Ok(InvokeAiEvent::ItemStatus { batch, item, status, error })
                    if self.is_ours(&batch, item) =>
                {
                    self.item_changed(item, &status, error).await?;
                }
                Ok(InvokeAiEvent::Cancelled(items))
                    if items.iter().any(|item| self.items.contains_key(item)) =>
                {
                    return Err(cancelled_by_others());
                }
                Ok(InvokeAiEvent::Resync) | Err(RecvError::Lagged(_)) => self.poll().await?,
                Ok(_) => {}
                Err(RecvError::Closed) => {
                    return Err(EngineError::Unresponsive("the event stream ended".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Items run one at a time: those before it are finished.
    #[expect(clippy::cast_precision_loss, reason = "a handful of images")]
    fn report_progress(&self, item: u64, fraction: f64) {
        let done = self.items.values().filter(|item| item.image.is_some()).count() as f64;
        let (within, fraction) = (fraction, (done + fraction) / self.items.len() as f64);
        let index = self.items.keys().position(|id| *id == item).unwrap_or(0);
        let preview =
            self.previews.as_ref().and_then(|previews| previews.take(&(self.batch.batch_id.clone(), item)));
        self.context.progress.send_replace(engine::JobProgress {
            fraction,
            image_index: index,
            image_fraction: within,
            preview,
        });
    }

    /// Whether this item belongs to this job.
    fn is_ours(&self, batch: &str, item: u64) -> bool {
        self.batch.batch_id == batch && self.items.contains_key(&item)
    }

    fn set_image_name(&mut self, item: u64, image: &str) {
        if let Some(item) = self.items.get_mut(&item) {
            item.image_name = Some(image.to_owned());
        }
    }

    async fn item_changed(
        &mut self,
        item: u64,
        status: &str,
        error: Option<(String, String)>,
    ) -> Result<(), EngineError> {
        match status {
            "completed" => self.fetch(item).await,
            "failed" => {
                let (kind, message) = error.unwrap_or_default();
                Err(classify_error(&kind, &message))
            }
            "canceled" => Err(cancelled_by_others()),
            _ => Ok(()),
        }
    }

    /// Asks for every missing item, in case an event was missed. If the engine does not respond, the next poll asks again; the
    /// request's time limit ends the waiting.
    async fn poll(&mut self) -> Result<(), EngineError> {
        for &id in &self.batch.items {
            if self.items.get(&id).is_some_and(|item| item.image.is_some()) {
                continue;
            }
            let item = match self.item(id).await {
                Ok(item) => item,
                Err(error) if error.is_outcome_unknown() => {
                    debug!(%error, item = id, "cannot poll a job; retrying");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let QueueItem { status, error_type, error_message, .. } = &item;
            if let Some(image) = item.image_name_of(self.output) {
                let image = image.to_owned();
                self.set_image_name(id, &image);
            }
            let error =
                Some((error_type.clone().unwrap_or_default(), error_message.clone().unwrap_or_default()));
            self.item_changed(id, status, error).await?;
        }
        Ok(())
    }

    /// The current state of an item.
    async fn item(&self, id: u64) -> Result<QueueItem, EngineError> {
        let item = self.engine.api.item(id).await?;
        if item.matches(id, &self.batch.batch_id) {
            return Ok(item);
        }
        let message = format!("the engine lost the job: its item {id} is another job's now");
        Err(EngineError::Interrupted(message))
    }

    async fn fetch(&mut self, id: u64) -> Result<(), EngineError> {
        let Some(ItemState { seed, image_name: name, image: None }) = self.items.get(&id) else {
            return Ok(());
        };
        let (seed, name) = (*seed, name.clone());
        let name = match name {
            Some(name) => name,
            None => self.item(id).await?.image_name_of(self.output).map(str::to_owned).ok_or_else(|| {
                EngineError::Failed("the engine finished the job without an image".to_owned())
            })?,
        };
        let bytes = self.engine.api.image(&name).await?;
        let image = Some(GeneratedImage::from_file(bytes, seed)?);
        self.items.insert(id, ItemState { seed, image_name: Some(name), image });
        Ok(())
    }

    /// In the order of the seeds.
    pub(super) fn into_images(self) -> Vec<GeneratedImage> {
        self.items.into_values().filter_map(|item| item.image).collect()
    }
}

fn classify_error(kind: &str, message: &str) -> EngineError {
    let sanitized = sanitize_message(message);
    let is_out_of_memory =
        kind.contains("OutOfMemory") || message.to_ascii_lowercase().contains("out of memory");
    if is_out_of_memory { EngineError::OutOfMemory(sanitized) } else { EngineError::Failed(sanitized) }
}

fn cancelled_by_others() -> EngineError {
    EngineError::Interrupted("the job was cancelled in InvokeAI, by a user or by its restart".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_memory_differs_from_other_failures() {
        for (kind, message) in [
            ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
            ("RuntimeError", "CUDA error: out of memory"),
        ] {
            assert!(matches!(classify_error(kind, message), EngineError::OutOfMemory(_)), "{kind}");
        }
        assert_eq!(
            classify_error("Exception", "Unknown model x\nTraceback"),
            EngineError::Failed("Unknown model x".into())
        );
    }
}
