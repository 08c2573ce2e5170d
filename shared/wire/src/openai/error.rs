//! The error envelope and all error codes. The status of each is in `service::error_response` and the programs' `error.rs`.
//! A new code is a change of the API.

use serde::{Deserialize, Serialize};

/// `{"error":{…},"detail":"…"}`: `error` as the OpenAI SDKs read it, `detail` for clients of FastAPI services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorObject,
    /// The message again.
    #[serde(default)]
    pub detail: String,
}

/// The inner object. `message`, `type`, `param` and `code` are always present, as the SDKs' types demand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorObject {
    /// What failed, why, and what to do.
    pub message: String,
    /// For example `invalid_request_error`.
    #[serde(rename = "type")]
    pub error_type: String,
    /// The invalid field of the request.
    pub param: Option<String>,
    /// The stable name of the error.
    pub code: Option<String>,
    /// The chosen backend class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_class: Option<String>,
    /// `images`, `chat`, `embeddings`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_kind: Option<String>,
    /// With `capability_not_supported`: what the backend supports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_capabilities: Option<Vec<String>>,
}

impl ErrorEnvelope {
    /// An envelope with this code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            detail: message.clone(),
            error: ErrorObject {
                message,
                error_type: code.error_type().to_owned(),
                param: None,
                code: Some(code.as_str().to_owned()),
                backend_class: None,
                route_kind: None,
                supported_capabilities: None,
            },
        }
    }

    /// Names the invalid field of the request.
    #[must_use]
    pub fn with_param(mut self, param: Option<&str>) -> Self {
        self.error.param = param.map(str::to_owned);
        self
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $type:literal;)*) => {
        /// The error codes of both programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code in JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The `type` in JSON.
            pub const fn error_type(self) -> &'static str {
                match self { $(Self::$name => $type,)* }
            }
        }
    };
}

codes! {
    /// A field's value is malformed or out of range.
    InvalidValue = "invalid_value", "invalid_request_error";
    /// `size` is not supported.
    InvalidSize = "invalid_size", "invalid_request_error";
    /// The body is not what the route expects.
    InvalidBody = "invalid_body", "invalid_request_error";
    /// The backend does not support this.
    CapabilityNotSupported = "capability_not_supported", "invalid_request_error";
    /// `X-Backend` names no configured backend.
    BackendNotFound = "backend_not_found", "invalid_request_error";
    /// No such model.
    ModelNotFound = "model_not_found", "invalid_request_error";
    /// No such path.
    NotFound = "not_found", "invalid_request_error";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", "invalid_request_error";
    /// The body or the head exceeds the limit.
    RequestTooLarge = "request_too_large", "invalid_request_error";
    /// The body is compressed.
    EncodedBody = "encoded_body", "invalid_request_error";
    /// The body stopped arriving.
    RequestTimeout = "request_timeout", "invalid_request_error";
    /// No token, or an unknown one.
    InvalidApiKey = "invalid_api_key", "authentication_error";
    /// The client's address is not allowed.
    IpNotAllowed = "ip_not_allowed", "permission_error";
    /// A web page of an origin that is not allowed sent this.
    CrossOrigin = "cross_origin", "permission_error";
    /// `Host` is not ours.
    HostNotAllowed = "host_not_allowed", "invalid_request_error";
    /// Plain HTTP on an HTTPS port.
    HttpsRequired = "https_required", "invalid_request_error";
    /// A limit is reached; try again.
    BackendOverloaded = "backend_overloaded", "rate_limit_error";
    /// The client has as many event streams open as it may.
    TooManyStreams = "too_many_streams", "rate_limit_error";
    /// GPU or engine are not ready.
    BackendNotReady = "backend_not_ready", "service_unavailable_error";
    /// The backend returned an invalid response, or closed the connection early.
    BackendError = "backend_error", "server_error";
    /// The backend did not answer in time.
    BackendTimeout = "backend_timeout", "server_error";
    /// The engine is not reachable.
    EngineUnavailable = "engine_unavailable", "service_unavailable_error";
    /// The engine reports that the job failed.
    EngineError = "engine_error", "server_error";
    /// The engine did not finish in time.
    EngineTimeout = "engine_timeout", "server_error";
    /// The GPU is out of memory.
    GpuOutOfMemory = "gpu_out_of_memory", "service_unavailable_error";
    /// Somebody cancelled the request.
    Cancelled = "cancelled", "invalid_request_error";
    /// The gateway has no file descriptor left.
    GatewayOverloaded = "gateway_overloaded", "service_unavailable_error";
    /// The image store's disk is full.
    StorageFull = "storage_full", "server_error";
    /// An internal error; the log has the cause.
    Internal = "internal_error", "server_error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut texts: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        let all = texts.len();
        texts.dedup();
        assert_eq!(texts.len(), all);
    }

    #[test]
    fn the_four_keys_that_sdks_expect_are_always_present() {
        let json =
            serde_json::to_value(ErrorEnvelope::new(ErrorCode::InvalidSize, "no").with_param(Some("size")))
                .unwrap();
        assert_eq!(
            json,
            serde_json::json!({"detail": "no", "error": {
                "message": "no", "type": "invalid_request_error", "param": "size", "code": "invalid_size"}})
        );
        let bare = serde_json::to_value(ErrorEnvelope::new(ErrorCode::Internal, "no")).unwrap();
        assert!(bare["error"].as_object().unwrap().contains_key("param"));
    }
}
