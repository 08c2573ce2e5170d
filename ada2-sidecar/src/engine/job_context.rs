//! What a running job and its clients share.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use picture::Format;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::EngineError;

/// The result of a job.
pub type JobOutcome = Result<Vec<GeneratedImage>, EngineError>;

/// Passes cancellation to a running job, and progress and outcome back.
#[derive(Debug)]
pub struct JobContext {
    /// Fires when no client waits any more.
    pub cancel: CancellationToken,
    /// Only the newest value is kept.
    pub progress: watch::Sender<JobProgress>,
    outcome: Mutex<Option<oneshot::Sender<JobOutcome>>>,
}

impl JobContext {
    /// The context, and the receiver of the outcome.
    pub fn new() -> (Self, oneshot::Receiver<JobOutcome>) {
        let (sender, receiver) = oneshot::channel();
        let progress = watch::Sender::new(JobProgress::default());
        (Self { cancel: CancellationToken::new(), progress, outcome: Mutex::new(Some(sender)) }, receiver)
    }

    /// Whether the outcome was sent: from then on cancellation has no effect on it.
    pub fn is_completed(&self) -> bool {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Sends the outcome. Only the first one counts.
    pub fn complete(&self, outcome: JobOutcome) {
        let sender = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The receiver may be gone.
        let _ = sender.map(|sender| sender.send(outcome));
    }
}

/// How far a job is.
#[derive(Debug, Clone, Default)]
pub struct JobProgress {
    /// Of the steps of all its images, 0 to 1.
    pub fraction: f64,
    /// The image that is being generated, counted from 0.
    pub image_index: usize,
    /// Of that image's own steps, 0 to 1.
    pub image_fraction: f64,
    /// The engine's preview at that point.
    pub preview: Option<Preview>,
}

/// A preview as the engine made it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct Preview {
    pub bytes: Bytes,
    pub format: Format,
}

/// A finished image.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct GeneratedImage {
    pub bytes: Bytes,
    pub format: Format,
    pub seed: u64,
}

impl GeneratedImage {
    /// Detects the format of the engine's file.
    pub(super) fn from_file(bytes: Bytes, seed: u64) -> Result<Self, EngineError> {
        let format = Format::detect(&bytes)
            .map_err(|error| EngineError::Failed(format!("the engine's image cannot be used: {error}")))?;
        Ok(Self { bytes, format, seed })
    }
}
