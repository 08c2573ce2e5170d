//! Logs: text for people, JSON for machines, to standard error or to a file of our own.

use std::{fs::File, io::IsTerminal, path::Path, sync::Arc};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// Reads `text` or `json`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Whether a filter can be read.
pub fn is_filter(text: &str) -> bool {
    !text.trim().is_empty() && EnvFilter::try_new(text).is_ok()
}

/// Starts logging. `filter` is as in `RUST_LOG`; a file is appended to.
pub fn start(format: Format, filter: &str, file: Option<&Path>) -> std::io::Result<()> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let file =
        file.map(|path| File::options().create(true).append(true).open(path).map(Arc::new)).transpose()?;
    let colours = file.is_none() && std::io::stderr().is_terminal();
    let writer = fmt::writer::BoxMakeWriter::new(move || -> Box<dyn std::io::Write> {
        file.as_ref().map_or_else(|| Box::new(std::io::stderr()) as _, |file| Box::new(file.clone()) as _)
    });
    let lines = fmt::layer().with_target(false).with_ansi(colours).with_writer(writer);
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}
