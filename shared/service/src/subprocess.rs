//! Other programs, and calls that may hang, run with a time limit.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// For the rest of a program's output, which a child of its own may hold open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_OUTPUT_BYTES: u64 = 16 << 20;

/// A program that has ended, with what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessOutput {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl ProcessOutput {
    /// Whether it ended with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard error, or standard output if that is empty.
    pub fn error_text(&self) -> &str {
        let (out, err) = (self.stdout.trim(), self.stderr.trim());
        if err.is_empty() { out } else { err }
    }
}

/// Runs a program in English, without colors or a pager. Kills it after `limit`.
pub fn run(program: &str, arguments: &[&str], limit: Duration) -> io::Result<ProcessOutput> {
    let mut command = Command::new(program);
    command.args(arguments).envs([("LC_ALL", "C.UTF-8"), ("SYSTEMD_COLORS", "0"), ("SYSTEMD_PAGER", "")]);
    run_command(command, limit)
}

/// Runs a command with empty input. Kills it after `limit`.
pub fn run_command(mut command: Command, limit: Duration) -> io::Result<ProcessOutput> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().display().to_string();
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    let outputs = [read_on_thread(child.stdout.take()), read_on_thread(child.stderr.take())];
    let status = wait(&mut child, limit)?;
    let [stdout, stderr] = outputs.map(|output| output.recv_timeout(OUTPUT_TIMEOUT).unwrap_or_default());
    let Some(status) = status else {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let message = format!("`{program} {}` did not end within {} s", arguments.join(" "), limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    };
    Ok(ProcessOutput { code: status.code(), stdout, stderr })
}

fn read_on_thread(output: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(output) = output {
            let _ = output.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// None if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Runs what may hang (a driver call, a dead mount, a resolver) on a thread of its own, which is abandoned after `limit`.
pub fn with_timeout<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).ok()
}

/// Polls until there is a result; none after `limit`.
pub fn poll_until<T>(limit: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(result) = poll() {
            return Some(result);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_captured_and_a_hanging_program_is_killed() {
        let long = Duration::from_secs(10);
        let output = run("sh", &["-c", "echo $LC_ALL; echo err >&2; exit 3"], long).unwrap();
        let expected =
            ProcessOutput { code: Some(3), stdout: "C.UTF-8\n".to_owned(), stderr: "err\n".to_owned() };
        assert_eq!(output, expected);
        assert_eq!((output.success(), output.error_text()), (false, "err"));
        let output = run("echo", &["a"], long).unwrap();
        assert_eq!((output.success(), output.error_text()), (true, "a"));
        let started = Instant::now();
        let error = run("sleep", &["60"], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("`sleep 60` did not end"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(run("/no/such/program", &[], long).is_err());
    }

    #[test]
    fn hanging_work_is_abandoned() {
        let (_sender, hangs) = mpsc::channel::<()>();
        assert_eq!(with_timeout(Duration::from_millis(10), move || hangs.recv().is_ok()), None);
        assert_eq!(with_timeout(Duration::from_secs(5), || 7), Some(7));
        assert_eq!(poll_until(Duration::ZERO, || None::<()>), None);
        assert_eq!(poll_until(Duration::ZERO, || Some(7)), Some(7));
    }
}
