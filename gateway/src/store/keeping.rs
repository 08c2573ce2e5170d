//! The worker that lets old pictures go.

use std::time::{Duration, UNIX_EPOCH};

use shared::service::reload::Switch;
use tracing::{error, info, warn};

use super::{
    index::Totals,
    retention::{Look, Trust},
};
use crate::{blocking::blocking, state::App};

/// Between two looks at what is in the store. Cheap: the folder is read only where something may be due.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks at once, and then again and again.
pub(crate) async fn keep_within_limits(app: Switch<App>) {
    let mut trust = Trust::new(app.now().vigil.clocks());
    let mut failing = false;
    loop {
        let app = app.now();
        let clocks = app.vigil.clocks();
        let by_age = believe(trust.look(clocks), app.config.retention.max_age.is_some());
        let now = clocks.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (store, rules) = (app.store.clone(), app.config.retention);
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
