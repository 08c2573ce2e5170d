use serde_json::{Value, json};
use service::client_info::ForwardingError;
use wire::openai::{error::ErrorEnvelope, fields::FieldError};

use super::*;
use crate::{
    backend::UpstreamError, client::connect_error::ConnectError, config::Capability, store::ImageName,
};

fn upstream(status: u16, body: Value, retry_after: Option<u64>, should_retry: Option<bool>) -> ApiError {
    let status = StatusCode::from_u16(status).unwrap();
    ApiError::Backend(
        "c".into(),
        BackendError::Upstream(UpstreamError { status, body, retry_after, should_retry }),
    )
}

fn status(status: u16, message: Option<&str>) -> ApiError {
    let status = StatusCode::from_u16(status).unwrap();
    ApiError::Backend(
        "c".into(),
        BackendError::Status { status, message: message.map(str::to_owned), retry_after: None },
    )
}

fn incapable() -> ApiError {
    let supported = vec!["chat".to_owned()];
    ApiError::Denied(RoutingError::UnsupportedCapability {
        class: "c".to_owned(),
        capability: Capability::Images,
        supported,
    })
}

fn every_error() -> Vec<ApiError> {
    let class = || "c".to_owned();
    let backend = |error| ApiError::Backend(class(), error);
    let upstream_error = |code| json!({"message": "m", "type": "t", "code": code});
    vec![
        ApiError::Guard(GuardError::InvalidHost),
        ApiError::Guard(GuardError::HostNotAllowed("evil.example".into())),
        ApiError::Guard(GuardError::OriginNotAllowed("https://evil.example".into())),
        ApiError::Address(AddressError::NotAllowed),
        ApiError::Address(AddressError::Uncertain(ForwardingError::UntrustedPeer)),
        ApiError::Address(AddressError::Uncertain(ForwardingError::Malformed)),
        ApiError::Address(AddressError::Uncertain(ForwardingError::Conflicting)),
        ApiError::Unauthenticated,
        ApiError::Body(BodyError::Encoded),
        ApiError::Body(BodyError::TooLarge(7)),
        ApiError::Body(BodyError::BudgetExhausted),
        ApiError::Body(BodyError::CallerBudgetExhausted),
        ApiError::Body(BodyError::Stalled),
        ApiError::Body(BodyError::TooSlow),
        ApiError::Body(BodyError::ReadFailed),
        ApiError::Malformed(Malformed::Field(FieldError::new("n", "n must be 1."))),
        ApiError::Malformed(Malformed::Field(FieldError { param: None, message: "no JSON".into() })),
        ApiError::Malformed(Malformed::Size("too large".into())),
        ApiError::Cancelled,
        ApiError::UnknownModel("x".into()),
        ApiError::Denied(RoutingError::UnknownBackend { name: "x".into(), configured: vec![class()] }),
        ApiError::Denied(RoutingError::NoImageBackend { class: class() }),
        incapable(),
        ApiError::Denied(RoutingError::NoCapableBackend(Capability::Chat)),
        ApiError::Denied(RoutingError::Base64Disabled { class: class() }),
        ApiError::Denied(RoutingError::StreamingDisabled { class: class() }),
        ApiError::NotReady(NotReady { class: class(), error: "vram_headroom: too little".into() }),
        ApiError::Busy(Busy::Backend { class: class(), capability: Capability::Images }),
        ApiError::Busy(Busy::Token { name: "alice".to_owned(), limit: 1 }),
        ApiError::Busy(Busy::Streams { token: Some("alice".to_owned()), limit: 16 }),
        ApiError::Busy(Busy::Streams { token: None, limit: 64 }),
        backend(BackendError::NotConnected(ConnectError::Refused)),
        backend(BackendError::NotConnected(ConnectError::NoLocalRoute)),
        backend(BackendError::Unreachable("no connection in time".into())),
        backend(BackendError::UpstreamNotReady { message: "paused".into(), retry_after: Some(9) }),
        backend(BackendError::TimedOut),
        backend(BackendError::Broken("reset".into())),
        backend(BackendError::Unusable("no image".into())),
        backend(BackendError::Failed("the job failed".into())),
        upstream(503, json!({"error": upstream_error("gpu_out_of_memory")}), Some(9), None),
        upstream(429, json!({"error": upstream_error("backend_overloaded")}), None, None),
        upstream(502, json!({"error": upstream_error("x"), "detail": "d"}), None, Some(true)),
        status(301, None),
        status(401, None),
        status(404, Some("no such model")),
        status(429, None),
        status(500, Some("trace")),
        status(503, None),
        ApiError::Store(StoreError::Full),
        ApiError::StoreNotReady(StoreError::InsufficientSpace { free: 1 << 20, needed: 64 << 20 }),
        ApiError::Store(StoreError::Collision(ImageName::parse("1_0123456789abcdef.png").unwrap())),
        ApiError::Store(StoreError::Io(std::io::Error::other("/secret/path"))),
        ApiError::ThumbnailsBusy,
        ApiError::NotFound,
        ApiError::UnknownPath(None),
        ApiError::UnknownPath(Some("/v1/models")),
        ApiError::MethodNotAllowed,
        ApiError::Internal,
    ]
}

