//! `ada2-sidecar doctor`: everything that can be told from this host about why pictures are not made, or soon will not be,
//! a line for each thing with the command that fixes it. Changes nothing.
//!
//! Each check gathers what is seen into facts and judges them in a function without side effects. They go from causes to
//! consequences: what follows from a line above has none of its own.

mod bounded;
mod card;
mod configuration;
mod driver;
mod engine;
mod engine_unit;
mod environment;
mod generate;
mod host;
mod installation;
mod listen;
mod names;
mod readiness;
mod service_state;
mod settings;
mod text;
mod token;
mod unit;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ArgMatches;
use service::doctor::{Finding, Report, Verdict};
use wire::health::{CheckStatus, ReadyReport};

use self::{
    configuration::{Configuration, Setup},
    driver::Kernel,
};
use super::{
    EXIT_NO,
    show::{self, Look, reachable, running_at},
};
use crate::{
    admin::{self, Request},
    gpu::{GpuSample, GpuState},
};

/// For where the service listens, which it tells from memory.
const ADMIN_TIME: Duration = Duration::from_secs(2);

/// Looks at everything in turn.
pub(super) fn doctor(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> io::Result<ExitCode> {
    let flag = |name: &str| matches.subcommand().is_some_and(|(_, arguments)| arguments.get_flag(name));
    let setup = Setup::find(matches, environment, names);
    let mut sheet = Sheet { report: Report::new(flag("json")), told: Vec::new() };
    sheet.all(setup.judge())?;
    let port = listen::Facts::look(&setup);
    let token = token::Facts::look(&setup);
    sheet.units(&setup, &port, &token)?;
    let running = Running::ask(&setup, &port.addresses);
    sheet.running(&setup, running.as_ref())?;
    let look = CardLook::now(&setup)?;
    sheet.card(&setup, look.as_ref(), running.as_ref())?;
    // An engine that has our port is not where it should be, which is told.
    if !port.is_taken_by_engine() {
        sheet.engine(&setup, running.as_ref())?;
    }
    sheet.settings(&setup, &port, look.as_ref(), running.as_ref())?;
    sheet.all(token.judge())?;
    sheet.readiness(&setup, look, running.as_ref())?;
    sheet.host(&setup, &port.addresses)?;
    if flag("generate") {
        sheet.generate(&setup, running.as_ref())?;
    }
    Ok(if sheet.report.finish()? { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO) })
}

/// The service that runs here.
struct Running {
    address: SocketAddr,
    report: ReadyReport,
    metrics: Option<String>,
}

impl Running {
    /// Asks it. A service that does not run is left alone: a connection to its socket would start it.
    fn ask(setup: &Setup, addresses: &[SocketAddr]) -> Option<Self> {
        if setup.units.as_ref().is_some_and(|units| !units.service.is_active()) {
            return None;
        }
        let named = setup.units.is_none() && setup.listen_is_set;
        let sockets = setup.sockets.clone();
        let ask = move || admin::ask(&sockets, Request::Addresses).ok().flatten();
        let told = if named { None } else { bounded::in_time(ADMIN_TIME, ask).flatten() };
        let told = told.and_then(|answer| answer.lines.first()?.parse().ok());
        let address = reachable(&told.or_else(|| addresses.first().copied())?);
        let body = |path: &str, as_json| Some(running_at(address, path, as_json).ok()??.body);
        let report = serde_json::from_str(&body("/readyz", true)?).ok()?;
        Some(Self { address, report, metrics: body("/metrics", false) })
    }

    /// A check passes, or warns.
    fn passes(&self, name: &str) -> bool {
        let mut checks = self.report.checks.iter();
        checks
            .any(|check| check.name == name && matches!(check.status, CheckStatus::Pass | CheckStatus::Warn))
    }
}

/// A look at the card from here.
struct CardLook {
    started: Instant,
    sample: Option<Arc<GpuSample>>,
}

