//! The response as a stream of server-sent events, exactly as OpenAI's: previews as they come, then the image. An error
//! after the stream has begun is an event, because the status has been sent. Dropping the stream cancels the job, unless the client wants it to go on: then it is read to its end.

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
use service::{clock::unix_now, expiring::Expiring, lifecycle::Lifecycle, on_disconnect::OnDisconnect};
use tokio::{sync::watch, time::Instant};
use wire::openai::images::Usage;

use super::response::{ImageResponder, encode_base64, image_size};
use crate::{
    engine::{EngineError, JobProgress, Preview},
    error::ApiError,
    image_codec::upright_size,
    images::ImageRoute,
    jobs::{FinishFn, JobHandle},
};

/// Interval of comment lines while no event is due, so that no proxy times the stream out.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// nginx would buffer the events.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Builds the last event, which carries the image.
pub(super) fn final_event(responder: ImageResponder, route: ImageRoute) -> FinishFn<Event> {
    Box::new(move |mut images, job, cancel| {
        let missing = || EngineError::Failed("the engine returned no image".to_owned());
        let image = responder.encode_image(images.pop().ok_or_else(missing)?, cancel)?;
        let mut body = event_fields(&responder, route, "completed");
        let size = image_size(&image)?;
        body["size"] = json!(size.to_string());
        body["settings"] = json!(job.settings(image.seed, Some(size)));
        body["b64_json"] = json!(encode_base64(&image.bytes));
        body["seed"] = json!(image.seed);
        body["usage"] = json!(Usage::default());
        if !job.ignored.is_empty() {
            body["ignored"] = json!(job.ignored);
        }
        Ok(sse_event(&body))
    })
}

/// A job and the events sent for it: up to `partial_images` previews, spread over its steps, then the image; its progress as
/// comments in between.
pub(super) struct JobStream {
    job: JobHandle<Event>,
    progress: watch::Receiver<JobProgress>,
    responder: ImageResponder,
    route: ImageRoute,
    partial_images: u8,
    partials_sent: u8,
    /// The last comment that was sent.
    last_comment: String,
    deadline: Instant,
    time_limit: Duration,
    ended: bool,
}

impl JobStream {
    pub(super) fn new(
        job: JobHandle<Event>,
        responder: ImageResponder,
        route: ImageRoute,
        partial_images: u8,
        (deadline, time_limit): (Instant, Duration),
    ) -> Self {
        Self {
            progress: job.progress(),
            job,
            responder,
            route,
            partial_images,
            partials_sent: 0,
            last_comment: String::new(),
            deadline,
            time_limit,
            ended: false,
        }
    }

    pub(super) fn into_response(
        self,
        on_disconnect: OnDisconnect,
        lifecycle: &Lifecycle,
        request_id: &str,
    ) -> Response {
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("at work");
        let events = on_disconnect.stream(lifecycle, request_id, self.into_events(lifecycle));
        ([NO_BUFFERING], Sse::new(events).keep_alive(keep_alive)).into_response()
    }

    /// Expiring drops the job at the deadline even if the client has stopped reading.
    fn into_events(self, lifecycle: &Lifecycle) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        let (deadline, time_limit) = (self.deadline, self.time_limit);
        let expiring = Expiring::new(self, deadline, lifecycle);
        unfold(Some((expiring, time_limit)), async |state| {
            let (expiring, time_limit) = state?;
            let Some(mut stream) = expiring.take() else {
                return Some((Ok(error_event(ApiError::Timeout(time_limit))), None));
            };
            let event = stream.next_event().await;
            if stream.ended {
                return Some((Ok(event), None));
            }
            expiring.put_back(stream);
            Some((Ok(event), Some((expiring, time_limit))))
        })
    }

    async fn next_event(&mut self) -> Event {
        loop {
            let outcome = tokio::select! {
                outcome = self.job.wait() => outcome.map_err(ApiError::from),
                Ok(()) = self.progress.changed() => match self.progress_event() {
                    Some(event) => return event,
                    None => continue,
                },
                () = tokio::time::sleep_until(self.deadline) => Err(ApiError::Timeout(self.time_limit)),
            };
            self.ended = true;
            return outcome.unwrap_or_else(error_event);
        }
    }

    /// A preview if one is due, else a comment if the progress has changed by a hundredth.
    fn progress_event(&mut self) -> Option<Event> {
        let progress = self.progress.borrow_and_update().clone();
        if is_due(progress.fraction, self.partials_sent, self.partial_images)
            && let Some(preview) = progress.preview
        {
            return Some(self.partial_event(&preview));
        }
        let comment = format!("progress {:.2}", progress.fraction);
        if comment == self.last_comment {
            return None;
        }
        self.last_comment.clone_from(&comment);
        Some(Event::default().comment(comment))
    }

    fn partial_event(&mut self, preview: &Preview) -> Event {
        let mut body = event_fields(&self.responder, self.route, "partial_image");
        if self.responder.size.is_none() {
            body["size"] = json!(upright_size("image", &preview.bytes).ok().map(|size| size.to_string()));
        }
        body["b64_json"] = json!(encode_base64(&preview.bytes));
        body["output_format"] = json!(preview.format.name());
        body["partial_image_index"] = json!(self.partials_sent);
        self.partials_sent += 1;
        sse_event(&body)
    }
}

