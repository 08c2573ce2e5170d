use super::*;

#[test]
fn an_interrupted_job_is_answered_as_a_failed_one_is() {
    let response = |error| ApiError::Engine(error).error_response();
    let message = || "the job was interrupted in ComfyUI".to_owned();
    let failed = response(EngineError::Failed(message()));
    assert_eq!(failed.status, StatusCode::BAD_GATEWAY);
    assert_eq!(response(EngineError::Interrupted(message())), failed);
}

#[test]
fn a_sentence_ends_once() {
    let out_of_memory = EngineError::OutOfMemory("CUDA out of memory. Tried to allocate 2.00 GiB.".into());
    for error in [EngineError::Failed("DistanceTooFarBack.".into()), out_of_memory] {
        let response = ApiError::Engine(error).error_response();
        let message = response.message();
        assert!(message.ends_with('.') && !message.ends_with(".."), "{message}");
    }
}
