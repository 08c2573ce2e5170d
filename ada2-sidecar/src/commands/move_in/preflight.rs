//! Inspects the host before anything changes. The result is a plan, or the reason why there is none.

use std::net::SocketAddr;

use clap::ArgMatches;

use super::{
    access, card, engine,
    nginx::{self, site::Sites},
    record::Plan,
    reporter::{MoveError, StepReporter},
    settings::{self, CurrentConfig},
    units,
};
use crate::{config::EngineKind, port, sandbox};

/// Exists once the service has run.
const STATE_DIR: &str = "/var/lib/ada2-sidecar";

pub(crate) enum PreflightOutcome {
    Move(Box<Plan>),
    /// The sidecar's socket holds the port.
    AlreadyMovedIn(Vec<SocketAddr>),
}

/// Who holds the port.
enum PortOwner {
    Nobody,
    /// Its unit.
    Nginx(String),
    Sidecar,
}

pub(crate) fn inspect(
    arguments: &ArgMatches,
    reporter: &mut StepReporter,
) -> Result<PreflightOutcome, MoveError> {
    units::check_installed()?;
    reporter.ok("units", "ada2-sidecar.service and ada2-sidecar.socket are installed");
    let flags = settings::settings_from_flags(arguments)?;
    let existing = CurrentConfig::read()?;
    reporter.ok("configuration", &format!("{} is valid", existing.path.display()));
    let addresses = units::listen_addresses()?;
    let (nginx, sites) = match port_owner(&addresses)? {
        PortOwner::Sidecar => return Ok(PreflightOutcome::AlreadyMovedIn(addresses)),
        PortOwner::Nginx(unit) => {
            let sites = inspect_nginx(&addresses, reporter)?;
            if sites.files.is_empty() {
                let message =
                    format!("nginx ({unit}) holds the port, but no file of its configuration names it");
                return Err(MoveError::new(
                    "port",
                    message,
                    format!("it runs an older configuration: `sudo systemctl reload {unit}`, then again"),
                ));
            }
            (Some(unit), sites)
        }
        PortOwner::Nobody => {
            reporter.ok("port", &format!("{}: free", join_addresses(&addresses)));
            // A site that nginx has not loaded yet would take the port at its next start.
            (
                units::is_active(nginx::UNIT).then(|| nginx::UNIT.to_owned()),
                inspect_nginx(&addresses, reporter)?,
            )
        }
    };
    let mut plan = Plan {
        config: existing.path.clone(),
        settings: flags,
        home_dir: None,
        sites: sites.files.clone(),
        nginx,
        addresses,
        ready_seconds: arguments.get_one("wait").copied().unwrap_or(60),
        first_time: std::fs::symlink_metadata(STATE_DIR).is_err(),
    };
    inspect_engine(&existing, &sites, &mut plan, reporter)?;
    access::choose_access(&existing, arguments.get_flag("yes"), &mut plan, reporter)?;
    settings::check_not_overridden(&plan)?;
    Ok(PreflightOutcome::Move(Box::new(plan)))
}

