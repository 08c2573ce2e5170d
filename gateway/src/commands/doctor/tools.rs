//! The system's commands. Each has a time limit, and a missing one is not a problem.

use std::{path::PathBuf, process::Command, time::Duration};

use service::subprocess;

use crate::blocking::blocking;

/// A command that asks a system daemon hangs with it.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(4);
/// Where macOS has them, for accounts with a short `PATH`.
const SYSTEM_PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/libexec/ApplicationFirewall";

/// Finds and runs them.
#[derive(Debug, Clone)]
pub(super) struct SystemTools {
    dirs: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CommandOutput {
    NotFound,
    /// It could not be run, or did not end in time.
    Failed,
    Done {
        /// None if a signal ended it.
        code: Option<i32>,
        /// Standard output, then standard error.
        text: String,
    },
}

impl CommandOutput {
    /// The output of a successful command.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Done { code: Some(0), text } => Some(text),
            _ => None,
        }
    }
}

impl SystemTools {
    /// Searches this `PATH`, then the system's directories.
    pub(super) fn new(path: Option<String>) -> Self {
        let path = path.unwrap_or_default();
        let dirs = path.split(':').chain(SYSTEM_PATH.split(':')).filter(|dir| dir.starts_with('/'));
        Self { dirs: dirs.map(PathBuf::from).collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        self.dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file())
    }

    /// Runs a command, which must change nothing. `name` may be an absolute path.
    pub(super) async fn run(&self, name: &str, arguments: &[&str]) -> CommandOutput {
        let Some(program) = (if name.starts_with('/') { Some(name.into()) } else { self.find(name) }) else {
            return CommandOutput::NotFound;
        };
        let mut command = Command::new(program);
        let path = self.dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":");
        command.args(arguments).env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/");
        match blocking(move || subprocess::run_command(command, COMMAND_TIMEOUT)).await {
            Ok(output) => CommandOutput::Done { code: output.code, text: output.stdout + &output.stderr },
            Err(_) => CommandOutput::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn output_is_captured_and_a_hanging_command_is_killed() {
        let tools = SystemTools::new(None);
        let output = tools.run("sh", &["-c", "echo out; echo err >&2; exit 3"]).await;
        assert_eq!(output, CommandOutput::Done { code: Some(3), text: "out\nerr\n".to_owned() });
        assert_eq!(tools.run("sh", &["-c", "echo ok"]).await.text(), Some("ok\n"));
        assert_eq!(tools.run("no-such-command", &[]).await, CommandOutput::NotFound);
        assert_eq!(tools.run("/no/such/command", &[]).await, CommandOutput::Failed);
        let began = Instant::now();
        assert_eq!(tools.run("sleep", &["600"]).await, CommandOutput::Failed);
        assert!(began.elapsed() < COMMAND_TIMEOUT * 3);
        assert!(tools.has("sh") && !tools.has("no-such-command"));
    }
}
