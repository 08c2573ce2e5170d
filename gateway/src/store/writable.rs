//! Whether the store takes files, asked as often as anybody likes and tried at most once a second. It is logged when that
//! changes, and not each time.

use std::time::Duration;

use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tracing::{error, info};

use super::disk::Store;
use crate::blocking::blocking;

/// For so long an answer is good.
const FRESH: Duration = Duration::from_secs(1);
/// A disk that takes longer is none that can be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last try.
#[derive(Debug, Default)]
pub(super) struct LastTry(Mutex<Option<(Instant, Result<(), String>)>>);

impl Store {
    /// Whether a file can be made, or why not. Whoever asks at the same time waits for the same try.
    pub(crate) async fn is_writable(&self) -> Result<(), String> {
        let mut last = self.last_try.0.lock().await;
        if let Some((_, result)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return result.clone();
        }
        let store = self.clone();
        let tried = timeout(PATIENCE, blocking(move || store.try_write())).await;
        let result = match tried {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the disk did not answer within {} s", PATIENCE.as_secs())),
        };
        // It was seen to be writable at the start.
        let was = last.as_ref().is_none_or(|(_, result)| result.is_ok());
        match &result {
            Err(fault) if was => error!(fault, "the picture store takes no files"),
            Ok(()) if !was => info!("the picture store takes files again"),
            Ok(()) | Err(_) => {}
        }
        *last = Some((Instant::now(), result.clone()));
        result
    }
}
