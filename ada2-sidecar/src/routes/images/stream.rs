//! The answer as a stream of server-sent events, exactly OpenAI's: previews as they come, then the picture. What fails
//! after the stream began is an event, because the status is sent. Dropping the stream cancels the job.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::stream::{Stream, unfold};
use serde_json::{Value, json};
use shared::openai::images::Usage;
use tokio::{sync::watch, time::Instant};

use super::{
    blocking,
    render::{Answer, base64, unix_now},
};
use crate::{
    engine::{Picture, Preview, Progress},
    error::ApiError,
    images::Route,
    jobs::JobHandle,
};

/// Comments while nothing else is said, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// nginx would hold the events back.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Streams the job: up to `partials` previews, spread over its steps, then the picture.
pub(super) fn answer(
    handle: JobHandle,
    answer: Answer,
    route: Route,
    partials: u8,
    deadline: Instant,
    time: Duration,
) -> Response {
    let progress = handle.progress();
    let watched =
        Watched { handle, progress, answer, route, partials, sent: 0, deadline, time, ended: false };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("at work");
    ([UNBUFFERED], Sse::new(watched.events()).keep_alive(keep_alive)).into_response()
}

/// A job, and what was told of it.
struct Watched {
    handle: JobHandle,
    progress: watch::Receiver<Progress>,
    answer: Answer,
    route: Route,
    partials: u8,
    sent: u8,
    deadline: Instant,
    time: Duration,
    ended: bool,
}

impl Watched {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        unfold(self, async |mut watched| {
            if watched.ended {
                return None;
            }
            let event = watched.next().await;
            Some((Ok(event), watched))
        })
    }

    async fn next(&mut self) -> Event {
        loop {
            let outcome = tokio::select! {
                outcome = self.handle.finished() => outcome.map_err(ApiError::from),
                Ok(()) = self.progress.changed(), if self.sent < self.partials => {
                    let seen = self.progress.borrow_and_update().clone();
                    match seen.preview.filter(|_| is_due(seen.fraction, self.sent, self.partials)) {
                        Some(preview) => return self.partial(&preview),
                        None => continue,
                    }
                }
                () = tokio::time::sleep_until(self.deadline) => Err(ApiError::TooSlow(self.time)),
            };
            self.ended = true;
            return self.last(outcome).await;
        }
    }

    fn partial(&mut self, preview: &Preview) -> Event {
        let mut body = self.common("partial_image");
        body["b64_json"] = json!(base64(&preview.bytes));
        body["output_format"] = json!(preview.format.name());
        body["partial_image_index"] = json!(self.sent);
        self.sent += 1;
        event(&body)
    }

    async fn last(&self, outcome: Result<Vec<Picture>, ApiError>) -> Event {
        let completed = async {
            let picture = outcome?.pop().ok_or(ApiError::Panic)?;
            let (answer, mut body) = (self.answer.clone(), self.common("completed"));
            blocking(move || {
                let picture = answer.finished(picture)?;
                body["b64_json"] = json!(base64(&picture.bytes));
                body["seed"] = json!(picture.seed);
                body["usage"] = json!(Usage::default());
                Ok::<_, ApiError>(event(&body))
            })
            .await?
        };
        completed.await.unwrap_or_else(|error: ApiError| {
            let error = error.envelope().error;
            // SDKs raise on the object inside, and on nothing else.
            event(&json!({"type": "error", "error": error}))
        })
    }

    /// What both kinds of events say. Always resolved values, never `auto`.
    fn common(&self, what: &str) -> Value {
        let prefix = match self.route {
            Route::Generations => "image_generation",
            Route::Edits => "image_edit",
        };
        json!({"type": format!("{prefix}.{what}"), "created_at": unix_now(), "size": self.answer.size,
            "quality": self.answer.quality, "background": "opaque", "output_format": self.answer.format()})
    }
}

/// The first of two partials is due at a third of the work, the second at two thirds.
fn is_due(fraction: f64, sent: u8, partials: u8) -> bool {
    fraction >= f64::from(sent + 1) / f64::from(partials + 1)
}

fn event(body: &Value) -> Event {
    Event::default().event(body["type"].as_str().unwrap_or_default()).data(body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partials_are_spread_over_the_steps() {
        let told = |steps: u32, partials: u8| {
            let mut sent = 0;
            let due = |step: &u32| {
                let due = sent < partials && is_due(f64::from(*step) / f64::from(steps), sent, partials);
                sent += u8::from(due);
                due
            };
            (0..=steps).filter(due).collect::<Vec<_>>()
        };
        assert_eq!(told(30, 1), [15]);
        assert_eq!(told(30, 2), [10, 20]);
        assert_eq!(told(30, 3), [8, 15, 23]);
        assert_eq!(told(4, 3), [1, 2, 3]);
        assert_eq!(told(2, 3), [1, 2], "fewer previews than asked for are fewer partials");
        assert_eq!(told(30, 0), [0; 0]);
    }
}
