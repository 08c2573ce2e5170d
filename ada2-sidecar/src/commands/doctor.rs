//! `ada2-sidecar doctor`: everything that can be told from this host about why pictures are not made, or soon will not be,
//! a line for each thing with the command that fixes it. Changes nothing.
//!
//! Each check gathers what is seen into facts and judges them in a function without side effects. They go from causes to
//! consequences: what follows from a line above has none of its own.

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
mod network;
mod readiness;
mod service_state;
mod settings;
mod subprocess;
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
use service::doctor::{DoctorReport, Finding, Verdict};
use wire::health::{CheckStatus, ReadyReport};

use self::{
    configuration::{ConfigurationState, DoctorContext},
    driver::KernelDriver,
};
use super::{
    EXIT_FAILURE,
    show::{self, HostReadiness, query_at, reachable},
};
use crate::{
    admin::{self, AdminRequest},
    gpu::{GpuSample, GpuState},
};

/// For where the service listens, which it tells from memory.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks at everything in turn.
pub(super) fn doctor(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> io::Result<ExitCode> {
    let flag = |name: &str| matches.subcommand().is_some_and(|(_, arguments)| arguments.get_flag(name));
    let setup = DoctorContext::discover(matches, environment, names);
    let mut doctor = Doctor { report: DoctorReport::new(flag("json")), explained_checks: Vec::new() };
    doctor.add_all(setup.evaluate())?;
    let port = listen::PortFacts::gather(&setup);
    let token = token::TokenFacts::gather(&setup);
    doctor.units(&setup, &port, &token)?;
    let running = RunningService::query(&setup, &port.addresses);
    doctor.running(&setup, running.as_ref())?;
    let probe = CardProbe::run(&setup)?;
    doctor.card(&setup, probe.as_ref(), running.as_ref())?;
    // An engine that has our port is not where it should be, which is told.
    if !port.is_taken_by_engine() {
        doctor.engine(&setup, running.as_ref())?;
    }
    doctor.settings(&setup, &port, probe.as_ref(), running.as_ref())?;
    doctor.add_all(token.evaluate())?;
    doctor.readiness(&setup, probe, running.as_ref())?;
    doctor.host(&setup, &port.addresses)?;
    if flag("generate") {
        doctor.generate(&setup, running.as_ref())?;
    }
    Ok(if doctor.report.finish()? { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// The service that runs here.
struct RunningService {
    address: SocketAddr,
    report: ReadyReport,
    metrics: Option<String>,
}

impl RunningService {
    /// Asks it. A service that does not run is left alone: a connection to its socket would start it.
    fn query(setup: &DoctorContext, addresses: &[SocketAddr]) -> Option<Self> {
        if setup.units.as_ref().is_some_and(|units| !units.service.is_active()) {
            return None;
        }
        let listen_is_explicit = setup.units.is_none() && setup.listen_is_set;
        let sockets = setup.sockets.clone();
        let ask = move || admin::send_request(&sockets, AdminRequest::Addresses).ok().flatten();
        let reported =
            if listen_is_explicit { None } else { subprocess::with_timeout(ADMIN_TIMEOUT, ask).flatten() };
        let reported = reported.and_then(|answer| answer.lines.first()?.parse().ok());
        let address = reachable(&reported.or_else(|| addresses.first().copied())?);
        let body = |path: &str, as_json| Some(query_at(address, path, as_json).ok()??.body);
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
struct CardProbe {
    started: Instant,
    sample: Option<Arc<GpuSample>>,
}

impl CardProbe {
    /// None where it is not known which card is meant.
    fn run(setup: &DoctorContext) -> io::Result<Option<Self>> {
        if matches!(setup.configuration, ConfigurationState::PermissionDenied(_)) {
            return Ok(None);
        }
        let started = Instant::now();
        Ok(Some(Self { started, sample: show::first_sample(setup.card.sampler.clone())? }))
    }

    fn state(&self) -> Option<&GpuState> {
        self.sample.as_deref().map(|sample| &sample.state)
    }

    /// The card's memory in MiB.
    fn memory_total_mib(&self) -> Option<u64> {
        match self.state() {
            Some(GpuState::Present(reading)) => reading.report.memory_total,
            _ => None,
        }
    }
}

/// The lines so far.
struct Doctor {
    report: DoctorReport,
    /// Readiness checks whose cause a line has told.
    explained_checks: Vec<&'static str>,
}

impl Doctor {
    fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> io::Result<()> {
        findings.into_iter().try_for_each(|finding| self.report.add(finding))
    }

    /// Whether a line that is told so far is not `ok`.
    fn has_problem(&self, names: &[&str]) -> bool {
        let findings = self.report.findings().iter();
        findings.filter(|finding| names.contains(&finding.name)).any(|finding| finding.verdict != Verdict::Ok)
    }

    fn units(
        &mut self,
        setup: &DoctorContext,
        port: &listen::PortFacts,
        token: &token::TokenFacts,
    ) -> io::Result<()> {
        let Some(units) = &setup.units else { return self.add_all(port.evaluate()) };
        self.add_all(installation::InstallationFacts::gather(units).evaluate())?;
        self.add_all(installation::unit_settings(&units.service, setup.card.required))?;
        self.add_all(port.evaluate())?;
        let last_line = if units.service.is_active() { None } else { service_state::last_line() };
        let facts = service_state::ServiceFacts {
            units,
            configuration_is_broken: setup.is_invalid() || token.prevents_start(),
            port_is_taken: port.has_conflict(),
            last_line,
        };
        self.add_all(facts.evaluate())?;
        self.add_all(host::move_in_state(setup.root))
    }

    fn running(&mut self, setup: &DoctorContext, running: Option<&RunningService>) -> io::Result<()> {
        let service = setup.units.as_ref().map(|units| &units.service);
        if let (Some(service), None) = (service.filter(|service| service.is_active()), running) {
            let message = format!("runs as pid {} and does not answer within 5 s", service.get("MainPID"));
            return self.add_all([Finding::fail("answers", message, "sudo systemctl restart ada2-sidecar")]);
        }
        let metrics = running.and_then(|running| running.metrics.as_deref());
        self.add_all(service_state::VersionFacts::gather(metrics, service).evaluate())
    }

    fn card(
        &mut self,
        setup: &DoctorContext,
        probe: Option<&CardProbe>,
        running: Option<&RunningService>,
    ) -> io::Result<()> {
        let Some(look) = probe else { return Ok(()) };
        let sampling = &setup.card.sampler;
        let (state, required) = (look.state(), setup.card.required);
        let kernel = KernelDriver::detect();
        let library = sampling.library.as_deref();
        let driver = driver::DriverFacts {
            state,
            kernel: &kernel,
            required,
            root: setup.root,
            library,
            fixes: &setup.fixes,
        };
        self.add_all(driver.evaluate())?;
        let unit = &sampling.engine_unit;
        let card = card::CardFacts {
            state,
            required,
            gpu_id: &sampling.gpu_id,
            engine_unit: unit,
            fixes: &setup.fixes,
        };
        self.add_all(card.evaluate())?;
        // A setting that shuts the card out is the cause, and told.
        if !self.has_problem(&["unit_settings"]) {
            self.add_all(card.seen_by_service(running.map(|running| &running.report), setup.root))?;
        }
        if self.has_problem(&["driver", "card", "service_card", "unit_settings"]) {
            self.explained_checks.extend(card::GPU_VISIBILITY_CHECKS);
        }
        if self.has_problem(&["engine_card"]) {
            self.explained_checks.push("engine_works");
        }
        Ok(())
    }

    fn engine(&mut self, setup: &DoctorContext, running: Option<&RunningService>) -> io::Result<()> {
        let Some(config) = setup.config() else { return Ok(()) };
        let reached = running.is_some_and(|running| running.passes("engine_reachable"));
        let Some(engine) = engine::EngineFacts::probe(config, &setup.fixes, reached) else {
            return self.add_all([Finding::ok(
                "engine",
                "builtin: procedural pictures, made by the service itself",
            )]);
        };
        self.add_all(engine.evaluate())?;
        if engine.is_down() {
            self.explained_checks.extend([
                "engine_reachable",
                "engine_model",
                "engine_queue",
                "engine_works",
            ]);
        }
        if self.has_problem(&["engine_version", "engine_websocket"]) {
            self.explained_checks.push("engine_reachable");
        }
        if self.has_problem(&["engine_models", "templates"]) {
            self.explained_checks.push("engine_model");
        }
        let unit = engine_unit::EngineUnitFacts {
            name: &config.engine_unit,
            unit: engine.unit.as_ref(),
            engine_responds: engine.responds(),
            listener: engine.listener.as_ref(),
            root: setup.root,
            fixes: &setup.fixes,
        };
        self.add_all(unit.evaluate())
    }

    fn settings(
        &mut self,
        setup: &DoctorContext,
        port: &listen::PortFacts,
        probe: Option<&CardProbe>,
        running: Option<&RunningService>,
    ) -> io::Result<()> {
        let Some(config) = setup.config() else { return Ok(()) };
        let units = setup.units.as_ref();
        let service = units.map(|units| &units.service).filter(|service| service.is_loaded());
        let socket = units.map(|units| &units.socket).filter(|socket| socket.is_loaded());
        if let Some(folder) = &config.engine_output_dir {
            let (floor, fixes) = (config.min_free_disk, &setup.fixes);
            let service_sees = running.and_then(|running| host::service_sees_output_dir(&running.report));
            self.add_all([host::OutputDirFacts {
                folder,
                min_free: floor,
                service,
                visible_to_service: service_sees,
                fixes,
            }
            .evaluate()])?;
            self.explained_checks.push("disk");
        }
        let facts = settings::SettingsFacts {
            config,
            sockets: socket.map(|_| port.addresses.as_slice()),
            service,
            gpu_memory_mib: probe.and_then(CardProbe::memory_total_mib),
            fixes: &setup.fixes,
        };
        self.add_all(facts.evaluate())?;
        if self.report.findings().last().is_some_and(|last| last.verdict == Verdict::Fail) {
            self.explained_checks.push("vram_headroom");
        }
        Ok(())
    }

    fn readiness(
        &mut self,
        setup: &DoctorContext,
        probe: Option<CardProbe>,
        running: Option<&RunningService>,
    ) -> io::Result<()> {
        let config = setup.config();
        let own = match (running, config, probe) {
            (None, Some(config), Some(look)) => {
                self.explained_checks.extend(card::GPU_VISIBILITY_CHECKS);
                Some(HostReadiness::from_sample(config, look.sample, look.started).report)
            }
            _ => None,
        };
        let Some(report) = running.map(|running| &running.report).or(own.as_ref()) else { return Ok(()) };
        let facts = readiness::ReadinessFacts {
            report,
            from_service: running.is_some(),
            explained_checks: &self.explained_checks,
            engine: config.map(|config| config.engine),
            engine_unit: &setup.card.sampler.engine_unit,
            engine_url: report.engine.url.clone(),
            output_dir: config.and_then(|config| config.engine_output_dir.as_deref()).map(Path::new),
        };
        self.add_all(facts.evaluate())
    }

    fn host(&mut self, setup: &DoctorContext, addresses: &[SocketAddr]) -> io::Result<()> {
        self.add_all([host::disk_space()])?;
        if setup.units.is_some() {
            self.add_all(host::journal())?;
            self.add_all(host::clock())?;
        }
        self.add_all(network::host_names())?;
        self.add_all(network::firewall(addresses, setup.root))?;
        self.add_all(host::driver_upgrades())
    }

    fn generate(&mut self, setup: &DoctorContext, running: Option<&RunningService>) -> io::Result<()> {
        let Some(running) = running else {
            return self.add_all([Finding::skip("generate", "the service does not answer, as told above")]);
        };
        if !running.report.admits() {
            return self.add_all([Finding::skip("generate", "the service is not ready, as told above")]);
        }
        let token = setup.config().and_then(|config| config.token.as_ref());
        let finding = generate::check_generation(running.address, token, &setup.card.sampler.engine_unit)?;
        self.add_all([finding])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_tells_is_not_told_again() {
        let mut sheet = Doctor { report: DoctorReport::new(true), explained_checks: Vec::new() };
        sheet.add_all([Finding::ok("card", "one"), Finding::fail("driver", "gone", "sudo reboot")]).unwrap();
        assert!(sheet.has_problem(&["driver"]) && !sheet.has_problem(&["card", "service"]));
    }
}
