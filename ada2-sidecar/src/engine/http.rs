//! What an engine's HTTP client met, as an engine's error.

use std::io::ErrorKind;

use service::outbound::{ReadBodyError, io_error_kind, resolve_error};

use super::EngineError;

/// Tells "nobody there" from "somebody there who does not answer": only the first means that the GPU is free.
pub(super) fn transport_error(error: &reqwest::Error) -> EngineError {
    if io_error_kind(error) == Some(ErrorKind::ConnectionRefused) {
        return EngineError::ConnectionRefused("connection refused".to_owned());
    }
    if let Some(unresolved) = resolve_error(error) {
        return EngineError::HostUnresolved(format!("the name {:?} cannot be resolved", unresolved.host));
    }
    let message = if error.is_timeout() { "no answer in time" } else { "the connection broke" };
    EngineError::Unresponsive(message.to_owned())
}

/// An answer whose body could not be had.
pub(super) fn body_error(fault: ReadBodyError) -> EngineError {
    match fault {
        ReadBodyError::TooLarge => {
            EngineError::UnexpectedResponse("an answer of the engine is longer than any should be".to_owned())
        }
        ReadBodyError::Transport(error) => transport_error(&error),
    }
}

#[cfg(test)]
mod tests {
    use service::outbound::{ConnectionPolicy, client_builder};

    use super::*;

    #[tokio::test]
    async fn an_engine_whose_name_nobody_knows_is_named() {
        let client = client_builder(ConnectionPolicy::PerRequest).build().unwrap();
        let error = client.get("http://engine.invalid:9090/").send().await.unwrap_err();
        let words = "the name \"engine.invalid\" cannot be resolved".to_owned();
        assert_eq!(transport_error(&error), EngineError::HostUnresolved(words));
    }
}
