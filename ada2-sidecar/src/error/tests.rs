//! How failures look from outside.

use super::*;

#[test]
fn an_interrupted_job_is_answered_as_a_failed_one_is() {
    let face = |error| {
        let ErrorResponse { status, code, message, retry_after, no_retry: final_, .. } =
            ApiError::Engine(error).error_response();
        (status, code, message, retry_after, final_)
    };
    let words = || "the job was interrupted in ComfyUI".to_owned();
    let failed = face(EngineError::Failed(words()));
    assert_eq!(failed.0, StatusCode::BAD_GATEWAY);
    assert_eq!(face(EngineError::Interrupted(words())), failed);
}

#[test]
fn a_sentence_ends_once() {
    let out_of_memory = EngineError::OutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB.".into());
    for error in [EngineError::Failed("DistanceTooFarBack.".into()), out_of_memory] {
        let message = ApiError::Engine(error).error_response().message;
        assert!(message.ends_with('.') && !message.ends_with(".."), "{message}");
    }
}
