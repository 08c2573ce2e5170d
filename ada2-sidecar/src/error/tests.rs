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

/// One of every kind on our own paths.
fn every_error() -> Vec<ApiError> {
    use service::client_info::ForwardingError;

    let text = || "x".to_owned();
    let field = |param: &str| ApiError::Field(FieldError::new(param, "x"));
    let mut errors = vec![
        ApiError::Guard(GuardError::InvalidHost),
        ApiError::Guard(GuardError::HostNotAllowed(text())),
        ApiError::Guard(GuardError::OriginNotAllowed(text())),
        ApiError::Address(AddressError::NotAllowed),
        ApiError::Address(AddressError::Uncertain(ForwardingError::UntrustedPeer)),
        ApiError::Unauthenticated,
        field("size"),
        field("n"),
        ApiError::Field(FieldError { param: None, message: text() }),
        ApiError::Model(choice::ModelChoiceError::NoDefault {
            task: crate::images::Task::Generate,
            available: vec![text()],
        }),
        ApiError::Model(choice::ModelChoiceError::NotFound {
            requested: text(),
            alias: None,
            available: vec![],
        }),
        ApiError::NotReady(NotReady(text())),
        ApiError::Busy { limit: 1 },
        ApiError::EngineBusy { waiting: 1 },
        ApiError::Timeout(Duration::from_secs(1)),
        ApiError::UploadTimeout(Duration::from_secs(1)),
        ApiError::UnknownPath(None),
        ApiError::CheckNotFound { known_checks: text() },
        ApiError::ImageNotFound,
        ApiError::Query(SmiQueryError::Format(text())),
        ApiError::NoGpuReading(text()),
        ApiError::MethodNotAllowed,
        ApiError::Internal,
    ];
    let body = [
        BodyError::Encoded,
        BodyError::TooLarge(1),
        BodyError::BudgetExhausted,
        BodyError::CallerBudgetExhausted,
        BodyError::Stalled,
        BodyError::TooSlow,
        BodyError::ReadFailed,
    ];
    errors.extend(body.map(ApiError::Body));
    let engine = [
        EngineError::ConnectionRefused(text()),
        EngineError::Failed(text()),
        EngineError::OutOfMemory(text()),
        EngineError::QueueFull,
        EngineError::Cancelled,
    ];
    errors.extend(engine.map(ApiError::Engine));
    errors
}

#[test]
fn the_reference_has_every_error() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    let responses = every_error().into_iter().map(ApiError::error_response).collect::<Vec<_>>();
    fakes::reference::check_errors(&page, &responses);
}