impl CardLook {
    /// None where it is not known which card is meant.
    fn now(setup: &Setup) -> io::Result<Option<Self>> {
        if matches!(setup.configuration, Configuration::Hidden(_)) {
            return Ok(None);
        }
        let started = Instant::now();
        Ok(Some(Self { started, sample: show::sample(setup.card.sampling.clone())? }))
    }

    fn state(&self) -> Option<&GpuState> {
        self.sample.as_deref().map(|sample| &sample.state)
    }

    /// The card's memory in MiB.
    fn memory(&self) -> Option<u64> {
        match self.state() {
            Some(GpuState::Present(reading)) => reading.report.memory_total,
            _ => None,
        }
    }
}

/// The lines so far.
struct Sheet {
    report: Report,
    /// Readiness checks whose cause a line has told.
    told: Vec<&'static str>,
}

impl Sheet {
    fn all(&mut self, findings: impl IntoIterator<Item = Finding>) -> io::Result<()> {
        findings.into_iter().try_for_each(|finding| self.report.add(finding))
    }

    /// Whether a line that is told so far is not `ok`.
    fn complains(&self, names: &[&str]) -> bool {
        let told = self.report.findings().iter();
        told.filter(|finding| names.contains(&finding.name)).any(|finding| finding.verdict != Verdict::Ok)
    }

    fn units(&mut self, setup: &Setup, port: &listen::Facts, token: &token::Facts) -> io::Result<()> {
        let Some(units) = &setup.units else { return self.all(port.judge()) };
        self.all(installation::Facts::look(units).judge())?;
        self.all(installation::settings(&units.service, setup.card.required))?;
        self.all(port.judge())?;
        let last_line = if units.service.is_active() { None } else { service_state::last_line() };
        let facts = service_state::Facts {
            units,
            configuration_is_broken: setup.is_broken() || token.stops_the_service(),
            port_is_taken: port.is_taken(),
            last_line,
        };
        self.all(facts.judge())?;
        self.all(host::moved(setup.root))
    }

    fn running(&mut self, setup: &Setup, running: Option<&Running>) -> io::Result<()> {
        let service = setup.units.as_ref().map(|units| &units.service);
        if let (Some(service), None) = (service.filter(|service| service.is_active()), running) {
            let message = format!("runs as pid {} and does not answer within 5 s", service.get("MainPID"));
            return self.all([Finding::fail("answers", message, "sudo systemctl restart ada2-sidecar")]);
        }
        let metrics = running.and_then(|running| running.metrics.as_deref());
        self.all(service_state::Versions::look(metrics, service).judge())
    }

    fn card(&mut self, setup: &Setup, look: Option<&CardLook>, running: Option<&Running>) -> io::Result<()> {
        let Some(look) = look else { return Ok(()) };
        let sampling = &setup.card.sampling;
        let (state, required) = (look.state(), setup.card.required);
        let kernel = Kernel::look();
        let library = sampling.library.as_deref();
        let driver = driver::Facts {
            state,
            kernel: &kernel,
            required,
            root: setup.root,
            library,
            fixes: &setup.fixes,
        };
        self.all(driver.judge())?;
        let unit = &sampling.engine_unit;
        let card =
            card::Facts { state, required, gpu_id: &sampling.gpu_id, engine_unit: unit, fixes: &setup.fixes };
        self.all(card.judge())?;
        // A setting that shuts the card out is the cause, and told.
        if !self.complains(&["unit_settings"]) {
            self.all(card.seen_by_service(running.map(|running| &running.report), setup.root))?;
        }
        if self.complains(&["driver", "card", "service_card", "unit_settings"]) {
            self.told.extend(card::SIGHT);
        }
        if self.complains(&["engine_card"]) {
            self.told.push("engine_works");
        }
        Ok(())
    }

