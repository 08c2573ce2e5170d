//! A verdict out of turn, for whoever has changed what it is made of.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::warn;

/// Judging only reads memory.
const ASKED_VERDICT: Duration = Duration::from_secs(1);

/// Asks for a verdict.
#[derive(Debug)]
pub(crate) struct Rejudge(mpsc::Sender<oneshot::Sender<()>>);

impl Rejudge {
    /// With the judge's end: whoever asks is told there once their verdict is in force.
    pub(super) fn channel() -> (Self, mpsc::Receiver<oneshot::Sender<()>>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Returns once a verdict that was begun after this is in force; after 1 s in any case.
    pub(crate) async fn verdict(&self) {
        let (tell, told) = oneshot::channel();
        let asked = async {
            if self.0.send(tell).await.is_ok() {
                let _ = told.await;
            }
        };
        if timeout(ASKED_VERDICT, asked).await.is_err() {
            warn!("no verdict within {ASKED_VERDICT:?}");
        }
    }
}
