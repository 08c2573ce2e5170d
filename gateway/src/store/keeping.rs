//! The worker that lets old pictures go.

use std::time::Duration;

use service::clock::unix_seconds;
use tracing::{error, info, warn};

use super::{
    disk::Store,
    index::Totals,
    retention::{Look, Rules, Trust},
};
use crate::{blocking::blocking, sleep::Clocks};

/// Between two looks at what is in the store. Cheap: the folder is read only where something may be due.
const INTERVAL: Duration = Duration::from_secs(10);

/// What a round needs; a reload changes it.
#[derive(Debug)]
pub(crate) struct Round {
    /// Both clocks, now.
    pub(crate) clocks: Clocks,
    /// The store.
    pub(crate) store: Store,
    /// How much may stay.
    pub(crate) rules: Rules,
}

/// Looks at once, and then again and again.
pub(crate) async fn keep_within_limits(round: impl Fn() -> Round) {
    let mut trust = Trust::new(round().clocks);
    let mut failing = false;
    loop {
        let Round { clocks, store, rules } = round();
        let by_age = believe(trust.look(clocks), rules.max_age.is_some());
        let now = unix_seconds(clocks.wall);
        match blocking(move || store.retain(&rules, now, by_age)).await {
            Ok(gone) => {
                failing = false;
                if gone != Totals::default() {
                    info!(pictures = gone.pictures, bytes = gone.bytes, "old pictures deleted");
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
fn believe(look: Look, matters: bool) -> bool {
    if let (Look::Jumped(by), true) = (look, matters) {
        let seconds = by.as_secs();
        warn!(seconds, "the clock jumped, or the machine slept: for an hour no picture is deleted by age");
    }
    look == Look::Steady
}
