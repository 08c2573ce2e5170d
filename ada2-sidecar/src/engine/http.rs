//! What an engine's HTTP client met, as an engine's error.

use std::io::ErrorKind;

use service::outbound::{BodyFault, io_kind, unresolved};

use super::EngineError;

/// Tells "nobody there" from "somebody there who does not answer": only the first means that the GPU is free.
pub(super) fn transport_fault(error: &reqwest::Error) -> EngineError {
    if io_kind(error) == Some(ErrorKind::ConnectionRefused) {
        return EngineError::Refused("connection refused".to_owned());
    }
    if let Some(unresolved) = unresolved(error) {
        return EngineError::Unresolved(format!("the name {:?} cannot be resolved", unresolved.host));
    }
    let words = if error.is_timeout() { "no answer in time" } else { "the connection broke" };
    EngineError::NoAnswer(words.to_owned())
}

/// An answer whose body could not be had.
pub(super) fn body_fault(fault: BodyFault) -> EngineError {
    match fault {
        BodyFault::TooLong => {
            EngineError::Strange("an answer of the engine is longer than any should be".to_owned())
        }
        BodyFault::Broken(error) => transport_fault(&error),
    }
}

#[cfg(test)]
mod tests {
    use service::outbound::{Connections, builder};

    use super::*;

    #[tokio::test]
    async fn an_engine_whose_name_nobody_knows_is_named() {
        let client = builder(Connections::Fresh).build().unwrap();
        let error = client.get("http://engine.invalid:9090/").send().await.unwrap_err();
        let words = "the name \"engine.invalid\" cannot be resolved".to_owned();
        assert_eq!(transport_fault(&error), EngineError::Unresolved(words));
    }
}
