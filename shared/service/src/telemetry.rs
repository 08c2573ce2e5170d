//! Logging: text or JSON, to standard error or to a file that is reopened after a rotation. A line that cannot be written is
//! dropped and counted.

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

static DROPPED: AtomicU64 = AtomicU64::new(0);
static LOG: OnceLock<Arc<LogWriter<BoxedSink>>> = OnceLock::new();

/// Between two checks for a rotation, besides the one before each line.
const ROTATION_CHECK_INTERVAL: Duration = Duration::from_secs(1);

type BoxedSink = Box<dyn LogSink + Send>;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Parses `text` or `json`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Whether a filter is valid.
pub fn is_filter(text: &str) -> bool {
    !text.trim().is_empty() && EnvFilter::try_new(text).is_ok()
}

/// How many lines could not be written so far.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Why the log file cannot be reopened after a rotation, as long as that lasts. Blocks.
pub fn log_file_error() -> Option<String> {
    LOG.get().and_then(|log| log.reopen_error())
}

/// The worker that reopens the log file after a rotation even while there is nothing to write.
pub async fn watch_rotation() {
    loop {
        tokio::time::sleep(ROTATION_CHECK_INTERVAL).await;
        let check = || LOG.get().map(|log| log.check_rotation());
        let _ = tokio::task::spawn_blocking(check).await;
    }
}

/// An opened log that is not used before [`OpenedLog::activate`].
pub struct OpenedLog(BoxedSink);

impl OpenedLog {
    /// Opens the file for appending, and creates it if it does not exist; without a file, standard error.
    pub fn open(file: Option<&Path>) -> std::io::Result<Self> {
        let file = file.map(LogFile::open).transpose()?;
        Ok(Self(file.map_or_else(|| Box::new(std::io::stderr()) as _, |file| Box::new(file) as _)))
    }

    /// Sends all lines there from now on, if logging was started.
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

/// Starts logging. `filter` is as in `RUST_LOG`; without a file, to standard error.
pub fn start(format: LogFormat, filter: &str, file: Option<&Path>) -> std::io::Result<()> {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = file.is_none() && std::io::stderr().is_terminal();
    let OpenedLog(sink) = OpenedLog::open(file)?;
    let writer = LOG.get_or_init(|| Arc::new(LogWriter::new(sink, format, &DROPPED))).clone();
    let layer = fmt::layer().with_target(false).with_ansi(ansi).with_writer(move || LogLine(writer.clone()));
    let registry = tracing_subscriber::registry().with(filter);
    // A second start in one process (in tests) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Ok(())
}
