//! One job in ComfyUI, from the first order to the last picture, or to the proof that the GPU is free of it.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use picture::Format;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    ComfyUi,
    cancel::{Left, let_go},
    events::Event,
    history::Entry,
    mask,
    order::{Uploads, order},
    prompts::{Live, Prompt, Stage},
};
use crate::{
    engine::{self, Desk, EngineError, Outcome, Picture, previews::Wanted},
    images::Job,
};

/// How often a job is looked for although no event came.
const SAFETY_POLL: Duration = Duration::from_secs(5);
/// And where none can come: a new connection does not get the events of what was ordered under an old one.
const DEAF_POLL: Duration = Duration::from_secs(1);
/// A prompt leaves the queue and enters the history in one step, so one that is in neither is lost; looked for more than
/// once, because the two are asked one after the other.
const LOOKS: u8 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);
/// A failure is told when the engine has let go of the job's other pictures, but no later than this.
const TELL_AFTER: Duration = Duration::from_secs(1);
const LOST: &str = "the engine lost the job: it was restarted, or somebody took the job out of its queue";

/// Runs the job. See [`crate::engine::ImageEngine::run`].
pub(super) async fn run(engine: &ComfyUi, job: &Job, desk: &Desk) -> Outcome {
    let mask = coloured_mask(job).await?;
    let mut run = Run::new(engine, job, desk, mask);
    let _live = Live::enter(engine, &run.prompts);
    let outcome = tokio::select! {
        biased;
        () = desk.cancel.cancelled() => Err(EngineError::Cancelled),
        outcome = run.make() => outcome,
    };
    let error = match outcome {
        Ok(()) => return Ok(run.into_pictures()),
        // Nobody is there: the GPU is free, and the queue was lost with the engine.
        Err(error @ EngineError::Refused(_)) => return Err(error),
        Err(error) => error,
    };
    let left = run.left();
    if !left.prompts.is_empty() {
        let mut letting_go = pin!(let_go(engine, &left));
        if tokio::time::timeout(TELL_AFTER, letting_go.as_mut()).await.is_err() {
            // Nobody need wait for the rest.
            desk.tell(Err(error.clone()));
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
async fn coloured_mask(job: &Job) -> Result<Option<Bytes>, EngineError> {
    let Some(mask) = job.source.as_ref().and_then(|source| source.mask.clone()) else { return Ok(None) };
    let converting = tokio::task::spawn_blocking(move || mask::in_colour(&mask));
    let converted =
        converting.await.map_err(|_| EngineError::Failed("the mask's converter panicked".to_owned()));
    converted?.map(Some)
}

/// What is known of a running job.
struct Run<'a> {
    engine: &'a ComfyUi,
    job: &'a Job,
    desk: &'a Desk,
    /// As ComfyUI reads it.
    mask: Option<Bytes>,
    /// The node whose picture is the result.
    output: &'a str,
    /// Whom its events are sent to.
    client: String,
    prompts: Vec<Prompt>,
    /// Where previews are wanted.
    previews: Option<Wanted<'a, String>>,
}

impl<'a> Run<'a> {
    fn new(engine: &'a ComfyUi, job: &'a Job, desk: &'a Desk, mask: Option<Bytes>) -> Self {
        let prompts: Vec<_> = job.seeds.iter().map(|seed| Prompt::new(*seed)).collect();
        let ids = prompts.iter().map(|prompt| prompt.id.clone());
        let previews = job.previews.then(|| engine.previews.want(ids));
        let output = &engine.template(job).output;
        Self { engine, job, desk, mask, output, client: engine.client(), prompts, previews }
    }

    async fn make(&mut self) -> Result<(), EngineError> {
        let mut events = self.engine.events.subscribe();
        let uploads = self.upload().await?;
        self.hand_over(&uploads).await?;
        self.follow(&mut events).await
    }

    async fn upload(&self) -> Result<Uploads, EngineError> {
        let Some(source) = &self.job.source else { return Ok(Uploads::default()) };
        let picture = Some(self.engine.api.upload(&source.picture).await?);
        let mask = match &self.mask {
            Some(mask) => Some(self.engine.api.upload(mask).await?),
            None => None,
        };
        Ok(Uploads { picture, mask })
    }

    async fn hand_over(&mut self, uploads: &Uploads) -> Result<(), EngineError> {
        let template = self.engine.template(self.job);
        self.client = self.engine.client();
        for prompt in &mut self.prompts {
            let order = order(template, self.job, uploads, prompt.seed, &prompt.id, &self.client);
            prompt.stage = Stage::Sent;
            let taken = self.engine.api.submit(&order).await;
            prompt.stage = match &taken {
                // It may have found fault with a part of the graph, and run the rest.
                Ok(()) | Err(EngineError::Failed(_)) => Stage::Answered,
                Err(_) => Stage::Sent,
            };
            taken?;
        }
        Ok(())
    }

    /// Until every picture is here, or the first failure.
    async fn follow(&mut self, events: &mut broadcast::Receiver<Event>) -> Result<(), EngineError> {
        let mut looked = Instant::now();
        while self.prompts.iter().any(|prompt| prompt.picture.is_none()) {
            let patience = if self.engine.hears(&self.client) { SAFETY_POLL } else { DEAF_POLL };
            let event = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep_until(looked + patience) => Ok(Event::Interrupted),
            };
            match event {
                Ok(Event::Progress { prompt, fraction }) => self.step(&prompt, fraction),
                Ok(Event::Ended { prompt }) if self.prompt(&prompt).is_none() => {}
                Ok(Event::Ended { .. } | Event::Interrupted) | Err(RecvError::Lagged(_)) => {
                    self.look().await?;
                    looked = Instant::now();
                }
                Err(RecvError::Closed) => return Err(EngineError::NoAnswer("the events ended".to_owned())),
            }
        }
        Ok(())
    }

    fn prompt(&mut self, id: &str) -> Option<&mut Prompt> {
        self.prompts.iter_mut().find(|prompt| prompt.id == id)
    }

    /// One prompt runs at a time: those before it are done.
    #[expect(clippy::cast_precision_loss, reason = "a handful of pictures")]
    fn step(&mut self, id: &str, fraction: f64) {
        let all = self.prompts.len() as f64;
        let done = self.prompts.iter().filter(|prompt| prompt.picture.is_some()).count() as f64;
        if let Some(picture) = self.prompts.iter().position(|prompt| prompt.id == id) {
            let preview = self.previews.as_ref().and_then(|previews| previews.take(&id.to_owned()));
            let (within, fraction) = (fraction, (done + fraction) / all);
            self.desk.progress.send_replace(engine::Progress { fraction, picture, within, preview });
        }
    }

    /// Asks for every prompt whose picture is missing. An engine that does not answer is asked again later; the request's
    /// own time limit ends the waiting.
    async fn look(&mut self) -> Result<(), EngineError> {
        match self.settle().await {
            Err(error) if error.leaves_open() => {
                debug!(%error, "cannot look for a job; trying again");
                Ok(())
            }
            settled => settled,
        }
    }

    async fn settle(&mut self) -> Result<(), EngineError> {
        for _ in 0..LOOKS {
            // The queue first: what is not in it by then has ended, and the history must know.
            let queue = self.engine.api.queue().await?;
            let mut lost = false;
            for nth in 0..self.prompts.len() {
                let Prompt { id, picture, .. } = &self.prompts[nth];
                if picture.is_some() || queue.holds(id) {
                    continue;
                }
                match self.engine.api.entry(id).await? {
                    Some(entry) => self.end(nth, &entry).await?,
                    None => lost = true,
                }
            }
            if !lost {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(EngineError::Interrupted(LOST.to_owned()))
    }

    async fn end(&mut self, nth: usize, entry: &Entry) -> Result<(), EngineError> {
        let prompt = &mut self.prompts[nth];
        prompt.stage = Stage::Ended;
        let file = entry.picture_of(self.output)?;
        let bytes = self.engine.api.picture(&file).await?;
        let format = Format::of_whole(&bytes)
            .map_err(|fault| EngineError::Failed(format!("the engine's picture cannot be used: {fault}")))?;
        prompt.picture = Some(Picture { bytes, format, seed: prompt.seed });
        Ok(())
    }

    /// What the engine may still hold.
    fn left(&self) -> Left {
        let held = self.prompts.iter().filter(|prompt| matches!(prompt.stage, Stage::Sent | Stage::Answered));
        let sure = held.clone().all(|prompt| prompt.stage == Stage::Answered);
        Left { prompts: held.map(|prompt| prompt.id.clone()).collect(), sure }
    }

    /// In the order of the seeds.
    fn into_pictures(self) -> Vec<Picture> {
        self.prompts.into_iter().filter_map(|prompt| prompt.picture).collect()
    }
}
