//! Other programs' output, within bounds: a service manager that hangs must not hang the doctor.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// For each program.
const TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
const MAX_OUTPUT: u64 = 1 << 20;

/// What a program printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandOutput {
    /// Whether it ended with 0.
    pub(super) success: bool,
    /// Its standard output.
    pub(super) text: String,
}

/// Runs it to its end, in English; none if it is not installed or takes too long.
pub(super) fn output(program: &str, arguments: &[&str]) -> Option<CommandOutput> {
    let deadline = Instant::now() + TIMEOUT;
    let mut child = Command::new(program)
        .args(arguments)
        .envs([("LC_ALL", "C"), ("SYSTEMD_COLORS", "0"), ("SYSTEMD_PAGER", "")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let stdout = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stdout.take(MAX_OUTPUT).read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    let bytes = receiver.recv_timeout(TIMEOUT).ok();
    let status = wait_until(&mut child, deadline);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Some(CommandOutput { success: status?.success(), text: String::from_utf8_lossy(&bytes?).into_owned() })
}

/// What a look gives, if it gives it in time. One that hangs is left to the end of this process.
pub(super) fn with_timeout<T: Send + 'static>(
    limit: Duration,
    look: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(look()));
    receiver.recv_timeout(limit).ok()
}

fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_end_are_told_and_a_program_that_is_not_there_is_none() {
        let printed = output("sh", &["-c", "echo $LC_ALL; exit 3"]).unwrap();
        assert_eq!(printed, CommandOutput { success: false, text: "C\n".to_owned() });
        assert!(output("echo", &["a"]).unwrap().success);
        assert_eq!(output("/no/such/program", &[]), None);
        let (_never, hangs) = mpsc::channel::<()>();
        assert_eq!(with_timeout(Duration::from_millis(10), move || hangs.recv().is_ok()), None);
        assert_eq!(with_timeout(TIMEOUT, || 7), Some(7));
    }
}
