//! Runs one job in ComfyUI: until its last image, or until the GPU is free of it.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    ComfyUi,
    cancel::{UnfinishedPrompts, cancel_and_confirm},
    events::ComfyUiEvent,
    history::HistoryEntry,
    payload::{ComfyUiUploads, MaskFiles, prompt_payload},
    prompts::{ActivePrompts, Prompt, PromptStage},
};
use crate::{
    engine::{self, EngineError, GeneratedImage, JobContext, JobOutcome, previews::PreviewSubscription},
    images::{Job, template::Template},
};

/// Between polls without any event.
const FALLBACK_POLL: Duration = Duration::from_secs(5);
/// The same where none can arrive: a new connection does not get the events of prompts submitted over an old one.
const DISCONNECTED_POLL: Duration = Duration::from_secs(1);
/// A prompt moves from the queue to the history in one step, so one that is in neither is lost. Both are read several times,
/// because they are read one after the other.
const LOST_CHECKS: u8 = 3;
const LOST_CHECK_INTERVAL: Duration = Duration::from_millis(300);
/// A failure is reported when the engine is free of the job's other images, but no later than this.
const FAILURE_REPORT_DELAY: Duration = Duration::from_secs(1);
const LOST_JOB_MESSAGE: &str =
    "the engine lost the job: it was restarted, or someone removed the job from its queue";

/// Runs the job. See [`crate::engine::ImageEngine::run`].
pub(super) async fn run(engine: &ComfyUi, job: &Job, context: &JobContext) -> JobOutcome {
    let template = job.graph().ok_or_else(EngineError::without_graph)?;
    let masks = mask_files(job, &template).await?;
    let mut run = Run::new(engine, job, &template, context, masks);
    let _active = ActivePrompts::register(engine, &run.prompts);
    let outcome = tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(EngineError::Cancelled),
        outcome = run.generate() => outcome,
    };
    let error = match outcome {
        Ok(()) => return Ok(run.into_images()),
        // The engine is gone, and its queue with it: the GPU is free.
        Err(error @ EngineError::ConnectionRefused(_)) => return Err(error),
        Err(error) => error,
    };
    let unfinished = run.unfinished();
    if !unfinished.prompts.is_empty() {
        let mut cancelling = pin!(cancel_and_confirm(engine, &unfinished));
        if tokio::time::timeout(FAILURE_REPORT_DELAY, cancelling.as_mut()).await.is_err() {
            // Clients do not wait for the rest.
            context.complete(Err(error.clone()));
            cancelling.await;
        }
    }
    if let EngineError::OutOfMemory(_) = &error
        && let Err(error) = engine.api.free_memory().await
    {
        warn!(fault = %error, "cannot make the engine free its memory");
    }
    Err(error)
}

/// Cancellation does not interrupt this: the blocking thread would go on without a slot.
async fn mask_files(job: &Job, template: &Template) -> Result<MaskFiles, EngineError> {
    let masked = job.source.as_ref().filter(|source| source.mask.is_some());
    let Some(source) = masked.cloned() else { return Ok(MaskFiles::default()) };
    let template = template.clone();
    let converting = tokio::task::spawn_blocking(move || MaskFiles::encode(&template, &source));
    converting.await.map_err(|_| EngineError::Failed("converting the mask panicked".to_owned()))?
}