#[test]
fn a_missing_descriptor_names_the_limit_and_no_backend() {
    for error in [
        ApiError::StoreNotReady(StoreError::TooManyOpenFiles),
        ApiError::Backend("c".into(), BackendError::NoDescriptor),
    ] {
        let answer = error.to_response(Some("images"), Some("c"));
        assert_eq!(answer.status().as_u16(), 503);
        assert_eq!(
            (&answer.headers()["retry-after"], &answer.headers()["x-should-retry"]),
            (&"5".parse().unwrap(), &"false".parse().unwrap())
        );
        let message = error.error_response().body["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("ulimit -n") && message.contains("NumberOfFiles"), "{message}");
    }
}

fn row(error: &ApiError) -> String {
    let response = error.error_response();
    let body: ErrorEnvelope = serde_json::from_value(response.body).expect("every failure is one envelope");
    assert_eq!(body.detail.is_empty(), body.error.message.is_empty());
    let after = response.retry_after.map_or(String::new(), |after| format!(" after {after}"));
    let retry = response.should_retry.map_or(String::new(), |retry| format!(" retry {retry}"));
    format!("{} {}{after}{retry}: {}", response.status.as_u16(), body.error.code.unwrap(), body.error.message)
}

#[test]
fn every_error_has_a_documented_response() {
    let rows: Vec<String> = every_error().iter().map(row).collect();
    insta::assert_snapshot!(rows.join("\n"), @r#"
    400 host_not_allowed: The request must have exactly one valid Host header.
    421 host_not_allowed: This server does not serve the host name "evil.example". If the name is yours, add it to GATEWAY_ALLOWED_HOSTS.
    403 cross_origin: Web pages of "https://evil.example" may not use this server. If the page is yours, add its origin to GATEWAY_ALLOWED_ORIGINS.
    403 ip_not_allowed: Your address is not in IP_ALLOWLIST or UI_IP_ALLOWLIST.
    403 ip_not_allowed: The request has a forwarding header (X-Forwarded-For, Forwarded or X-Real-IP), but its peer is not a trusted proxy. If it is your proxy, add its address to TRUST_PROXY_CIDRS.
    403 ip_not_allowed: The proxy's forwarding header (X-Forwarded-For, Forwarded, X-Real-IP or X-Forwarded-Host) is malformed or hides the client's address. Configure the proxy to send IP addresses.
    403 ip_not_allowed: The proxy's forwarding headers (X-Forwarded-For, Forwarded, X-Real-IP, X-Forwarded-Host) contradict each other. Configure the proxy to send only one of them, or to overwrite those from the client.
    401 invalid_api_key: A valid token is required: send `Authorization: Bearer TOKEN`.
    415 encoded_body: The request body must not be compressed (Content-Encoding).
    413 request_too_large: The request body is larger than 7 bytes (MAX_REQUEST_BYTES).
    429 backend_overloaded after 5: Too many request bodies are held in memory; try again in a few seconds.
    429 backend_overloaded after 5: Your other requests already use half of the memory for request bodies; send fewer at a time.
    408 request_timeout retry false: The request body stopped arriving.
    408 request_timeout retry false: The request body did not arrive completely within 5 minutes.
    400 invalid_body: The request body ended early or is malformed.
    400 invalid_value: n must be 1.
    400 invalid_body: no JSON
    400 invalid_size: too large
    409 cancelled retry false: The image request was cancelled by its owner (DELETE /v1/gateway/jobs/{request_id}); send it again if the image is still wanted
    404 model_not_found: No ready backend lists the model "x"; GET /v1/models shows the available ones
    400 backend_not_found: There is no backend "x"; there are: c
    400 backend_not_found: Backend c is not configured: the gateway's operator sets its base_url in backends_config.yaml (or IMAGES_HTTP_BASE_URL), or another class in IMAGES_BACKEND_CLASS
    400 capability_not_supported: Backend c does not support images
    400 capability_not_supported: No backend supports chat
    400 invalid_value: Backend c returns URLs only: response_format must be "url"
    400 invalid_value: Backend c returns URLs only, and streams carry base64: stream must be false
    503 backend_not_ready after 30 retry false: Backend c is not ready to accept requests: vram_headroom: too little
    429 backend_overloaded after 5: Backend c is at capacity for images requests
    429 backend_overloaded after 5: Token alice is at its limit of 1 request at once
    429 too_many_streams after 5: Token alice has 16 event streams open, and may have no more; close a page that shows them
    429 too_many_streams after 5: 64 event streams are open, and there may be no more; close a page that shows them
    503 backend_not_ready after 30 retry false: Backend c is not ready to accept requests: connection refused
    503 backend_not_ready after 30 retry false: Backend c is not ready to accept requests: no route to host: it is off or at another address; or, on macOS, Local Network Privacy blocks it: run the gateway as a LaunchDaemon, or allow it in System Settings > Privacy & Security > Local Network
    503 backend_not_ready after 30 retry false: Backend c is not ready to accept requests: no connection in time
    503 backend_not_ready after 9 retry false: Backend c is not ready to accept requests: paused
    504 backend_timeout retry false: Backend c did not answer in time
    502 backend_error retry false: Backend c closed the connection early
    502 backend_error retry false: Backend c returned an invalid response: no image
    502 backend_error retry false: Backend c failed: the job failed
    503 gpu_out_of_memory after 9 retry false: m
    429 backend_overloaded after 5: m
    502 x retry true: m
    502 backend_error retry false: Backend c answered 301
    502 backend_error retry false: Backend c rejected the gateway's credential
    404 backend_error retry false: Backend c answered 404: no such model
    429 backend_overloaded after 5: Backend c answered 429
    502 backend_error retry false: Backend c answered 500
    503 backend_error retry false: Backend c answered 503
    507 storage_full retry false: The image store's disk is full
    507 storage_full retry false: The image store has no room: only 1024 KiB are free on its disk, at least 65536 KiB are required: free some space, or limit the store (UI_IMAGE_STORE_MAX_BYTES)
    500 internal_error retry false: The image could not be stored
    500 internal_error retry false: The image could not be stored: other error; check the disk and the permissions of UI_IMAGE_DIR
    503 gateway_overloaded after 1 retry false: Too many thumbnails are being made: ask again in a second
    404 not_found: There is nothing at this path.
    404 not_found: There is nothing at this path.
    404 not_found: There is nothing at this path. Did you mean /v1/models?
    405 method_not_allowed: This path does not support this method; see the Allow header.
    500 internal_error retry false: Internal error; the log has the cause under this request ID.
    "#);
}

#[test]
fn a_server_error_never_invites_a_repeat_of_gpu_work() {
    for error in every_error() {
        let response = error.error_response();
        if response.status.is_server_error() {
            assert!(response.should_retry.is_some(), "{error:?}");
        }
        assert!(response.retry_after.is_none_or(|after| (1..=55).contains(&after)), "{error:?}");
    }
}

#[test]
fn causes_and_paths_stay_inside() {
    for error in every_error() {
        let body = error.error_response().body.to_string();
        for secret in ["/secret", "reset", "trace"] {
            assert!(!body.contains(secret), "{body}");
        }
    }
}

#[test]
fn a_backends_own_envelope_is_kept_and_completed() {
    let error = json!({"message": "m", "type": "t", "code": "engine_error", "extra": 1});
    let answer = upstream(502, json!({ "error": error }), None, None).error_response();
    assert_eq!(
        answer.body,
        json!({"error": {"message": "m", "type": "t", "param": null, "code": "engine_error", "extra": 1}, "detail": "m"})
    );
    let response =
        upstream(502, json!({ "error": error }), None, None).to_response(Some("images"), Some("gpu_heavy"));
    assert_eq!(response.headers()["x-should-retry"], "false");
}

#[test]
fn the_event_is_what_sdks_raise_for() {
    let error = ApiError::Backend("gpu_heavy".to_owned(), BackendError::TimedOut);
    let StreamError { event, status, .. } = error.to_stream_error("images", "gpu_heavy");
    assert_eq!(status, 504);
    let event = String::from_utf8(event.to_vec()).unwrap();
    let data = event.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    let expected = json!({"type": "error", "error": {
        "message": "Backend gpu_heavy did not answer in time", "type": "server_error", "param": null,
        "code": "backend_timeout", "route_kind": "images", "backend_class": "gpu_heavy"}});
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), expected);
}

#[test]
fn the_reference_has_every_error() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("REFERENCE.md");
    // A backend's own error passes as it is. The accept loop refuses plain HTTP on a TLS port.
    let is_ours = |error: &ApiError| {
        !matches!(
            error,
            ApiError::Backend(_, BackendError::Upstream(_) | BackendError::UpstreamNotReady { .. })
        )
    };
    let https = ErrorResponse::new(StatusCode::BAD_REQUEST, ErrorCode::HttpsRequired, "");
    let errors = every_error().into_iter().chain([ApiError::StoreNotReady(StoreError::TooManyOpenFiles)]);
    let responses =
        errors.filter(is_ours).map(|error| error.error_response()).chain([https]).collect::<Vec<_>>();
    fakes::reference::check_errors(&page, &responses);
}
