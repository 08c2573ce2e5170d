//! The worker that deletes old images, and reads the records before the first list needs them.

use std::time::Duration;

use service::clock::unix_seconds;
use tracing::{error, info, warn};

use super::{
    disk::ImageStore,
    index::StoreTotals,
    retention::{ClockMonitor, ClockState, RetentionPolicy},
};
use crate::{blocking::blocking, sleep::Clocks};

/// Cheap: the directory is read only if something may have expired.
const INTERVAL: Duration = Duration::from_secs(10);

/// The input of one round; a reload may change it.
#[derive(Debug)]
pub(crate) struct RetentionInputs {
    /// Read now.
    pub(crate) clocks: Clocks,
    pub(crate) store: ImageStore,
    pub(crate) policy: RetentionPolicy,
}

/// Starts with a round at once.
pub(crate) async fn run(inputs: impl Fn() -> RetentionInputs) {
    let mut clock = ClockMonitor::new(inputs().clocks);
    let mut failing = false;
    let store = inputs().store;
    if let Err(fault) = blocking(move || store.read_records()).await {
        warn!(%fault, "cannot read the images' records; the first list tries again");
    }
    loop {
        let RetentionInputs { clocks, store, policy } = inputs();
        let by_age = may_delete_by_age(clock.observe(clocks), policy.max_age.is_some());
        let now = unix_seconds(clocks.wall);
        match blocking(move || store.apply_retention(&policy, now, by_age)).await {
            Ok(deleted) => {
                failing = false;
                if deleted != StoreTotals::default() {
                    info!(pictures = deleted.images, bytes = deleted.bytes, "old images deleted");
                }
            }
            Err(fault) if !failing => {
                failing = true;
                error!(%fault, "cannot delete old images; retrying every 10 s");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// After a jump of the clock, ages are unreliable.
fn may_delete_by_age(state: ClockState, has_max_age: bool) -> bool {
    if let (ClockState::Jumped(jump), true) = (state, has_max_age) {
        let seconds = jump.as_secs();
        warn!(seconds, "the clock jumped, or the machine slept: deletion by age is suspended for an hour");
    }
    state == ClockState::Steady
}
