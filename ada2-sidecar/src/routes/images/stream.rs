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
use service::{lifecycle::Lifecycle, limited::Limited};
use tokio::{sync::watch, time::Instant};
use wire::openai::images::Usage;

use super::render::{Answer, base64, picture_size, unix_now};
use crate::{
    engine::{EngineError, Preview, Progress},
    error::ApiError,
    images::Route,
    jobs::{Finish, JobHandle},
    pictures::size_of,
};

/// Comments while nothing else is said, so that no proxy takes the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// nginx would hold the events back.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Makes the last event, with the picture.
pub(super) fn finish(answer: Answer, route: Route) -> Finish<Event> {
    Box::new(move |mut pictures, job, cancel| {
        let missing = || EngineError::Failed("the engine made no picture".to_owned());
        let picture = answer.finished(pictures.pop().ok_or_else(missing)?, cancel)?;
        let mut body = common(&answer, route, "completed");
        body["size"] = json!(picture_size(&picture)?.to_string());
        body["b64_json"] = json!(base64(&picture.bytes));
        body["seed"] = json!(picture.seed);
        body["usage"] = json!(Usage::default());
        if !job.ignored.is_empty() {
            body["ignored"] = json!(job.ignored);
        }
        Ok(event(&body))
    })
}

/// Streams the job: up to `partials` previews, spread over its steps, then the picture.
pub(super) fn answer(
    handle: JobHandle<Event>,
    answer: Answer,
    route: Route,
    partials: u8,
    (deadline, time): (Instant, Duration),
    lifecycle: &Lifecycle,
) -> Response {
    let progress = handle.progress();
    let watched =
        Watched { handle, progress, answer, route, partials, sent: 0, deadline, time, ended: false };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("at work");
    ([UNBUFFERED], Sse::new(watched.events(lifecycle)).keep_alive(keep_alive)).into_response()
}

/// A job, and what was told of it.
struct Watched {
    handle: JobHandle<Event>,
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
    /// A caller who takes none of them is waited for no longer than the request may take.
    fn events(self, lifecycle: &Lifecycle) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        let (deadline, time) = (self.deadline, self.time);
        let limited = Limited::new(self, deadline, lifecycle);
        unfold(Some((limited, time)), async |limited| {
            let (limited, time) = limited?;
            let Some(mut watched) = limited.take() else {
                return Some((Ok(failed(ApiError::TooSlow(time))), None));
            };
            let event = watched.next().await;
            if watched.ended {
                return Some((Ok(event), None));
            }
            limited.put(watched);
            Some((Ok(event), Some((limited, time))))
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
            return outcome.unwrap_or_else(failed);
        }
    }

    fn partial(&mut self, preview: &Preview) -> Event {
        let mut body = common(&self.answer, self.route, "partial_image");
        if self.answer.size.is_none() {
            body["size"] = json!(size_of("image", &preview.bytes).ok().map(|size| size.to_string()));
        }
        body["b64_json"] = json!(base64(&preview.bytes));
        body["output_format"] = json!(preview.format.name());
        body["partial_image_index"] = json!(self.sent);
        self.sent += 1;
        event(&body)
    }
}

/// What both kinds of events say. Always resolved values, never `auto`.
fn common(answer: &Answer, route: Route, what: &str) -> Value {
    let prefix = match route {
        Route::Generations => "image_generation",
        Route::Edits => "image_edit",
    };
    json!({"type": format!("{prefix}.{what}"), "created_at": unix_now(), "size": answer.size.map(|size| size.to_string()),
        "quality": answer.quality, "background": "opaque", "output_format": answer.format()})
}

/// The first of two partials is due at a third of the work, the second at two thirds.
fn is_due(fraction: f64, sent: u8, partials: u8) -> bool {
    fraction >= f64::from(sent + 1) / f64::from(partials + 1)
}

fn failed(error: ApiError) -> Event {
    let error = error.envelope().error;
    // SDKs raise on the object inside, and on nothing else.
    event(&json!({"type": "error", "error": error}))
}

fn event(body: &Value) -> Event {
    Event::default().event(body["type"].as_str().unwrap_or_default()).data(body.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::{
        engine::{Engine, builtin::Builtin},
        images::{
            Job,
            choice::Choice,
            models::{Base, EngineModel},
        },
        jobs::{Jobs, Work},
        metrics::Metrics,
    };

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_takes_nothing_keeps_no_slot_past_the_time_limit() {
        let lifecycle = Lifecycle::new();
        let jobs = Jobs::new(Engine::Builtin(Builtin), 1, lifecycle.clone(), Metrics::default());
        let model = Some(EngineModel::plain("k", "n", Base::Sd1));
        let choice = Choice { name: "n".into(), model, preset: None };
        let job = Job { steps: Some(150), previews: true, ..Job::warm_up(choice) }; // 3 s
        let work = Work { job, prepare: None, finish: finish(Answer::plain(), Route::Generations) };
        let handle = jobs.start(work, jobs.slots().try_enter().unwrap(), "r".into());
        let time = Duration::from_secs(1);
        let watched = Watched {
            progress: handle.progress(),
            handle,
            answer: Answer::plain(),
            route: Route::Generations,
            partials: 30,
            sent: 0,
            deadline: Instant::now() + time,
            time,
            ended: false,
        };
        let mut events = Box::pin(watched.events(&lifecycle));
        assert!(format!("{:?}", events.next().await).contains("partial_image"));
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(jobs.slots().available(), 1);
        assert!(format!("{:?}", events.next().await).contains("engine_timeout"), "it is told why");
        assert!(events.next().await.is_none());
    }

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