    fn engine(&mut self, setup: &Setup, running: Option<&Running>) -> io::Result<()> {
        let Some(config) = setup.config() else { return Ok(()) };
        let reached = running.is_some_and(|running| running.passes("engine_reachable"));
        let Some(engine) = engine::Facts::look(config, &setup.fixes, reached) else {
            return self
                .all([Finding::ok("engine", "builtin: procedural pictures, made by the service itself")]);
        };
        self.all(engine.judge())?;
        if engine.is_down() {
            self.told.extend(["engine_reachable", "engine_model", "engine_queue", "engine_works"]);
        }
        if self.complains(&["engine_version", "engine_websocket"]) {
            self.told.push("engine_reachable");
        }
        if self.complains(&["engine_models", "templates"]) {
            self.told.push("engine_model");
        }
        let unit = engine_unit::Facts {
            name: &config.engine_unit,
            unit: engine.unit.as_ref(),
            answers: engine.answers(),
            holder: engine.holder.as_ref(),
            root: setup.root,
            fixes: &setup.fixes,
        };
        self.all(unit.judge())
    }

    fn settings(
        &mut self,
        setup: &Setup,
        port: &listen::Facts,
        look: Option<&CardLook>,
        running: Option<&Running>,
    ) -> io::Result<()> {
        let Some(config) = setup.config() else { return Ok(()) };
        let units = setup.units.as_ref();
        let service = units.map(|units| &units.service).filter(|service| service.is_loaded());
        let socket = units.map(|units| &units.socket).filter(|socket| socket.is_loaded());
        if let Some(folder) = &config.engine_output_dir {
            let (floor, fixes) = (config.host.min_free_disk, &setup.fixes);
            let service_sees = running.and_then(|running| host::sees_folder(&running.report));
            self.all([host::Output { folder, floor, service, service_sees, fixes }.judge()])?;
            self.told.push("disk");
        }
        let facts = settings::Facts {
            config,
            sockets: socket.map(|_| port.addresses.as_slice()),
            service,
            card: look.and_then(CardLook::memory),
            fixes: &setup.fixes,
        };
        self.all(facts.judge())?;
        if self.report.findings().last().is_some_and(|last| last.verdict == Verdict::Fail) {
            self.told.push("vram_headroom");
        }
        Ok(())
    }

    fn readiness(
        &mut self,
        setup: &Setup,
        look: Option<CardLook>,
        running: Option<&Running>,
    ) -> io::Result<()> {
        let config = setup.config();
        let own = match (running, config, look) {
            (None, Some(config), Some(look)) => {
                self.told.extend(card::SIGHT);
                Some(Look::of(config, look.sample, look.started).report)
            }
            _ => None,
        };
        let Some(report) = running.map(|running| &running.report).or(own.as_ref()) else { return Ok(()) };
        let facts = readiness::Facts {
            report,
            by_service: running.is_some(),
            told: &self.told,
            engine: config.map(|config| config.engine),
            engine_unit: &setup.card.sampling.engine_unit,
            engine_url: report.engine.url.clone(),
            output_dir: config.and_then(|config| config.engine_output_dir.as_deref()).map(Path::new),
        };
        self.all(facts.judge())
    }

    fn host(&mut self, setup: &Setup, addresses: &[SocketAddr]) -> io::Result<()> {
        self.all([host::disk()])?;
        if setup.units.is_some() {
            self.all(host::journal())?;
            self.all(host::clock())?;
        }
        self.all(names::names())?;
        self.all(names::firewall(addresses, setup.root))?;
        self.all(host::driver_upgrades())
    }

    fn generate(&mut self, setup: &Setup, running: Option<&Running>) -> io::Result<()> {
        let Some(running) = running else {
            return self.all([Finding::skip("generate", "the service does not answer, as told above")]);
        };
        if !running.report.admits() {
            return self.all([Finding::skip("generate", "the service is not ready, as told above")]);
        }
        let token = setup.config().and_then(|config| config.edge.token.as_ref());
        let finding = generate::generate(running.address, token, &setup.card.sampling.engine_unit)?;
        self.all([finding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_tells_is_not_told_again() {
        let mut sheet = Sheet { report: Report::new(true), told: Vec::new() };
        sheet.all([Finding::ok("card", "one"), Finding::fail("driver", "gone", "sudo reboot")]).unwrap();
        assert!(sheet.complains(&["driver"]) && !sheet.complains(&["card", "service"]));
    }
}
