//! nginx as it runs here: its configuration, a test of it, a reload.

pub(crate) mod parse;
pub(crate) mod site;

use std::time::Duration;

use super::{
    lines::Stop,
    program::{Ran, run},
    units,
};

/// nginx reads some files; a name in them may wait for the resolver.
const TIME: Duration = Duration::from_secs(20);
const STEP: &str = "nginx";
/// Its unit, where the process that holds the port does not tell.
pub(crate) const UNIT: &str = "nginx.service";

/// What of its configuration serves this port; none without nginx.
pub(crate) fn sites(port: u16) -> Result<Option<site::Sites>, Stop> {
    let told = match run("nginx", &["-T"], TIME) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        told => told.map_err(|error| Stop::failed(STEP, "nginx -T", error))?,
    };
    if !told.ok {
        return Err(broken(&told));
    }
    let files = parse::dump(&told.out).map_err(|why| {
        Stop::at(
            STEP,
            format!("nginx's configuration is not understood: {why}"),
            "free the port by hand, then again",
        )
    })?;
    site::serving(&files, port).map(Some).map_err(|(why, fix)| Stop::at(STEP, why, fix))
}

/// Whether nginx would take its configuration.
pub(crate) fn test() -> Result<(), Stop> {
    let told = run("nginx", &["-t"], TIME).map_err(|error| Stop::failed(STEP, "nginx -t", error))?;
    if told.ok { Ok(()) } else { Err(broken(&told)) }
}

fn broken(told: &Ran) -> Stop {
    let line = |line: &&str| line.contains("[emerg]") || line.contains("[crit]");
    let why = told.err.lines().find(line).unwrap_or(told.said());
    Stop::at(
        STEP,
        format!("nginx -t: {why}"),
        "correct nginx's configuration: `sudo nginx -t` says what is wrong",
    )
}

/// Has it read its configuration again, or starts it.
pub(crate) fn reload(unit: &str) -> Result<(), Stop> {
    let verb = if units::is_active(unit) { "reload" } else { "start" };
    units::systemctl(STEP, &[verb, unit])
}
