//! Programs of this host, run with a limit: none of them may hold us up.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Between two looks whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// For the last of its output, which a process that it left behind may hold open.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// What a program did.
#[derive(Debug)]
pub(crate) struct ProcessOutput {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl ProcessOutput {
    /// What it said, for a message.
    pub(crate) fn text(&self) -> &str {
        let (out, err) = (self.stdout.trim(), self.stderr.trim());
        if err.is_empty() { out } else { err }
    }
}

/// Runs a program to its end, or ends it after this time.
pub(crate) fn run(program: &str, arguments: &[&str], limit: Duration) -> io::Result<ProcessOutput> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0").env("SYSTEMD_PAGER", "");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let status = wait(&mut child, limit)?;
    let text = |output: mpsc::Receiver<String>| output.recv_timeout(OUTPUT_TIMEOUT).unwrap_or_default();
    let (out, err) = (text(out), text(err));
    let Some(status) = status else {
        let line = format!("`{program} {}` did not end within {} s", arguments.join(" "), limit.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, line));
    };
    Ok(ProcessOutput { success: status.success(), stdout: out, stderr: err })
}

fn collect(output: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut output) = output {
            let _ = output.read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// None if it had to be ended.
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
        thread::sleep(POLL);
    }
}

/// Does what may hang (a process wedged in the driver, a dead mount) on a thread of its own, which is left behind then.
pub(crate) fn with_timeout<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let _ = sender.send(work());
    });
    receiver.recv_timeout(limit).ok()
}

/// Asks again until there is an answer, or the time is over.
pub(crate) fn poll_until<T>(limit: Duration, mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = poll() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_heard_and_one_that_does_not_end_is_ended() {
        let ran = run("sh", &["-c", "echo out; echo err >&2; exit 3"], Duration::from_secs(10)).unwrap();
        assert_eq!((ran.success, ran.stdout.as_str(), ran.text()), (false, "out\n", "err"));
        let begun = Instant::now();
        let error = run("sleep", &["60"], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("`sleep 60` did not end"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(run("no-such-program-here", &[], Duration::from_secs(1)).is_err());
    }
}
