//! Logs: text for people, JSON for machines, to standard error or to a file of our own, which is begun anew when a rotation
//! moved it away. A line that cannot be written is dropped and counted; it fails nothing.

mod log_file;
mod log_writer;

use std::{
    io::IsTerminal,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    log_file::LogFile,
    log_writer::{LogLine, LogSink, LogWriter},
};

/// The process has one log, and so one count.
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LOG: OnceLock<Arc<LogWriter<BoxedSink>>> = OnceLock::new();

/// Between two looks whether the log file was moved, beside those before each line.
const ROTATION_CHECK_INTERVAL: Duration = Duration::from_secs(1);

type BoxedSink = Box<dyn LogSink + Send>;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
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

/// How many lines were dropped so far because they could not be written.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Why the log file cannot be begun anew although it was moved away, while that is so. Blocks.
pub fn log_file_error() -> Option<String> {
    LOG.get().and_then(|log| log.reopen_error())
}

/// The worker: begins a log file anew that was moved away, even while there is nothing to write.
pub async fn watch_rotation() {
    loop {
        tokio::time::sleep(ROTATION_CHECK_INTERVAL).await;
        let follow = || LOG.get().map(|log| log.check_rotation());
        let _ = tokio::task::spawn_blocking(follow).await;
    }
}

/// Where lines could go from now on: opened, and not used before [`OpenedLog::activate`].
pub struct OpenedLog(BoxedSink);

impl OpenedLog {
    /// Opens the file for appending, making it if a rotation moved it away; standard error without one.
    pub fn open(file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(LogFile::open).transpose()?;
        Ok(Self(file.map_or_else(|| Box::new(std::io::stderr()) as _, |file| Box::new(file) as _)))
    }

    /// Every line goes there now. Without a log that was started there are no lines.
    pub fn activate(self) {
        if let Some(log) = LOG.get() {
            log.replace_sink(self.0);
        }
    }
}

impl std::fmt::Debug for OpenedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenedLog")
    }
}

/// Starts logging. `filter` is as in `RUST_LOG`; a file is appended to.
pub fn start(format: LogFormat, filter: &str, file: Option<&Path>) -> std::io::Result<()> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = file.is_none() && std::io::stderr().is_terminal();
    let OpenedLog(out) = OpenedLog::open(file)?;
    let lines = LOG.get_or_init(|| Arc::new(LogWriter::new(out, format, &DROPPED))).clone();
    let layer =
        fmt::layer().with_target(false).with_ansi(colours).with_writer(move || LogLine(lines.clone()));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Ok(())
}
