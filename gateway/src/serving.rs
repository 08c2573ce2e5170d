//! The configuration in force and everything made from it, as the listeners see it: replaced as one value by a reload.

pub mod reload;

use std::time::Duration;

use axum::Router;
use service::reload::Reloadable;

use crate::{app::App, router};

/// Between two looks at the clocks.
const SLEEP_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// What listeners and workers take the state from.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// The state of new requests.
    pub(crate) app: Reloadable<App>,
    /// The routes with it, for callers.
    pub(crate) api: Reloadable<Router>,
    /// The same for metrics alone.
    pub(crate) metrics: Reloadable<Router>,
}

impl Serving {
    /// With this state.
    pub(crate) fn new(app: App) -> Self {
        Self {
            api: Reloadable::new(router::router(app.clone())),
            metrics: Reloadable::new(router::metrics_router(app.clone())),
            app: Reloadable::new(app),
        }
    }

    /// New requests get this one; gives the one before.
    pub(crate) fn replace(&self, app: App) -> App {
        drop(self.api.replace(router::router(app.clone())));
        drop(self.metrics.replace(router::metrics_router(app.clone())));
        self.app.replace(app)
    }
}

/// The worker that notices when the machine has slept.
pub(crate) async fn watch_for_sleep(app: Reloadable<App>) {
    loop {
        app.load().check_for_sleep();
        tokio::time::sleep(SLEEP_CHECK_INTERVAL).await;
    }
}
