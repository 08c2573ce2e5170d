//! Other programs, and calls that may hang, run with a time limit.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// For the rest of a program's output, which a child of its own may hold open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);
const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// For a killed program to end. One that the kernel holds (a driver call, a dead mount) is left behind.
const KILL_TIMEOUT: Duration = Duration::from_millis(500);

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
    let outputs = [Output::read(child.stdout.take()), Output::read(child.stderr.take())];
    let status = wait(&mut child, limit);
    let [stdout, stderr] = outputs.map(Output::finish);
    let Some(status) = status else {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let message = format!("`{program} {}` did not end within {} s", arguments.join(" "), limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, message));
    };
    Ok(ProcessOutput { code: status.code(), stdout, stderr })
}

/// A pipe, read on a thread of its own.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: mpsc::Receiver<()>,
}

impl Output {
    fn read(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, ended) = mpsc::channel();
        let read = bytes.clone();
        thread::spawn(move || {
            let _sender = sender; // dropped at the end
            let mut pipe = pipe.map(|pipe| pipe.take(MAX_OUTPUT_BYTES));
            let mut chunk = [0; 8192];
            while let Some(count @ 1..) = pipe.as_mut().and_then(|pipe| pipe.read(&mut chunk).ok()) {
                read.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        Self { bytes, ended }
    }

    /// What was printed, even if a child of the program still holds the pipe open.
    fn finish(self) -> String {
        let _ = self.ended.recv_timeout(OUTPUT_TIMEOUT);
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// None if it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let status = poll_until(limit, || child.try_wait().ok().flatten());
    if status.is_none() {
        let _ = child.kill();
        let _ = poll_until(KILL_TIMEOUT, || child.try_wait().ok().flatten());
    }
    status
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
        let output = run("sh", &["-c", "echo printed; sleep 60 & exit 0"], long).unwrap();
        assert_eq!((output.success(), output.stdout.as_str()), (true, "printed\n"), "a child holds the pipe");
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
