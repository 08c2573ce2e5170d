//! One job in ComfyUI, from the first order to the last picture, or to the proof that the GPU is free of it.

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
    payload::{ComfyUiUploads, mask_as_rgb, prompt_payload},
    prompts::{ActivePrompts, Prompt, PromptStage},
};
use crate::{
    engine::{self, EngineError, GeneratedImage, JobContext, JobOutcome, previews::PreviewSubscription},
    images::Job,
};

/// How often a job is looked for although no event came.
const FALLBACK_POLL: Duration = Duration::from_secs(5);
/// And where none can come: a new connection does not get the events of what was ordered under an old one.
const DISCONNECTED_POLL: Duration = Duration::from_secs(1);
/// A prompt leaves the queue and enters the history in one step, so one that is in neither is lost; looked for more than
/// once, because the two are asked one after the other.
const LOOKS: u8 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);
/// A failure is told when the engine has let go of the job's other pictures, but no later than this.
const FAILURE_REPORT_DELAY: Duration = Duration::from_secs(1);
const LOST_JOB_MESSAGE: &str =
    "the engine lost the job: it was restarted, or somebody took the job out of its queue";

/// Runs the job. See [`crate::engine::ImageEngine::run`].
pub(super) async fn run(engine: &ComfyUi, job: &Job, context: &JobContext) -> JobOutcome {
    let mask = rgb_mask(job).await?;
    let mut run = Run::new(engine, job, context, mask);
    let _live = ActivePrompts::register(engine, &run.prompts);
    let outcome = tokio::select! {
        biased;
        () = context.cancel.cancelled() => Err(EngineError::Cancelled),
        outcome = run.make() => outcome,
    };
    let error = match outcome {
        Ok(()) => return Ok(run.into_images()),
        // Nobody is there: the GPU is free, and the queue was lost with the engine.
        Err(error @ EngineError::ConnectionRefused(_)) => return Err(error),
        Err(error) => error,
    };
    let unfinished = run.unfinished();
    if !unfinished.prompts.is_empty() {
        let mut letting_go = pin!(cancel_and_confirm(engine, &unfinished));
        if tokio::time::timeout(FAILURE_REPORT_DELAY, letting_go.as_mut()).await.is_err() {
            // Nobody need wait for the rest.
            context.complete(Err(error.clone()));
            letting_go.await;
        }
    }
    if let EngineError::OutOfMemory(_) = &error
        && let Err(fault) = engine.api.free_memory().await
    {
        warn!(%fault, "the engine could not be asked to free its memory");
    }
    Err(error)
}

/// Not part of what a cancel interrupts: a thread that blocks goes on, and the slot is its.
async fn rgb_mask(job: &Job) -> Result<Option<Bytes>, EngineError> {
    let Some(mask) = job.source.as_ref().and_then(|source| source.mask.clone()) else { return Ok(None) };
    let converting = tokio::task::spawn_blocking(move || mask_as_rgb(&mask));
    let converted =
        converting.await.map_err(|_| EngineError::Failed("the mask's converter panicked".to_owned()));
    converted?.map(Some)
}

/// What is known of a running job.
struct Run<'a> {
    engine: &'a ComfyUi,
    job: &'a Job,
    context: &'a JobContext,
    /// As ComfyUI reads it.
    mask: Option<Bytes>,
    /// The node whose picture is the result.
    output: &'a str,
    /// Whom its events are sent to.
    client_id: String,
    prompts: Vec<Prompt>,
    /// Where previews are wanted.
    previews: Option<PreviewSubscription<'a, String>>,
}

impl<'a> Run<'a> {
    fn new(engine: &'a ComfyUi, job: &'a Job, desk: &'a JobContext, mask: Option<Bytes>) -> Self {
        let prompts: Vec<_> = job.seeds.iter().map(|seed| Prompt::new(*seed)).collect();
        let ids = prompts.iter().map(|prompt| prompt.id.clone());
        let previews = job.previews.then(|| engine.previews.subscribe(ids));
        let output = &engine.template(job).output;
        Self { engine, job, context: desk, mask, output, client_id: engine.client_id(), prompts, previews }
    }

    async fn make(&mut self) -> Result<(), EngineError> {
        let mut events = self.engine.events.subscribe();
        let uploads = self.upload().await?;
        self.submit(&uploads).await?;
        self.wait_for_images(&mut events).await
    }

    async fn upload(&self) -> Result<ComfyUiUploads, EngineError> {
        let Some(source) = &self.job.source else { return Ok(ComfyUiUploads::default()) };
        let picture = Some(self.engine.api.upload(&source.image).await?);
        let mask = match &self.mask {
            Some(mask) => Some(self.engine.api.upload(mask).await?),
            None => None,
        };
        Ok(ComfyUiUploads { image: picture, mask })
    }

