//! The nginx of this host: which sites serve a port, a test of its configuration, a reload.

pub(crate) mod parse;
pub(crate) mod site;

use std::time::Duration;

use service::subprocess::{ProcessOutput, run};

use super::{reporter::MoveError, units};

/// A name in its configuration may wait for the resolver.
const TIMEOUT: Duration = Duration::from_secs(20);
const STEP: &str = "nginx";
/// Its unit, if the process that holds the port is in none.
pub(crate) const UNIT: &str = "nginx.service";

/// The sites that serve this port; none without nginx.
pub(crate) fn sites(port: u16) -> Result<Option<site::Sites>, MoveError> {
    let output = match run("nginx", &["-T"], TIMEOUT) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output.map_err(|error| MoveError::from_cause(STEP, "nginx -T", error))?,
    };
    if !output.success() {
        return Err(config_error(&output));
    }
    let files = parse::parse_dump(&output.stdout).map_err(|error| {
        MoveError::new(
            STEP,
            format!("nginx's configuration cannot be parsed: {error}"),
            "free the port manually, then again",
        )
    })?;
    site::find_sites(&files, port).map(Some).map_err(|(message, fix)| MoveError::new(STEP, message, fix))
}

/// Whether nginx accepts its configuration.
pub(crate) fn test() -> Result<(), MoveError> {
    let output =
        run("nginx", &["-t"], TIMEOUT).map_err(|error| MoveError::from_cause(STEP, "nginx -t", error))?;
    if output.success() { Ok(()) } else { Err(config_error(&output)) }
}

fn config_error(output: &ProcessOutput) -> MoveError {
    let line = |line: &&str| line.contains("[emerg]") || line.contains("[crit]");
    let error = output.stderr.lines().find(line).unwrap_or(output.error_text());
    MoveError::new(
        STEP,
        format!("nginx -t: {error}"),
        "correct nginx's configuration; `sudo nginx -t` shows what is wrong",
    )
}

/// Reloads its configuration, or starts it.
pub(crate) fn reload(unit: &str) -> Result<(), MoveError> {
    let verb = if units::is_active(unit) { "reload" } else { "start" };
    units::systemctl(STEP, &[verb, unit])
}
