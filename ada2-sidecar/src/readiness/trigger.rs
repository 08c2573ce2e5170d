//! An evaluation at once, for whoever changed one of its inputs.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::warn;

/// An evaluation only reads memory.
const TRIGGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests an evaluation.
#[derive(Debug)]
pub(crate) struct EvaluationTrigger(mpsc::Sender<oneshot::Sender<()>>);

impl EvaluationTrigger {
    /// With the evaluation's end, which replies once the verdict is in force.
    pub(super) fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<()>>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Returns once a verdict that was begun after this is in force; after 1 s in any case.
    pub(crate) async fn evaluate_now(&self) {
        let (done_tx, done_rx) = oneshot::channel();
        let request = async {
            if self.0.send(done_tx).await.is_ok() {
                let _ = done_rx.await;
            }
        };
        if timeout(TRIGGER_TIMEOUT, request).await.is_err() {
            warn!("no verdict within {TRIGGER_TIMEOUT:?}");
        }
    }
}
