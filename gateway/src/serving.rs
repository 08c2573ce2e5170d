//! The state of the current configuration and its routers, which a reload replaces as a whole.

pub mod reload;

use std::time::Duration;

use axum::Router;
use service::reload::Reloadable;

use crate::{app::App, router};

const SLEEP_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Shared by listeners and workers.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) app: Reloadable<App>,
    /// For the main listener.
    pub(crate) api: Reloadable<Router>,
    /// For the metrics listener.
    pub(crate) metrics: Reloadable<Router>,
}

impl Serving {
    pub(crate) fn new(app: App) -> Self {
        Self {
            api: Reloadable::new(router::router(app.clone())),
            metrics: Reloadable::new(router::metrics_router(app.clone())),
            app: Reloadable::new(app),
        }
    }

    /// For new requests; returns the previous state.
    pub(crate) fn replace(&self, app: App) -> App {
        drop(self.api.replace(router::router(app.clone())));
        drop(self.metrics.replace(router::metrics_router(app.clone())));
        self.app.replace(app)
    }
}

/// The worker that detects that the machine slept.
pub(crate) async fn watch_for_sleep(app: Reloadable<App>) {
    loop {
        app.load().check_for_sleep();
        tokio::time::sleep(SLEEP_CHECK_INTERVAL).await;
    }
}
