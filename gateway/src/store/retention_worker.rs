//! The worker that lets old pictures go.

use std::time::Duration;

use service::clock::unix_seconds;
use tracing::{error, info, warn};

use super::{
    disk::ImageStore,
    index::StoreTotals,
    retention::{ClockMonitor, ClockState, RetentionPolicy},
};
use crate::{blocking::blocking, sleep::Clocks};

/// Between two looks at what is in the store. Cheap: the folder is read only where something may be due.
const INTERVAL: Duration = Duration::from_secs(10);

/// What a round needs; a reload changes it.
#[derive(Debug)]
pub(crate) struct RetentionInputs {
    /// Both clocks, now.
    pub(crate) clocks: Clocks,
    /// The store.
    pub(crate) store: ImageStore,
    /// How much may stay.
    pub(crate) rules: RetentionPolicy,
}

/// Looks at once, and then again and again.
pub(crate) async fn run(inputs: impl Fn() -> RetentionInputs) {
    let mut clock = ClockMonitor::new(inputs().clocks);
    let mut failing = false;
    loop {
        let RetentionInputs { clocks, store, rules } = inputs();
        let by_age = may_delete_by_age(clock.observe(clocks), rules.max_age.is_some());
        let now = unix_seconds(clocks.wall);
        match blocking(move || store.apply_retention(&rules, now, by_age)).await {
            Ok(gone) => {
                failing = false;
                if gone != StoreTotals::default() {
                    info!(pictures = gone.images, bytes = gone.bytes, "old pictures deleted");
                }
            }
            Err(fault) if !failing => {
                failing = true;
                error!(%fault, "old pictures cannot be deleted; trying again every 10 s");
            }
            Err(_) => {}
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Whether pictures may go by age now. After a jump the clock says how old they are only by chance.
fn may_delete_by_age(state: ClockState, matters: bool) -> bool {
    if let (ClockState::Jumped(by), true) = (state, matters) {
        let seconds = by.as_secs();
        warn!(seconds, "the clock jumped, or the machine slept: for an hour no picture is deleted by age");
    }
    state == ClockState::Steady
}
