//! Commands of the system, and what they print: the edge where the doctor learns what only they know. Each has a time limit, its
//! output a bound, and one that is not there is no fault.

use std::{
    io::Read,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use crate::blocking::blocking;

/// For one command. Those that ask a daemon of the system hang with it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two looks whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// What is read of its output.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;
/// Where macOS keeps them, for accounts whose `PATH` is short.
const SYSTEM_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/libexec/ApplicationFirewall";

/// Finds and runs them.
#[derive(Debug, Clone)]
pub(super) struct SystemTools {
    folders: Vec<PathBuf>,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandOutput {
    /// There is no such command.
    NotFound,
    /// It could not be run, or did not end in time.
    Failed,
    /// It ended.
    Done {
        /// Its exit code; none where a signal ended it.
        code: Option<i32>,
        /// What it printed, standard error behind the rest.
        text: String,
    },
}

impl CommandOutput {
    /// What it printed, where it ended well.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Done { code: Some(0), text } => Some(text),
            _ => None,
        }
    }
}

impl SystemTools {
    /// In the folders of this `PATH`, then in those of the system.
    pub(super) fn new(path: Option<String>) -> Self {
        let path = path.unwrap_or_default();
        let folders = path.split(':').chain(SYSTEM_PATH.split(':')).filter(|folder| folder.starts_with('/'));
        Self { folders: folders.map(PathBuf::from).collect() }
    }

    /// Whether a command is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Runs one, which must change nothing. `name` may be a path.
    pub(super) async fn run(&self, name: &str, arguments: &[&str]) -> CommandOutput {
        let Some(program) = (if name.starts_with('/') { Some(name.into()) } else { self.find(name) }) else {
            return CommandOutput::NotFound;
        };
        let mut command = Command::new(program);
        let path =
            self.folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(":");
        command.args(arguments).env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        blocking(move || run(command)).await
    }
}

fn run(mut command: Command) -> CommandOutput {
    let Ok(mut child) = command.spawn() else { return CommandOutput::Failed };
    let outputs = [reading(child.stdout.take()), reading(child.stderr.take())];
    let deadline = Instant::now() + COMMAND_TIMEOUT;
    let Some(status) = ended(&mut child, deadline) else { return CommandOutput::Failed };
    // A child of its own may hold its output open for ever.
    let left = deadline.saturating_duration_since(Instant::now()).max(POLL_INTERVAL);
    let texts = outputs.map(|output| output.recv_timeout(left).unwrap_or_default());
    CommandOutput::Done { code: status.code(), text: texts.concat() }
}

fn reading(output: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (done, text) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            let _ = output.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        }
        let _ = done.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    text
}

/// How it ended; none where it had to be stopped.
fn ended(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_command_prints_is_read_and_one_that_hangs_is_stopped() {
        let tools = SystemTools::new(None);
        let done = tools.run("sh", &["-c", "echo out; echo err >&2; exit 3"]).await;
        assert_eq!(done, CommandOutput::Done { code: Some(3), text: "out\nerr\n".to_owned() });
        assert_eq!(tools.run("sh", &["-c", "echo well"]).await.text(), Some("well\n"));
        assert_eq!(tools.run("no-such-command", &[]).await, CommandOutput::NotFound);
        assert_eq!(tools.run("/no/such/command", &[]).await, CommandOutput::Failed);
        let began = Instant::now();
        assert_eq!(tools.run("sleep", &["600"]).await, CommandOutput::Failed);
        assert!(began.elapsed() < COMMAND_TIMEOUT * 3);
        assert!(tools.has("sh") && !tools.has("no-such-command"));
    }
}
