//! What is looked at before anything changes, and what follows from it: a plan, or the reason why there is none.

use std::net::SocketAddr;

use clap::ArgMatches;

use super::{
    access, card, engine,
    lines::{Lines, Stop},
    nginx::{self, site::Sites},
    record::Plan,
    settings::{self, Existing},
    units,
};
use crate::{config::EngineKind, port, sandbox};

/// Where the service keeps its identity; it is there once the service ran.
const STATE: &str = "/var/lib/ada2-sidecar";

/// What to do.
pub(crate) enum Outcome {
    Move(Box<Plan>),
    /// Our socket holds the port already.
    AlreadyIn(Vec<SocketAddr>),
}

/// Who holds the port.
enum Holder {
    Nobody,
    /// With its unit.
    Nginx(String),
    Us,
}

/// Looks at everything.
pub(crate) fn look(arguments: &ArgMatches, lines: &mut Lines) -> Result<Outcome, Stop> {
    units::check_installed()?;
    lines.ok("units", "systemd runs, ada2-sidecar.service and ada2-sidecar.socket are installed");
    let flags = settings::flags(arguments)?;
    let existing = Existing::read()?;
    lines.ok("configuration", &format!("{} is valid", existing.path.display()));
    let addresses = units::addresses()?;
    let (nginx, sites) = match holder(&addresses)? {
        Holder::Us => return Ok(Outcome::AlreadyIn(addresses)),
        Holder::Nginx(unit) => {
            let sites = look_at_nginx(&addresses, lines)?;
            if sites.files.is_empty() {
                let message =
                    format!("nginx ({unit}) holds the port, and no file of its configuration says so");
                return Err(Stop::at(
                    "port",
                    message,
                    format!("it runs an older configuration: `sudo systemctl reload {unit}`, then again"),
                ));
            }
            (Some(unit), sites)
        }
        Holder::Nobody => {
            lines.ok("port", &format!("{}: free", listed(&addresses)));
            // A site that is not in force yet would take the port at nginx's next start.
            (units::is_active(nginx::UNIT).then(|| nginx::UNIT.to_owned()), look_at_nginx(&addresses, lines)?)
        }
    };
    let mut plan = Plan {
        config: existing.path.clone(),
        settings: flags,
        home_folder: None,
        sites: sites.files.clone(),
        nginx,
        addresses,
        ready_seconds: arguments.get_one("wait").copied().unwrap_or(60),
        first_time: std::fs::symlink_metadata(STATE).is_err(),
    };
    look_at_engine(&existing, &sites, &mut plan, lines)?;
    access::decide(&existing, arguments.get_flag("yes"), &mut plan, lines)?;
    settings::check_in_force(&plan)?;
    Ok(Outcome::Move(Box::new(plan)))
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn holder(addresses: &[SocketAddr]) -> Result<Holder, Stop> {
    let Some((address, holder)) = addresses.iter().find_map(|one| Some((*one, port::holder(*one)?))) else {
        return Ok(Holder::Nobody);
    };
    let ours = units::is_active(units::SOCKET) || units::is_active(units::SERVICE);
    match holder.process() {
        Some(process) if process.name == "nginx" => {
            let unit = process.unit.clone().filter(|unit| unit.ends_with(".service"));
            unit.map(Holder::Nginx).ok_or_else(|| {
                let message = format!("{address} is held by {process}, which is no service of systemd's");
                Stop::at("port", message, "stop it, then `sudo ada2-sidecar move-in` again")
            })
        }
        Some(process) if ours && (process.pid == 1 || process.unit.as_deref() == Some(units::SERVICE)) => {
            Ok(Holder::Us)
        }
        other => {
            let unit =
                other.and_then(|process| process.unit.clone()).filter(|unit| unit.ends_with(".service"));
            let fix = match unit {
                Some(unit) => format!(
                    "`sudo systemctl disable --now {unit}`, if it is not needed; or have it listen elsewhere; then again"
                ),
                None => {
                    "stop it, or have it listen elsewhere; then `sudo ada2-sidecar move-in` again".to_owned()
                }
            };
            Err(Stop::at("port", format!("{address} is held by {}", holder.who(address)), fix))
        }
    }
}

fn look_at_nginx(addresses: &[SocketAddr], lines: &mut Lines) -> Result<Sites, Stop> {
    let mut all = Sites::default();
    let mut ports: Vec<_> = addresses.iter().map(SocketAddr::port).collect();
    ports.dedup();
    for port in ports {
        let Some(sites) = nginx::sites(port)? else { continue };
        let new = sites.files.into_iter().filter(|file| !all.files.contains(file)).collect::<Vec<_>>();
        for file in &new {
            lines.ok("port", &format!("{port} is nginx's, by {} alone", file.display()));
        }
        all.files.extend(new);
        all.targets.extend(sites.targets);
        all.differences.extend(sites.differences);
    }
    for (line, instead) in &all.differences {
        lines.warn("nginx", line, instead);
    }
    Ok(all)
}

fn look_at_engine(
    existing: &Existing,
    sites: &Sites,
    plan: &mut Plan,
    lines: &mut Lines,
) -> Result<(), Stop> {
    let flag = |plan: &Plan, name: &str| {
        plan.settings.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let wanted = |kind: Option<String>, url: Option<String>| engine::Wanted {
        kind: kind.as_deref().and_then(EngineKind::parse),
        url: url.and_then(|url| url.parse().ok()),
    };
    let flags = wanted(flag(plan, "engine"), flag(plan, "engine_url"));
    let file = wanted(existing.set_to("engine"), existing.set_to("engine_url"));
    let kind = flags.kind.or(Some(existing.config.engine));
    let mut pid = None;
    let mut outputs = flag(plan, "engine_output_dir").map(Into::into);
    let mut unit = flag(plan, "engine_unit");
    if kind == Some(EngineKind::Builtin) {
        lines.ok("engine", "builtin: pictures are painted by the sidecar itself, for trying it out");
    } else {
        let targets: Vec<_> = sites.targets.iter().map(|target| target.address.clone()).collect();
        let found = engine::find(&flags, &file, &targets, &plan.addresses)?;
        lines.ok("engine", &format!("{} {} at {}", found.kind.name(), found.version, found.address()));
        others(sites, &found, lines);
        let runner = engine::runner(&found, lines);
        pid = runner.pid;
        outputs = outputs.or(runner.outputs);
        unit = unit.or(runner.unit);
        set_engine(existing, &file, &found, unit.as_deref(), plan);
    }
    let outputs = outputs.or_else(|| existing.config.engine_output_dir.clone());
    if let Some(folder) = outputs.filter(|folder| !folder.to_string_lossy().contains(char::is_control)) {
        if existing.config.engine_output_dir.as_ref() != Some(&folder) {
            set(plan, "engine_output_dir", &folder.to_string_lossy());
        }
        plan.home_folder = sandbox::is_in_a_home(&folder).then_some(folder);
    }
    let wanted = card::Wanted {
        flag: flag(plan, "gpu_id"),
        file: existing.set_to("gpu_id"),
        optional: flag(plan, "gpu").map_or(!existing.config.gpu_required, |gpu| gpu == "optional"),
        library: flag(plan, "nvml_lib").map(Into::into).or_else(|| existing.config.nvml_lib.clone()),
        engine_unit: unit.unwrap_or_else(|| existing.config.engine_unit.clone()),
        engine_pid: pid,
    };
    if let Some(uuid) = card::choose(&wanted, lines)? {
        plan.settings.retain(|(key, _)| key != "gpu_id");
        if existing.config.gpu_id != uuid {
            set(plan, "gpu_id", &uuid);
        }
    }
    Ok(())
}

/// What the settings must say for this engine, as far as they do not.
fn set_engine(
    existing: &Existing,
    file: &engine::Wanted,
    found: &engine::Found,
    unit: Option<&str>,
    plan: &mut Plan,
) {
    if existing.config.engine != found.kind {
        set(plan, "engine", found.kind.name());
    }
    if file.url.clone().or_else(|| found.kind.default_url()).as_ref() != Some(&found.url) {
        set(plan, "engine_url", found.address());
    }
    let now = existing.set_to("engine_unit").unwrap_or_else(|| found.kind.default_unit().to_owned());
    if let Some(unit) = unit.filter(|unit| *unit != now) {
        set(plan, "engine_unit", unit);
    }
}

/// A flag's value stays.
fn set(plan: &mut Plan, key: &str, value: &str) {
    if !plan.settings.iter().any(|(known, _)| known == key) {
        plan.settings.push((key.to_owned(), value.to_owned()));
    }
}

/// Programs behind nginx that nobody will ask any more.
fn others(sites: &Sites, found: &engine::Found, lines: &mut Lines) {
    let engine = found.url.socket_addrs(|| None).unwrap_or_default();
    for target in &sites.targets {
        let Ok(address) = target.address.replace("localhost", "127.0.0.1").parse::<SocketAddr>() else {
            continue;
        };
        if engine.contains(&address) {
            continue;
        }
        let who =
            port::holder(address).map_or_else(|| "nobody listens".to_owned(), |holder| holder.who(address));
        lines.warn(
            "nginx",
            &format!("{} went to {address} ({who}), which the sidecar does not ask", target.location),
            "none is needed where it served the Images API, which the sidecar does itself; stop it once you are satisfied",
        );
    }
}