/// Fields common to all events. Always resolved values, never `auto`.
fn event_fields(responder: &ImageResponder, route: ImageRoute, event: &str) -> Value {
    let prefix = match route {
        ImageRoute::Generations => "image_generation",
        ImageRoute::Edits => "image_edit",
    };
    json!({"type": format!("{prefix}.{event}"), "created_at": unix_now(), "size": responder.size.map(|size| size.to_string()),
        "quality": responder.quality, "background": "opaque", "output_format": responder.format_name()})
}

/// The first of two partials is due at a third of the work, the second at two thirds.
fn is_due(fraction: f64, sent: u8, partials: u8) -> bool {
    sent < partials && fraction >= f64::from(sent + 1) / f64::from(partials + 1)
}

fn error_event(error: ApiError) -> Event {
    let error = error.error_object();
    // SDKs raise on the object inside, and on nothing else.
    sse_event(&json!({"type": "error", "error": error}))
}

fn sse_event(body: &Value) -> Event {
    Event::default().event(body["type"].as_str().unwrap_or_default()).data(body.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;
    use crate::{
        engine::Engine,
        images::{
            Job,
            choice::ModelChoice,
            models::{EngineModel, SD_1},
        },
        jobs::{JobSpec, Jobs},
        metrics::Metrics,
    };

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_holds_no_slot_past_the_time_limit() {
        let lifecycle = Lifecycle::new();
        let jobs = Jobs::new(Engine::builtin(), 1, lifecycle.clone(), Metrics::default());
        let model = Some(EngineModel::in_process("k", "n", &SD_1));
        let choice = ModelChoice { name: "n".into(), model, preset: None, loras: std::sync::Arc::default() };
        let job = Job { steps: Some(150), previews: true, ..Job::warm_up(choice) }; // 3 s
        let spec = JobSpec {
            job,
            decode: None,
            finish: final_event(ImageResponder::for_tests(), ImageRoute::Generations),
        };
        let handle = jobs.start(spec, jobs.slots().try_acquire().unwrap(), "r".into());
        let time_limit = Duration::from_secs(1);
        let deadline = (Instant::now() + time_limit, time_limit);
        let responder = ImageResponder::for_tests();
        let stream = JobStream::new(handle, responder, ImageRoute::Generations, 30, deadline);
        let mut events = Box::pin(stream.into_events(&lifecycle));
        assert!(format!("{:?}", events.next().await).contains(": progress 0.01"));
        while format!("{:?}", events.next().await).contains(": progress 0.0") {}
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(jobs.slots().available(), 1);
        assert!(format!("{:?}", events.next().await).contains("engine_timeout"), "the last event says why");
        assert!(events.next().await.is_none());
    }

    #[test]
    fn partials_are_spread_over_the_steps() {
        let partial_steps = |steps: u32, partials: u8| {
            let mut sent = 0;
            let due = |step: &u32| {
                let due = is_due(f64::from(*step) / f64::from(steps), sent, partials);
                sent += u8::from(due);
                due
            };
            (0..=steps).filter(due).collect::<Vec<_>>()
        };
        assert_eq!(partial_steps(30, 1), [15]);
        assert_eq!(partial_steps(30, 2), [10, 20]);
        assert_eq!(partial_steps(30, 3), [8, 15, 23]);
        assert_eq!(partial_steps(4, 3), [1, 2, 3]);
        assert_eq!(partial_steps(2, 3), [1, 2], "fewer previews than requested give fewer partials");
        assert_eq!(partial_steps(30, 0), [0; 0]);
    }
}
