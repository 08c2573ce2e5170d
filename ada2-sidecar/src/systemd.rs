//! Notifications to the service manager (`Type=notify`); without one they do nothing.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use service::{lifecycle::Lifecycle, reload::ReloadHandle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::readiness::ReadinessSnapshot;

/// The status until connections are accepted.
const STARTING_STATUS: &str = "starting: taking first readings of card, engine and host";

/// Sends watchdog pings from the start, and the readiness whenever it changes once `serving` is set. Runs on the runtime
/// that serves requests, not on the NVML thread: a hanging driver must give 503, not a restart loop.
pub(crate) fn start_notifier(
    lifecycle: &Lifecycle,
    mut published: watch::Receiver<Arc<ReadinessSnapshot>>,
    reloads: ReloadHandle,
    serving: CancellationToken,
) {
    let ping = sd_notify::watchdog_enabled().map_or(Duration::from_secs(10), |limit| limit / 3);
    lifecycle.spawn_worker("service manager", async move {
        let mut tick = tokio::time::interval(ping);
        let mut last_status = String::new();
        loop {
            // A line break would start another assignment.
            let line = published.borrow_and_update().report.summary();
            let starting = !serving.is_cancelled();
            let status = if starting { STARTING_STATUS.to_owned() } else { line };
            let reload_error =
                reloads.status().last_error.map(|error| format!("; last reload refused: {error}"));
            let status = format!("{status}{}", reload_error.unwrap_or_default()).replace(['\n', '\r'], " ");
            if status != last_status {
                let _ = sd_notify::notify(&[NotifyState::Status(&status)]);
                last_status = status;
            }
            tokio::select! {
                () = serving.cancelled(), if starting => {}
                _ = tick.tick() => { let _ = sd_notify::notify(&[NotifyState::Watchdog]); }
                changed = published.changed() => if changed.is_err() { return std::future::pending().await },
            }
        }
    });
}

/// After the start, and after each reload.
pub(crate) fn ready() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it.
pub(crate) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
    }
}

pub(crate) fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}
