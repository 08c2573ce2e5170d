//! A running batch, followed by the engine's events until every picture is here.

use std::{collections::HashMap, time::Duration};

use shared::picture::Format;
use tokio::sync::broadcast::{self, error::RecvError};
use tracing::debug;

use super::{
    InvokeAi,
    api::{Enqueued, Item},
    events::Event,
};
use crate::{
    engine::{self, Desk, EngineError, Picture, Preview, graph::Template, own_words},
    images::Job,
};

/// How often a job is looked for although no event came.
const SAFETY_POLL: Duration = Duration::from_secs(5);

/// What is known of a running batch.
pub(super) struct Progress<'a> {
    engine: &'a InvokeAi,
    batch: &'a Enqueued,
    /// The node whose pictures are the result.
    output: &'a str,
    seeds: &'a [u32],
    desk: &'a Desk,
    names: HashMap<u64, String>,
    pictures: HashMap<u64, Picture>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        engine: &'a InvokeAi,
        template: &'a Template,
        job: &'a Job,
        batch: &'a Enqueued,
        desk: &'a Desk,
    ) -> Self {
        let (names, pictures) = (HashMap::new(), HashMap::new());
        Self { engine, batch, output: &template.output, seeds: &job.seeds, desk, names, pictures }
    }

    /// Until every picture is here, or the first failure.
    pub(super) async fn follow(
        &mut self,
        events: &mut broadcast::Receiver<Event>,
    ) -> Result<(), EngineError> {
        let mut safety = tokio::time::interval(SAFETY_POLL);
        safety.reset();
        while self.pictures.len() < self.batch.items.len() {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = safety.tick() => Ok(Event::Interrupted),
            };
            match event {
                Ok(Event::Picture { batch, item, node, image })
                    if self.is_ours(&batch) && node == self.output =>
                {
                    self.names.insert(item, image);
                }
                Ok(Event::Progress { batch, fraction, preview, .. }) if self.is_ours(&batch) => {
                    self.step(fraction, preview);
                }
                Ok(Event::Item { batch, item, status, error }) if self.is_ours(&batch) => {
                    self.item_changed(item, &status, error).await?;
                }
                Ok(Event::Cancelled(items)) if items.iter().any(|item| self.batch.items.contains(item)) => {
                    return Err(cancelled_by_others());
                }
                Ok(Event::Interrupted) | Err(RecvError::Lagged(_)) => self.look().await?,
                Ok(_) => {}
                Err(RecvError::Closed) => return Err(EngineError::NoAnswer("the events ended".to_owned())),
            }
        }
        Ok(())
    }

    /// One picture runs at a time: those before it are done.
    #[expect(clippy::cast_precision_loss, reason = "a handful of pictures")]
    fn step(&self, fraction: f64, preview: Option<Preview>) {
        let done = self.pictures.len() as f64;
        let fraction = (done + fraction) / self.batch.items.len() as f64;
        self.desk.progress.send_replace(engine::Progress { fraction, preview });
    }

    fn is_ours(&self, batch: &str) -> bool {
        self.batch.batch == batch
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
                Err(failure(&kind, &message))
            }
            "canceled" => Err(cancelled_by_others()),
            _ => Ok(()),
        }
    }

    /// The safety net: asks for every item that is still missing. An engine that does not answer is asked again
    /// later; the request's own time limit ends the waiting.
    async fn look(&mut self) -> Result<(), EngineError> {
        for &id in &self.batch.items {
            if self.pictures.contains_key(&id) {
                continue;
            }
            let item = match self.engine.api.item(id).await {
                Ok(item) => item,
                Err(error) if error.leaves_open() => {
                    debug!(%error, item = id, "cannot look for a job; trying again");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let Item { status, error_type, error_message, .. } = &item;
            if let Some(image) = item.picture_of(self.output) {
                self.names.insert(id, image.to_owned());
            }
            let error =
                Some((error_type.clone().unwrap_or_default(), error_message.clone().unwrap_or_default()));
            self.item_changed(id, status, error).await?;
        }
        Ok(())
    }

    async fn fetch(&mut self, item: u64) -> Result<(), EngineError> {
        if self.pictures.contains_key(&item) {
            return Ok(());
        }
        if !self.names.contains_key(&item) {
            let found = self.engine.api.item(item).await?;
            let image = found.picture_of(self.output).ok_or_else(|| {
                EngineError::Failed("the engine finished the job without a picture".to_owned())
            })?;
            self.names.insert(item, image.to_owned());
        }
        let bytes = self.engine.api.picture(&self.names[&item]).await?;
        let format = Format::of_whole(&bytes)
            .map_err(|fault| EngineError::Failed(format!("the engine's picture cannot be used: {fault}")))?;
        let place = self.batch.items.iter().position(|id| *id == item).unwrap_or_default();
        self.pictures.insert(item, Picture { bytes, format, seed: self.seeds[place] });
        Ok(())
    }

    /// In the order of the seeds.
    pub(super) fn into_pictures(mut self) -> Vec<Picture> {
        self.batch.items.iter().filter_map(|item| self.pictures.remove(item)).collect()
    }
}

fn failure(kind: &str, message: &str) -> EngineError {
    let words = own_words(message);
    let memory = kind.contains("OutOfMemory") || message.to_ascii_lowercase().contains("out of memory");
    if memory { EngineError::OutOfMemory(words) } else { EngineError::Failed(words) }
}

fn cancelled_by_others() -> EngineError {
    EngineError::Failed("the job was cancelled in InvokeAI, by a person there or by its restart".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_memory_is_told_from_other_failures() {
        for (kind, message) in [
            ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB."),
            ("RuntimeError", "CUDA error: out of memory"),
        ] {
            assert!(matches!(failure(kind, message), EngineError::OutOfMemory(_)), "{kind}");
        }
        assert_eq!(
            failure("Exception", "Unknown model x\nTraceback"),
            EngineError::Failed("Unknown model x".into())
        );
    }
}