    async fn submit(&mut self, uploads: &ComfyUiUploads) -> Result<(), EngineError> {
        let template = self.engine.template(self.job);
        self.client_id = self.engine.client_id();
        for prompt in &mut self.prompts {
            let payload =
                prompt_payload(template, self.job, uploads, prompt.seed, &prompt.id, &self.client_id);
            prompt.stage = PromptStage::Sent;
            let taken = self.engine.api.submit(&payload).await;
            prompt.stage = match &taken {
                // It may have found fault with a part of the graph, and run the rest.
                Ok(()) | Err(EngineError::Failed(_)) => PromptStage::Acknowledged,
                Err(_) => PromptStage::Sent,
            };
            taken?;
        }
        Ok(())
    }

    /// Until every picture is here, or the first failure.
    async fn wait_for_images(
        &mut self,
        events: &mut broadcast::Receiver<ComfyUiEvent>,
    ) -> Result<(), EngineError> {
        let mut looked = Instant::now();
        while self.prompts.iter().any(|prompt| prompt.image.is_none()) {
            let patience = if self.engine.receives_events_of(&self.client_id) {
                FALLBACK_POLL
            } else {
                DISCONNECTED_POLL
            };
            let event = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(looked + patience) => Ok(ComfyUiEvent::Resync),
            };
            match event {
                Ok(ComfyUiEvent::Progress { prompt, fraction }) => self.report_progress(&prompt, fraction),
                Ok(ComfyUiEvent::Ended { prompt }) if self.prompt(&prompt).is_none() => {}
                Ok(ComfyUiEvent::Ended { .. } | ComfyUiEvent::Resync) | Err(RecvError::Lagged(_)) => {
                    self.poll().await?;
                    looked = Instant::now();
                }
                Err(RecvError::Closed) => {
                    return Err(EngineError::Unresponsive("the events ended".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn prompt(&mut self, id: &str) -> Option<&mut Prompt> {
        self.prompts.iter_mut().find(|prompt| prompt.id == id)
    }

    /// One prompt runs at a time: those before it are done.
    #[expect(clippy::cast_precision_loss, reason = "a handful of pictures")]
    fn report_progress(&mut self, id: &str, fraction: f64) {
        let all = self.prompts.len() as f64;
        let done = self.prompts.iter().filter(|prompt| prompt.image.is_some()).count() as f64;
        if let Some(picture) = self.prompts.iter().position(|prompt| prompt.id == id) {
            let preview = self.previews.as_ref().and_then(|previews| previews.take(&id.to_owned()));
            let (within, fraction) = (fraction, (done + fraction) / all);
            self.context.progress.send_replace(engine::JobProgress {
                fraction,
                image_index: picture,
                image_fraction: within,
                preview,
            });
        }
    }

    /// Asks for every prompt whose picture is missing. An engine that does not answer is asked again later; the request's
    /// own time limit ends the waiting.
    async fn poll(&mut self) -> Result<(), EngineError> {
        match self.collect_finished().await {
            Err(error) if error.is_outcome_unknown() => {
                debug!(%error, "cannot look for a job; trying again");
                Ok(())
            }
            settled => settled,
        }
    }

    async fn collect_finished(&mut self) -> Result<(), EngineError> {
        for _ in 0..LOOKS {
            // The queue first: what is not in it by then has ended, and the history must know.
            let queue = self.engine.api.queue().await?;
            let mut lost = false;
            for nth in 0..self.prompts.len() {
                let Prompt { id, image: picture, .. } = &self.prompts[nth];
                if picture.is_some() || queue.holds(id) {
                    continue;
                }
                match self.engine.api.history_entry(id).await? {
                    Some(entry) => self.end(nth, &entry).await?,
                    None => lost = true,
                }
            }
            if !lost {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(EngineError::Interrupted(LOST_JOB_MESSAGE.to_owned()))
    }

    async fn end(&mut self, nth: usize, entry: &HistoryEntry) -> Result<(), EngineError> {
        let prompt = &mut self.prompts[nth];
        prompt.stage = PromptStage::Finished;
        let file = entry.output_image(self.output)?;
        let bytes = self.engine.api.image(&file).await?;
        prompt.image = Some(GeneratedImage::from_file(bytes, prompt.seed)?);
        Ok(())
    }

    /// What the engine may still hold.
    fn unfinished(&self) -> UnfinishedPrompts {
        let held = self
            .prompts
            .iter()
            .filter(|prompt| matches!(prompt.stage, PromptStage::Sent | PromptStage::Acknowledged));
        let sure = held.clone().all(|prompt| prompt.stage == PromptStage::Acknowledged);
        UnfinishedPrompts { prompts: held.map(|prompt| prompt.id.clone()).collect(), all_acknowledged: sure }
    }

    /// In the order of the seeds.
    fn into_images(self) -> Vec<GeneratedImage> {
        self.prompts.into_iter().filter_map(|prompt| prompt.image).collect()
    }
}
