//! What a request submits as a job, and the handle it gets back.

use std::fmt;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::openai::fields::FieldError;

use crate::{
    engine::{EngineError, GeneratedImage, JobProgress},
    images::Job,
};

/// A job with the work around the engine's part of it.
pub struct JobSpec<T> {
    /// The job. An edit's has no source image before `decode` has run.
    pub job: Job,
    /// Decodes the source image; present for edits.
    pub decode: Option<DecodeStep>,
    /// Builds the response from the images and the job as it ran.
    pub finish: FinishFn<T>,
}

impl<T> fmt::Debug for JobSpec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobSpec")
            .field("job", &self.job)
            .field("decode", &self.decode)
            .finish_non_exhaustive()
    }
}

/// Decoding of the image that a job starts from.
pub struct DecodeStep {
    /// Whether it takes so much memory that only a few may run at once.
    pub is_large: bool,
    /// Does the work.
    pub run: DecodeFn,
}

impl fmt::Debug for DecodeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecodeStep").field("is_large", &self.is_large).finish_non_exhaustive()
    }
}

/// Runs on a blocking thread, and gives up once the token is cancelled.
pub type DecodeFn = Box<dyn FnOnce(Job, &CancellationToken) -> Result<Job, FieldError> + Send>;

/// Runs on a blocking thread, and gives up once the token is cancelled.
pub type FinishFn<T> =
    Box<dyn FnOnce(Vec<GeneratedImage>, &Job, &CancellationToken) -> Result<T, EngineError> + Send>;

/// Why a job has no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobError {
    /// The source image is unusable. The engine did not get the job.
    Input(FieldError),
    /// The engine failed, or the job was cancelled.
    Engine(EngineError),
    /// A bug in the sidecar.
    Panic,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Engine(error) => error.fmt(f),
            Self::Panic => f.write_str("internal error (panic); see the log"),
        }
    }
}

impl From<EngineError> for JobError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// A running job. Dropping the handle cancels exactly this job, in the engine and here.
#[derive(Debug)]
pub struct JobHandle<T> {
    pub(super) progress: watch::Receiver<JobProgress>,
    pub(super) decoded_rx: Option<oneshot::Receiver<Result<(), JobError>>>,
    pub(super) response_rx: oneshot::Receiver<Result<T, JobError>>,
    pub(super) _cancel_on_drop: DropGuard,
}

impl<T> JobHandle<T> {
    /// The latest progress; earlier values are overwritten.
    pub fn progress(&self) -> watch::Receiver<JobProgress> {
        self.progress.clone()
    }

    /// Waits until the source image is decoded.
    pub async fn wait_decoded(&mut self) -> Result<(), JobError> {
        match self.decoded_rx.take() {
            Some(decoded) => decoded.await.unwrap_or_else(|_| Err(ended_early())),
            None => Ok(()),
        }
    }

    /// Waits for the response.
    pub async fn wait(&mut self) -> Result<T, JobError> {
        (&mut self.response_rx).await.unwrap_or_else(|_| Err(ended_early()))
    }
}

pub(super) fn ended_early() -> JobError {
    EngineError::Failed("the job's task ended without a result".to_owned()).into()
}
