//! Why an engine produced no image, and what of its own message may be shown.

use std::fmt;

/// Why the engine produced no image. Messages are ours, or the sanitized ones of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineError {
    /// Nothing listens there: the GPU is free of the job.
    ConnectionRefused(String),
    /// Timed out, or the connection was lost.
    Unresponsive(String),
    /// Its host name cannot be resolved, which says nothing about the engine itself.
    HostUnresolved(String),
    /// It requires a login, and we have none.
    LoginRequired(String),
    /// Something else answers, or an unsupported version.
    UnexpectedResponse(String),
    /// The job failed.
    Failed(String),
    /// A user or the engine's restart ended the job, which says nothing about the engine's health.
    Interrupted(String),
    /// The GPU ran out of memory.
    OutOfMemory(String),
    /// The engine's queue is full.
    QueueFull,
    /// We cancelled the job.
    Cancelled,
}

impl EngineError {
    /// A job for an engine that runs graphs, without one.
    pub(super) fn without_graph() -> Self {
        Self::Failed("the job has no graph".to_owned())
    }

    /// Whether the engine may still be working on the job.
    pub(super) fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unresponsive(_)
                | Self::HostUnresolved(_)
                | Self::LoginRequired(_)
                | Self::UnexpectedResponse(_)
        )
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionRefused(message)
            | Self::Unresponsive(message)
            | Self::HostUnresolved(message)
            | Self::LoginRequired(message)
            | Self::UnexpectedResponse(message)
            | Self::Failed(message)
            | Self::Interrupted(message)
            | Self::OutOfMemory(message) => f.write_str(message),
            Self::QueueFull => f.write_str("the engine's queue is full"),
            Self::Cancelled => f.write_str("the job was cancelled"),
        }
    }
}

/// The first line of the engine's message, without paths and cut: no tracebacks, no echoed graphs.
pub(super) fn sanitize_message(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given");
    let is_path = |word: &str| {
        let word = word.trim_matches(|character: char| "'\"()[]<>,:;".contains(character));
        word.matches(['/', '\\']).count() >= 2
    };
    let redacted: Vec<_> =
        line.split_whitespace().map(|word| if is_path(word) { "[path]" } else { word }).collect();
    redacted.join(" ").chars().filter(|character| !character.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_paths_and_tracebacks() {
        assert_eq!(
            sanitize_message(
                "No such file: '/srv/invokeai/models/x.safetensors' (os error 2)\nTraceback (most recent"
            ),
            "No such file: [path] (os error 2)"
        );
        assert_eq!(
            sanitize_message("CUDA out of memory. Tried to allocate 2 GiB"),
            "CUDA out of memory. Tried to allocate 2 GiB"
        );
        assert_eq!(sanitize_message(" \n"), "no reason given");
        assert_eq!(sanitize_message(&"x".repeat(1000)).len(), 300);
    }
}