/// A running job.
struct Run<'a> {
    engine: &'a ComfyUi,
    job: &'a Job,
    context: &'a JobContext,
    masks: MaskFiles,
    /// The graph for the job's images and LoRAs.
    template: &'a Template,
    /// The client that submitted its prompts.
    client_id: String,
    prompts: Vec<Prompt>,
    /// None: the client requested no previews.
    previews: Option<PreviewSubscription<'a, String>>,
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a ComfyUi,
        job: &'a Job,
        template: &'a Template,
        context: &'a JobContext,
        masks: MaskFiles,
    ) -> Self {
        let prompts: Vec<_> = job.seeds.iter().map(|seed| Prompt::new(*seed)).collect();
        let ids = prompts.iter().map(|prompt| prompt.id.clone());
        let previews = job.previews.then(|| engine.previews.subscribe(ids));
        Self { engine, job, context, masks, template, client_id: engine.client_id(), prompts, previews }
    }

    async fn generate(&mut self) -> Result<(), EngineError> {
        let mut events = self.engine.events.subscribe();
        let uploads = self.upload().await?;
        self.submit(&uploads).await?;
        self.wait_for_images(&mut events).await
    }

    async fn upload(&self) -> Result<ComfyUiUploads, EngineError> {
        let Some(source) = &self.job.source else { return Ok(ComfyUiUploads::default()) };
        let mut images = Vec::with_capacity(source.images.len());
        for image in &source.images {
            images.push(self.engine.api.upload(image).await?);
        }
        let mask = self.upload_optional(self.masks.alone.as_ref()).await?;
        let masked = self.upload_optional(self.masks.with_image.as_ref()).await?;
        Ok(ComfyUiUploads { images, mask, masked })
    }

    async fn upload_optional(&self, file: Option<&Bytes>) -> Result<Option<String>, EngineError> {
        match file {
            Some(file) => self.engine.api.upload(file).await.map(Some),
            None => Ok(None),
        }
    }

    async fn submit(&mut self, uploads: &ComfyUiUploads) -> Result<(), EngineError> {
        self.client_id = self.engine.client_id();
        for prompt in &mut self.prompts {
            let payload =
                prompt_payload(self.template, self.job, uploads, prompt.seed, &prompt.id, &self.client_id);
            prompt.stage = PromptStage::Sent;
            let result = self.engine.api.submit(&payload).await;
            prompt.stage = match &result {
                // If only a part of the graph is invalid, the rest may run.
                Ok(()) | Err(EngineError::Failed(_)) => PromptStage::Acknowledged,
                Err(_) => PromptStage::Sent,
            };
            result?;
        }
        Ok(())
    }

    /// Waits for all images, or for the first failure.
    async fn wait_for_images(
        &mut self,
        events: &mut broadcast::Receiver<ComfyUiEvent>,
    ) -> Result<(), EngineError> {
        let mut last_poll = Instant::now();
        while self.prompts.iter().any(|prompt| prompt.image.is_none()) {
            let interval = if self.engine.receives_events_of(&self.client_id) {
                FALLBACK_POLL
            } else {
                DISCONNECTED_POLL
            };
            let event = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(last_poll + interval) => Ok(ComfyUiEvent::Resync),
            };
            match event {
                Ok(ComfyUiEvent::Progress { prompt, fraction }) => self.report_progress(&prompt, fraction),
                Ok(ComfyUiEvent::Ended { prompt }) if self.prompt(&prompt).is_none() => {}
                Ok(ComfyUiEvent::Ended { .. } | ComfyUiEvent::Resync) | Err(RecvError::Lagged(_)) => {
                    self.poll().await?;
                    last_poll = Instant::now();
                }
                Err(RecvError::Closed) => {
                    return Err(EngineError::Unresponsive("the event stream ended".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn prompt(&mut self, id: &str) -> Option<&mut Prompt> {
        self.prompts.iter_mut().find(|prompt| prompt.id == id)
    }

    /// Prompts run one at a time: those before it are finished.
    #[expect(clippy::cast_precision_loss, reason = "a handful of images")]
    fn report_progress(&mut self, id: &str, fraction: f64) {
        let all = self.prompts.len() as f64;
        let done = self.prompts.iter().filter(|prompt| prompt.image.is_some()).count() as f64;
        if let Some(image) = self.prompts.iter().position(|prompt| prompt.id == id) {
            let preview = self.previews.as_ref().and_then(|previews| previews.take(&id.to_owned()));
            let (within, fraction) = (fraction, (done + fraction) / all);
            self.context.progress.send_replace(engine::JobProgress {
                fraction,
                image_index: image,
                image_fraction: within,
                preview,
            });
        }
    }

    /// Asks for every prompt whose image is missing. If the engine does not respond, the next poll asks again; the request's
    /// time limit ends the waiting.
    async fn poll(&mut self) -> Result<(), EngineError> {
        match self.collect_finished().await {
            Err(error) if error.is_outcome_unknown() => {
                debug!(%error, "cannot poll a job; retrying");
                Ok(())
            }
            settled => settled,
        }
    }

    async fn collect_finished(&mut self) -> Result<(), EngineError> {
        for _ in 0..LOST_CHECKS {
            // The queue first: a prompt that is no longer in it must be in the history.
            let queue = self.engine.api.queue().await?;
            let mut is_lost = false;
            for index in 0..self.prompts.len() {
                let Prompt { id, image, .. } = &self.prompts[index];
                if image.is_some() || queue.holds(id) {
                    continue;
                }
                match self.engine.api.history_entry(id).await? {
                    Some(entry) => self.end(index, &entry).await?,
                    None => is_lost = true,
                }
            }
            if !is_lost {
                return Ok(());
            }
            tokio::time::sleep(LOST_CHECK_INTERVAL).await;
        }
        Err(EngineError::Interrupted(LOST_JOB_MESSAGE.to_owned()))
    }

    async fn end(&mut self, index: usize, entry: &HistoryEntry) -> Result<(), EngineError> {
        let prompt = &mut self.prompts[index];
        prompt.stage = PromptStage::Finished;
        let file = entry.output_image(&self.template.output)?;
        let bytes = self.engine.api.image(&file).await?;
        prompt.image = Some(GeneratedImage::from_file(bytes, prompt.seed)?);
        Ok(())
    }

    /// The prompts that the engine may still hold.
    fn unfinished(&self) -> UnfinishedPrompts {
        let submitted = self
            .prompts
            .iter()
            .filter(|prompt| matches!(prompt.stage, PromptStage::Sent | PromptStage::Acknowledged));
        let all_acknowledged = submitted.clone().all(|prompt| prompt.stage == PromptStage::Acknowledged);
        UnfinishedPrompts { prompts: submitted.map(|prompt| prompt.id.clone()).collect(), all_acknowledged }
    }

    /// In the order of the seeds.
    fn into_images(self) -> Vec<GeneratedImage> {
        self.prompts.into_iter().filter_map(|prompt| prompt.image).collect()
    }
}
