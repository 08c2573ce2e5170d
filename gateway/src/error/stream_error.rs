//! A failure after a stream began: its status was sent, so it travels as an event. Only `event: error` with a nested
//! `error` raises in the clients' libraries.

use bytes::Bytes;
use serde_json::json;

use super::{ApiError, ErrorCause};

/// What to say, and what to log.
#[derive(Debug)]
pub(crate) struct StreamError {
    /// The event.
    pub(crate) event: Bytes,
    /// The status that the answer would have had.
    pub(crate) status: u16,
    /// Why, for the log.
    pub(crate) cause: ErrorCause,
}

impl ApiError {
    /// The failure as the last event of a stream.
    pub(crate) fn to_stream_error(&self, route_kind: &str, class: &str) -> StreamError {
        let (response, cause) = self.error_response_for(Some(route_kind), Some(class));
        let data = json!({"type": "error", "error": response.body["error"]});
        let event = format!("event: error\ndata: {data}\n\n").into();
        StreamError { event, status: response.status.as_u16(), cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::BackendError;

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
        assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap(), expected);
    }
}
