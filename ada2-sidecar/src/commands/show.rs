//! `ada2-sidecar gpu` and `ada2-sidecar readyz`: from the sidecar that runs here, else directly from GPU and host.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use service::settings::SettingSource;
use wire::health::{Check, CheckStatus, ReadyReport};

use super::{
    client::{SidecarClient, SidecarResponse, block_on, service_address},
    exit_code,
    host_readiness::HostReadiness,
    systemd::{SERVICE, SystemdUnit},
};
use crate::{
    config::Config,
    port,
    readiness::rules::status_of,
    smi::{SmiQuery, readiness_text::verbose_text, table},
};

/// Last lines of `/readyz?verbose`.
const READYZ_ENDINGS: [&str; 2] = ["readyz check passed\n", "readyz check failed\n"];

pub(super) fn gpu(arguments: &ArgMatches, config: &Config) -> io::Result<ExitCode> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let query = text("query").map(|fields| (fields, text("format").unwrap_or("csv")));
    let parsed = query.map(|(fields, format)| SmiQuery::parse(fields, format)).transpose();
    let csv = parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
    let as_json = arguments.get_flag("json");
    let path = match query {
        Some((fields, format)) => format!("/gpu?query={fields}&format={format}"),
        None => "/gpu".to_owned(),
    };
    if let Some((client, response)) =
        query_sidecar(config, "/gpu", query.is_some() || as_json, is_gpu_response)?
    {
        // CSV could come from any program: it is requested once the sidecar has been identified.
        let response = if query.is_some() { block_on(client.get(&path, as_json))?? } else { Some(response) };
        let response = response.ok_or_else(|| io::Error::other("the sidecar stopped before it answered"))?;
        return print(&response.body, response.success);
    }
    let readiness = HostReadiness::read(config)?;
    let view = readiness.view();
    let reading = view.fresh_reading();
    let success = reading.is_ok();
    match (csv, reading) {
        (Some(csv), Ok((reading, taken_at))) => print(&csv.to_csv(&reading.report, taken_at), true),
        (Some(_), Err(cause)) => Err(io::Error::other(cause)),
        (None, _) if as_json => print(&format!("{:#}\n", view.json()), success),
        (None, _) => print(&format!("{}{}", readiness.preamble, table(&view)), success),
    }
}

pub(super) fn readyz(arguments: &ArgMatches, config: &Config) -> io::Result<ExitCode> {
    let as_json = arguments.get_flag("json");
    let path = if as_json { "/readyz" } else { "/readyz?verbose" };
    let is_report = |body: &str| {
        if as_json {
            serde_json::from_str::<ReadyReport>(body).is_ok()
        } else {
            READYZ_ENDINGS.iter().any(|verdict| body.ends_with(verdict))
        }
    };
    if let Some((client, response)) = query_sidecar(config, path, as_json, is_report)? {
        let source =
            if as_json { String::new() } else { format!("asked the sidecar at {}\n", client.address) };
        return print(&format!("{source}{}", response.body), response.success);
    }
    let mut readiness = HostReadiness::read(config)?;
    // Whatever the state of GPU and host, requests are not served.
    let message = format!("no sidecar runs; start it: {}", start_command(config));
    readiness
        .report
        .checks
        .push(Check::pass("service", "none", "runs").with_status(CheckStatus::Fail, message));
    readiness.report.status = status_of(&readiness.report.checks);
    if as_json {
        return print(&serde_json::to_string(&readiness.report)?, false);
    }
    print(&format!("{}{}", readiness.preamble, verbose_text(&readiness.view())), false)
}

/// The command that starts the service.
fn start_command(config: &Config) -> String {
    if let (SettingSource::Flag(_), Some(address)) = (&config.listen_source, config.listen.first()) {
        return format!("ada2-sidecar serve --listen {address}");
    }
    let command = match SystemdUnit::query(SERVICE) {
        Some(service) if service.get("UnitFileState").starts_with("enabled") => {
            "sudo systemctl start ada2-sidecar"
        }
        Some(service) if service.is_loaded() => "sudo ada2-sidecar move-in",
        _ => "ada2-sidecar serve",
    };
    command.to_owned()
}

/// As JSON or as a table.
fn is_gpu_response(body: &str) -> bool {
    let json = serde_json::from_str::<serde_json::Value>(body);
    json.is_ok_and(|card| card["readiness"].is_string())
        || body.lines().last().is_some_and(|line| line.starts_with("readiness: "))
}

fn print(text: &str, success: bool) -> io::Result<ExitCode> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(exit_code(success))
}

/// The sidecar's response. None if none runs; an error if another program answers.
fn query_sidecar(
    config: &Config,
    path: &str,
    as_json: bool,
    is_expected: impl Fn(&str) -> bool,
) -> io::Result<Option<(SidecarClient, SidecarResponse)>> {
    let Some(address) = service_address(config) else { return Ok(None) };
    let client = SidecarClient::new(address)?;
    let Some(response) = block_on(client.get(path, as_json))?? else { return Ok(None) };
    if is_expected(&response.body) {
        return Ok(Some((client, response)));
    }
    let holder = port::find_holder(address);
    let who = holder.as_ref().map_or_else(|| "another program".to_owned(), |holder| holder.describe(address));
    let fix = if holder.is_some_and(|holder| holder.is_nginx()) { "move-in" } else { "doctor" };
    Err(io::Error::other(format!(
        "{who} answers at {address}, not the sidecar; fix: sudo ada2-sidecar {fix}"
    )))
}
