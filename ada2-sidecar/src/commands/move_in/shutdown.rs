//! Stops the sidecar so that the port is free at once, whatever runs, and gives the port back to nginx. Used by move-out and
//! by the undo of a move-in.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use service::subprocess::poll_until;

use super::{
    nginx,
    reporter::{MoveError, StepReporter},
    units::{self, SERVICE, SOCKET, is_running, systemctl},
};
use crate::commands::client::reachable;

const STEP: &str = "sidecar";
/// For running requests to finish. Then their jobs are cancelled in the engine.
const GRACE: Duration = Duration::from_secs(2);
/// For the jobs to be cancelled. Then the process is killed.
const CANCEL_TIME: Duration = Duration::from_millis(1_500);
const KILL_TIME: Duration = Duration::from_secs(2);
/// For nginx to answer after a reload. It retries an address in use for two seconds.
const NGINX_TIMEOUT: Duration = Duration::from_secs(4);

/// Units that are stopping, and since when.
#[derive(Debug)]
pub(crate) struct Stopping(Instant);

/// Returns once the port is free: running requests go on until [`Stopping::finish`].
pub(crate) fn stop_sidecar(addresses: &[SocketAddr]) -> Result<Stopping, MoveError> {
    let stopping = Stopping(Instant::now());
    systemctl(STEP, &["stop", "--no-block", SERVICE])?;
    // The service is ordered after its socket, so systemd would keep the socket until the last request is served.
    systemctl(STEP, &["stop", "--job-mode=ignore-dependencies", SOCKET])?;
    units::wait_until_free(STEP, addresses)?;
    Ok(stopping)
}

impl Stopping {
    /// Waits for the service to stop: the second signal cancels what still runs, the third kills it.
    pub(crate) fn finish(self) -> Result<(), MoveError> {
        let has_stopped =
            |limit: Duration| poll_until(limit, || (!is_running(SERVICE)).then_some(())).is_some();
        if has_stopped(GRACE.saturating_sub(self.0.elapsed())) {
            return Ok(());
        }
        let _ = systemctl(STEP, &["kill", "--signal=TERM", SERVICE]);
        if has_stopped(CANCEL_TIME) {
            return Ok(());
        }
        let _ = systemctl(STEP, &["kill", "--signal=KILL", SERVICE]);
        if has_stopped(KILL_TIME) {
            return Ok(());
        }
        let message = format!("{SERVICE} does not stop");
        Err(MoveError::new(
            STEP,
            message,
            format!("`systemctl status {SERVICE}`; a process that hangs in the driver needs a reboot"),
        ))
    }
}

/// Returns once nginx answers on its port.
pub(crate) fn restore_nginx(
    unit: &str,
    addresses: &[SocketAddr],
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    nginx::reload(unit)?;
    let Some(address) = addresses.first().map(reachable) else { return Ok(()) };
    if poll_until(NGINX_TIMEOUT, || responds(address)).is_none() {
        // A reload that finds the address in use keeps the old configuration.
        nginx::reload(unit)?;
        if poll_until(NGINX_TIMEOUT, || responds(address)).is_none() {
            let message = format!("nginx does not answer at {address}");
            return Err(MoveError::new(
                "nginx",
                message,
                format!("`systemctl status {unit}` and /var/log/nginx/error.log"),
            ));
        }
    }
    reporter.ok("nginx", &format!("answers at {address}"));
    Ok(())
}

/// Whether an HTTP or TLS server answers there.
fn responds(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "OPTIONS / HTTP/1.0\r\n\r\n").ok()?;
    let mut first = [0; 1];
    // A slow server behind nginx: nginx has accepted the connection.
    match stream.read(&mut first) {
        Ok(0) => None,
        Ok(_) => Some(()),
        Err(error) => matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            .then_some(()),
    }
}
