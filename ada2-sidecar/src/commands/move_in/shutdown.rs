//! Stopping our units so that the port is free at once and no running picture keeps anybody waiting, and giving the port
//! back to nginx. Used by move-out, and by what undoes a move-in.

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
/// For running requests to finish, from the stop on. Then their jobs are cancelled in the engine.
const GRACE: Duration = Duration::from_secs(2);
/// For that; the process is killed then.
const CANCEL_TIME: Duration = Duration::from_millis(1_500);
const KILL_TIME: Duration = Duration::from_secs(2);
/// For nginx to answer after a reload; it tries an address that is taken for two seconds.
const NGINX_TIMEOUT: Duration = Duration::from_secs(4);

/// Our units on their way down.
#[derive(Debug)]
pub(crate) struct Stopping(Instant);

/// Stops them, and waits for the port alone: running requests go on until [`Stopping::finish`].
pub(crate) fn stop_sidecar(addresses: &[SocketAddr]) -> Result<Stopping, MoveError> {
    let stopping = Stopping(Instant::now());
    systemctl(STEP, &["stop", "--no-block", SERVICE])?;
    // The service is ordered after its socket, so that systemd would keep the socket until the last request is served.
    systemctl(STEP, &["stop", "--job-mode=ignore-dependencies", SOCKET])?;
    units::wait_until_free(STEP, addresses)?;
    Ok(stopping)
}

impl Stopping {
    /// Waits for the service to end: the second signal cancels what still runs, the third ends it.
    pub(crate) fn finish(self) -> Result<(), MoveError> {
        let ended = |limit: Duration| poll_until(limit, || (!is_running(SERVICE)).then_some(())).is_some();
        if ended(GRACE.saturating_sub(self.0.elapsed())) {
            return Ok(());
        }
        let _ = systemctl(STEP, &["kill", "--signal=TERM", SERVICE]);
        if ended(CANCEL_TIME) {
            return Ok(());
        }
        let _ = systemctl(STEP, &["kill", "--signal=KILL", SERVICE]);
        if ended(KILL_TIME) {
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

/// Has nginx take its port again, and makes sure that it answers there.
pub(crate) fn restore_nginx(
    unit: &str,
    addresses: &[SocketAddr],
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    nginx::reload(unit)?;
    let Some(address) = addresses.first().map(reachable) else { return Ok(()) };
    if poll_until(NGINX_TIMEOUT, || responds(address)).is_none() {
        // A reload that found the address taken keeps the old configuration.
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

/// Whether somebody who speaks HTTP, or TLS, answers there.
fn responds(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "OPTIONS / HTTP/1.0\r\n\r\n").ok()?;
    let mut first = [0; 1];
    // Nothing within that time: a slow server behind nginx. It took the connection.
    match stream.read(&mut first) {
        Ok(0) => None,
        Ok(_) => Some(()),
        Err(error) => matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            .then_some(()),
    }
}
