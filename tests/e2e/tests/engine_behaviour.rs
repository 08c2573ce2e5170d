//! What the sidecar does in front of any engine: one suite that runs over every fake. What only one engine has is in
//! `invokeai.rs` and `comfyui.rs`.

mod edits;
mod finishing;
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
        a_failed_job_is_reported_with_the_engines_message_and_the_rest_is_cancelled,
        running_out_of_memory_frees_the_engines_memory,
        a_truncated_image_or_a_web_page_is_refused,
        a_missing_completion_event_is_recovered_from,
        concurrent_requests_get_their_own_images;
    edits: opaque_mask_pixels_keep_the_source_byte_for_byte,
        without_a_mask_strength_decides_how_much_of_the_image_stays;
    streams: previews_arrive_as_the_engine_makes_them_and_then_the_image,
        a_failure_in_mid_stream_is_an_event_that_sdks_raise,
        a_stream_timeout_is_an_error_event_and_cancels_its_job,
        a_client_that_disconnects_from_its_stream_cancels_its_job;
    jobs: a_client_that_disconnects_cancels_its_own_job_and_no_other,
        cancelling_a_waiting_job_leaves_the_running_one_alone,
        the_slot_is_held_until_the_engine_has_stopped_a_cancelled_job,
        a_request_timeout_is_answered_in_time_and_cancels_its_job,
        a_job_whose_answer_was_lost_is_found_and_cancelled,
        jobs_of_an_earlier_process_are_cancelled_before_readiness,
        an_engine_killed_in_mid_job_ends_the_request_and_frees_the_slot,
        jobs_run_in_request_order,
        draining_finishes_running_jobs_and_admits_none,
        a_request_on_a_connection_from_before_the_drain_is_served,
        jobs_that_outlast_the_shutdown_grace_are_cancelled_in_the_engine;
    finishing: a_job_that_is_to_finish_outlives_its_client,
        a_client_that_is_to_get_a_finished_job_gets_it,
        a_job_without_a_client_ends_at_its_time_limit,
        draining_finishes_a_job_without_a_client,
        a_job_without_a_client_that_outlasts_the_shutdown_grace_is_cancelled_in_the_engine;
    readiness: readiness_waits_for_an_engine_that_has_not_started,
        a_hanging_engine_is_distinguished_from_a_stopped_one,
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
