//! `GET /v1/gateway/events`: what a page shows, as server-sent events. Nothing waits in a queue: when the client takes more, it
//! gets what is true then.

mod feed;
mod readiness;

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use service::slots::SharedPermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use self::feed::Feed;
use super::{
    AuthorizedRequest,
    relay::{self, Source, Step},
};
use crate::{app::App, config::ImageEngine, error::ApiError, health::viewers::Viewer};

/// How often a stream looks for changes.
const TICK: Duration = Duration::from_millis(125);

pub(crate) async fn events(
    State(app): State<App>,
    authorized: AuthorizedRequest,
) -> Result<Response, ApiError> {
    let permit = app.event_streams.open(authorized.caller.name()).map_err(ApiError::Busy)?;
    // A stream has no end of its own: whoever ends it, it was served.
    authorized.record.record_outcome(StatusCode::OK.as_u16(), None);
    let mut ticker = interval(TICK);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let images = &app.config.images;
    let viewer = match images.engine {
        ImageEngine::Backend => app.health.watch(&images.class),
        ImageEngine::Mock => None,
    };
    let stream = EventStream {
        _viewer: viewer,
        feed: Feed::new(app.clone(), authorized.caller),
        app,
        ticker,
        _permit: permit,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let headers: HeaderMap =
        headers.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
    Ok(relay::respond(StatusCode::OK, headers, stream))
}

/// One open stream.
struct EventStream {
    app: App,
    feed: Feed,
    ticker: Interval,
    _viewer: Option<Viewer>,
    _permit: SharedPermit,
}

impl Source for EventStream {
    /// Ends when the service drains, and when a reload has replaced the configuration: the client comes back, and its token is
    /// checked anew.
    async fn step(&mut self) -> Step {
        loop {
            tokio::select! {
                biased;
                () = self.app.lifecycle.draining().cancelled() => return Step::End,
                () = self.app.health.stopped().cancelled() => return Step::End,
                _ = self.ticker.tick() => {}
            }
            let events = self.feed.next();
            if !events.is_empty() {
                return Step::Chunk(events);
            }
        }
    }
}
