//! What the sidecar does in front of any engine: one suite that runs over every fake. What only one engine has is in
//! `invokeai.rs` and `comfyui.rs`.

mod edits;
mod images;
mod jobs;
mod readiness;
mod streams;

pub(crate) use jobs::disconnect_when;
pub(crate) use readiness::{refused, text, until_warning};
pub(crate) use streams::{assert_two_previews_and_the_image, format_of, stream};

use e2e::sidecar::Sidecar;
use fakes::engine::{EngineJob, Fake, FakeEngine, JobState};
use serde_json::{Value, json};

/// One test for each behaviour and engine.
macro_rules! for_every_engine {
    ($($module:ident: $($behaviour:ident),+;)+) => {
        for_every_engine!(@invokeai InvokeState: $($module: $($behaviour),+;)+);
        for_every_engine!(@comfyui ComfyState: $($module: $($behaviour),+;)+);
    };
    (@$engine:ident $state:ident: $($module:ident: $($behaviour:ident),+;)+) => {
        mod $engine {
            $(mod $module {
                use fakes::$engine::$state;

                $(#[tokio::test]
                async fn $behaviour() {
                    crate::engine_behaviour::$module::$behaviour::<$state>().await;
                })+
            })+
        }
    };
}

for_every_engine! {
    images: seeds_count_up_and_the_same_seed_gives_the_same_image,
        a_submission_shares_its_connection_with_no_other_request,
        a_failed_job_is_reported_in_the_engines_words_and_the_rest_is_cancelled,
        running_out_of_memory_frees_the_engines_memory,
        half_an_image_or_a_web_page_is_no_image,
        a_completion_event_that_never_comes_is_made_up_for,
        concurrent_requests_get_their_own_images;
    edits: a_mask_keeps_what_is_not_transparent_to_the_byte,
        an_image_alone_is_kept_as_far_as_strength_says;
    streams: previews_arrive_as_the_engine_makes_them_and_then_the_image,
        a_failure_in_mid_stream_is_an_event_that_sdks_raise,
        a_stream_that_takes_too_long_ends_with_an_error_and_cancels_its_job,
        a_client_that_disconnects_from_its_stream_cancels_its_job;
    jobs: a_client_that_disconnects_cancels_its_own_job_and_no_other,
        a_waiting_job_leaves_the_queue_and_the_running_one_goes_on,
        the_slot_is_held_until_the_engine_has_stopped_a_cancelled_job,
        a_request_that_takes_too_long_is_answered_in_time_and_its_job_cancelled,
        a_job_whose_answer_was_lost_is_found_and_cancelled,
        jobs_of_an_earlier_process_are_cancelled_before_readiness,
        an_engine_killed_in_mid_job_ends_the_request_and_frees_the_slot,
        jobs_run_in_the_order_of_their_requests,
        draining_finishes_running_jobs_and_admits_none,
        a_request_on_a_connection_from_before_the_drain_is_served,
        jobs_that_outlast_the_shutdown_grace_are_cancelled_in_the_engine;
    readiness: an_engine_that_is_not_there_yet_is_waited_for,
        an_engine_that_hangs_is_distinguished_from_one_that_is_gone,
        another_program_on_the_port_is_not_the_engine;
}

/// A ready sidecar that follows the events of a fake engine.
pub(crate) async fn start<E: FakeEngine>(prepare: impl FnOnce(&mut E), flags: &[&str]) -> (Fake<E>, Sidecar) {
    let engine = Fake::start().await;
    engine.change(prepare);
    let sidecar = Sidecar::of(&engine, flags).await;
    sidecar.until_ready().await;
    if E::HAS_EVENTS {
        engine.until_followed(1).await;
    }
    (engine, sidecar)
}

pub(crate) fn request() -> Value {
    json!({"prompt": "a", "size": "64x64", "steps": 2})
}

/// Some job of ours is there.
pub(crate) fn ours_is(state: JobState) -> impl Fn(&[EngineJob]) -> bool {
    move |jobs| jobs.iter().any(|job| job.is_ours() && job.state == state)
}