fn join_addresses(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn port_owner(addresses: &[SocketAddr]) -> Result<PortOwner, MoveError> {
    let Some((address, holder)) =
        addresses.iter().find_map(|address| Some((*address, port::find_holder(*address)?)))
    else {
        return Ok(PortOwner::Nobody);
    };
    let is_active = units::is_active(units::SOCKET) || units::is_active(units::SERVICE);
    match holder.process() {
        Some(process) if process.name == "nginx" => {
            let unit = process.unit.clone().filter(|unit| unit.ends_with(".service"));
            unit.map(PortOwner::Nginx).ok_or_else(|| {
                let message = format!("{address} is held by {process}, which is not a systemd service");
                MoveError::new("port", message, "stop it, then `sudo ada2-sidecar move-in` again")
            })
        }
        Some(process)
            if is_active && (process.pid == 1 || process.unit.as_deref() == Some(units::SERVICE)) =>
        {
            Ok(PortOwner::Sidecar)
        }
        other => {
            let unit =
                other.and_then(|process| process.unit.clone()).filter(|unit| unit.ends_with(".service"));
            let fix = match unit {
                Some(unit) => format!(
                    "`sudo systemctl disable --now {unit}` if it is not needed, or let it listen elsewhere; then again"
                ),
                None => {
                    "stop it, or let it listen elsewhere; then `sudo ada2-sidecar move-in` again".to_owned()
                }
            };
            Err(MoveError::new("port", format!("{address} is held by {}", holder.describe(address)), fix))
        }
    }
}

fn inspect_nginx(addresses: &[SocketAddr], reporter: &mut StepReporter) -> Result<Sites, MoveError> {
    let mut all = Sites::default();
    let mut ports: Vec<_> = addresses.iter().map(SocketAddr::port).collect();
    ports.dedup();
    for port in ports {
        let Some(sites) = nginx::sites(port)? else { continue };
        let new = sites.files.into_iter().filter(|file| !all.files.contains(file)).collect::<Vec<_>>();
        for file in &new {
            reporter.ok("port", &format!("{port} is nginx's, because of {} alone", file.display()));
        }
        all.files.extend(new);
        all.targets.extend(sites.targets);
        all.differences.extend(sites.differences);
    }
    for (line, fix) in &all.differences {
        reporter.warn("nginx", line, fix);
    }
    Ok(all)
}

fn inspect_engine(
    existing: &CurrentConfig,
    sites: &Sites,
    plan: &mut Plan,
    reporter: &mut StepReporter,
) -> Result<(), MoveError> {
    let flag = |plan: &Plan, name: &str| {
        plan.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let hint = |kind: Option<String>, url: Option<String>| engine::EngineHint {
        kind: kind.as_deref().and_then(EngineKind::parse),
        url: url.and_then(|url| url.parse().ok()),
    };
    let flags = hint(flag(plan, "engine"), flag(plan, "engine_url"));
    let file = hint(existing.value_in_file("engine"), existing.value_in_file("engine_url"));
    let kind = flags.kind.or(Some(existing.config.engine));
    let mut pid = None;
    let mut output_dir = flag(plan, "engine_output_dir").map(Into::into);
    let mut unit = flag(plan, "engine_unit");
    if kind == Some(EngineKind::Builtin) {
        reporter.ok("engine", "builtin: procedural images, made by the sidecar itself, to try it out");
    } else {
        let targets: Vec<_> = sites.targets.iter().map(|target| target.address.clone()).collect();
        let found = engine::find(&flags, &file, &targets, &plan.addresses)?;
        reporter.ok("engine", &format!("{} {} at {}", found.kind.name(), found.version, found.address()));
        warn_unused_targets(sites, &found, reporter);
        let process = engine::find_process(&found, reporter);
        pid = process.pid;
        output_dir = output_dir.or(process.output_dir);
        unit = unit.or(process.unit);
        plan_engine_settings(existing, &file, &found, unit.as_deref(), plan);
    }
    let output_dir = output_dir.or_else(|| existing.config.engine_output_dir.clone());
    if let Some(dir) = output_dir.filter(|dir| !dir.to_string_lossy().contains(char::is_control)) {
        if existing.config.engine_output_dir.as_ref() != Some(&dir) {
            set_unless_given(plan, "engine_output_dir", &dir.to_string_lossy());
        }
        plan.home_dir = sandbox::is_in_home_dir(&dir).then_some(dir);
    }
    let selection = card::CardSelection {
        flag: flag(plan, "gpu_id"),
        file: existing.value_in_file("gpu_id"),
        optional: flag(plan, "gpu").map_or(!existing.config.gpu_required, |gpu| gpu == "optional"),
        library: flag(plan, "nvml_lib").map(Into::into).or_else(|| existing.config.nvml_lib.clone()),
        engine_unit: unit.unwrap_or_else(|| existing.config.engine_unit.clone()),
        engine_pid: pid,
    };
    if let Some(uuid) = card::select(&selection, reporter)? {
        plan.settings.retain(|(key, _)| key != "gpu_id");
        if existing.config.gpu_id != uuid {
            set_unless_given(plan, "gpu_id", &uuid);
        }
    }
    Ok(())
}

/// The settings that this engine needs and the configuration lacks.
fn plan_engine_settings(
    existing: &CurrentConfig,
    file: &engine::EngineHint,
    found: &engine::FoundEngine,
    unit: Option<&str>,
    plan: &mut Plan,
) {
    if existing.config.engine != found.kind {
        set_unless_given(plan, "engine", found.kind.name());
    }
    if file.url.clone().or_else(|| found.kind.default_url()).as_ref() != Some(&found.url) {
        set_unless_given(plan, "engine_url", found.address());
    }
    let configured =
        existing.value_in_file("engine_unit").unwrap_or_else(|| found.kind.default_unit().to_owned());
    if let Some(unit) = unit.filter(|unit| *unit != configured) {
        set_unless_given(plan, "engine_unit", unit);
    }
}

/// A flag wins.
fn set_unless_given(plan: &mut Plan, key: &str, value: &str) {
    if !plan.settings.iter().any(|(given, _)| given == key) {
        plan.settings.push((key.to_owned(), value.to_owned()));
    }
}

/// Warns of programs behind nginx that will get no more requests.
fn warn_unused_targets(sites: &Sites, found: &engine::FoundEngine, reporter: &mut StepReporter) {
    let engine_addresses = found.url.socket_addrs(|| None).unwrap_or_default();
    for target in &sites.targets {
        let Ok(address) = target.address.replace("localhost", "127.0.0.1").parse::<SocketAddr>() else {
            continue;
        };
        if engine_addresses.contains(&address) {
            continue;
        }
        let who = port::find_holder(address)
            .map_or_else(|| "nothing listens".to_owned(), |holder| holder.describe(address));
        reporter.warn(
            "nginx",
            &format!("{} went to {address} ({who}), which gets no more requests", target.location),
            "no action is needed if it served the Images API, which the sidecar now does; stop it once you are satisfied",
        );
    }
}
