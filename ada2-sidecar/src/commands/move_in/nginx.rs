//! nginx as it runs here: its configuration, a test of it, a reload.

pub(crate) mod parse;
pub(crate) mod site;

use std::time::Duration;

use service::subprocess::{ProcessOutput, run};

use super::{reporter::MoveError, units};

/// nginx reads some files; a name in them may wait for the resolver.
const TIMEOUT: Duration = Duration::from_secs(20);
const STEP: &str = "nginx";
/// Its unit, where the process that holds the port does not tell.
pub(crate) const UNIT: &str = "nginx.service";

/// What of its configuration serves this port; none without nginx.
pub(crate) fn sites(port: u16) -> Result<Option<site::Sites>, MoveError> {
    let output = match run("nginx", &["-T"], TIMEOUT) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        output => output.map_err(|error| MoveError::from_cause(STEP, "nginx -T", error))?,
    };
    if !output.success() {
        return Err(config_error(&output));
    }
    let files = parse::parse_dump(&output.stdout).map_err(|why| {
        MoveError::new(
            STEP,
            format!("nginx's configuration is not understood: {why}"),
            "free the port by hand, then again",
        )
    })?;
    site::find_sites(&files, port).map(Some).map_err(|(why, fix)| MoveError::new(STEP, why, fix))
}

/// Whether nginx would take its configuration.
pub(crate) fn test() -> Result<(), MoveError> {
    let output =
        run("nginx", &["-t"], TIMEOUT).map_err(|error| MoveError::from_cause(STEP, "nginx -t", error))?;
    if output.success() { Ok(()) } else { Err(config_error(&output)) }
}

fn config_error(output: &ProcessOutput) -> MoveError {
    let line = |line: &&str| line.contains("[emerg]") || line.contains("[crit]");
    let why = output.stderr.lines().find(line).unwrap_or(output.error_text());
    MoveError::new(
        STEP,
        format!("nginx -t: {why}"),
        "correct nginx's configuration: `sudo nginx -t` says what is wrong",
    )
}

/// Has it read its configuration again, or starts it.
pub(crate) fn reload(unit: &str) -> Result<(), MoveError> {
    let verb = if units::is_active(unit) { "reload" } else { "start" };
    units::systemctl(STEP, &[verb, unit])
}
