//! `ada2-sidecar doctor`: everything on this host that keeps images from being made, or soon will, one line each with the
//! command that fixes it. Changes nothing.
//!
//! Each check gathers facts and evaluates them in a function without side effects. Checks run from causes to consequences: a
//! consequence of an earlier line has no line of its own.

mod card;
mod configuration;
mod driver;
mod engine;
mod engine_auth;
mod engine_unit;
mod fixes;
mod generate;
mod host;
mod installation;
mod model_dir;
mod network;
mod output_dir;
mod port;
mod readiness;
mod running;
mod service_state;
mod settings;
mod token;

use std::{io, path::Path, process::ExitCode, time::Duration};

use clap::ArgMatches;
use service::{
    doctor::{DoctorReport, Finding, Verdict},
    subprocess::{self, ProcessOutput},
};

use self::{
    card::CardProbe, configuration::DoctorContext, driver::KernelDriver, port::PortFacts,
    running::RunningService, token::TokenFacts,
};
use super::{exit_code, host_readiness::HostReadiness};

/// For each program that is run to inspect the host.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);

fn run_tool(program: &str, arguments: &[&str]) -> Option<ProcessOutput> {
    subprocess::run(program, arguments, TOOL_TIMEOUT).ok()
}

/// Runs all checks.
pub(super) fn doctor(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> io::Result<ExitCode> {
    let flag = |name: &str| matches.subcommand().is_some_and(|(_, arguments)| arguments.get_flag(name));
    let context = DoctorContext::discover(matches, environment, names);
    let (port, token) = (PortFacts::gather(&context), TokenFacts::gather(&context));
    let mut doctor = Doctor {
        context: &context,
        port: &port,
        running: None,
        report: DoctorReport::new(flag("json")),
        explained_checks: Vec::new(),
    };
    doctor.add_all(context.evaluate())?;
    doctor.units(&token)?;
    let running = RunningService::query(&context, &port.addresses);
    doctor.running = running.as_ref();
    doctor.service()?;
    let probe = CardProbe::run(&context)?;
    doctor.card(probe.as_ref())?;
    // An engine that listens on our port has been reported.
    if !port.is_taken_by_engine() {
        doctor.engine()?;
    }
    doctor.settings(probe.as_ref())?;
    doctor.add_all(token.evaluate())?;
    doctor.add_all(engine_auth::check(&context))?;
    doctor.readiness(probe)?;
    doctor.host()?;
    if flag("generate") {
        doctor.generate()?;
    }
    doctor.report.finish().map(exit_code)
}

/// The checks, and the lines so far.
struct Doctor<'a> {
    context: &'a DoctorContext,
    port: &'a PortFacts,
    running: Option<&'a RunningService>,
    report: DoctorReport,
    /// Readiness checks that an earlier line explains.
    explained_checks: Vec<&'static str>,
}

impl Doctor<'_> {
    fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) -> io::Result<()> {
        findings.into_iter().try_for_each(|finding| self.report.add(finding))
    }

    fn units(&mut self, token: &TokenFacts) -> io::Result<()> {
        let (context, port) = (self.context, self.port);
        let Some(units) = &context.units else { return self.add_all(port.evaluate()) };
        self.add_all(installation::InstallationFacts::gather(units).evaluate())?;
        self.add_all(installation::unit_settings(&units.service, context.card.required))?;
        self.add_all(port.evaluate())?;
        let last_line = if units.service.is_active() { None } else { service_state::last_line() };
        let facts = service_state::ServiceFacts {
            units,
            configuration_is_broken: context.is_invalid() || token.prevents_start(),
            port_is_taken: port.has_conflict(),
            last_line,
        };
        self.add_all(facts.evaluate())?;
        self.add_all(host::move_in_state(context.root))
    }

    fn service(&mut self) -> io::Result<()> {
        let service = self.context.units.as_ref().map(|units| &units.service);
        if let (Some(service), None) = (service.filter(|service| service.is_active()), self.running) {
            let message = format!("runs as pid {} and does not answer within 5 s", service.get("MainPID"));
            return self.add_all([Finding::fail("answers", message, "sudo systemctl restart ada2-sidecar")]);
        }
        let metrics = self.running.and_then(|running| running.metrics.as_deref());
        self.add_all(running::VersionFacts::gather(metrics, service).evaluate())
    }

    fn card(&mut self, probe: Option<&CardProbe>) -> io::Result<()> {
        let Some(probe) = probe else { return Ok(()) };
        let context = self.context;
        let (sampler, state, required) = (&context.card.sampler, probe.state(), context.card.required);
        let driver = driver::DriverFacts {
            state,
            kernel: &KernelDriver::detect(),
            required,
            root: context.root,
            library: sampler.library.as_deref(),
            fixes: &context.fixes,
        };
        self.add_all(driver.evaluate())?;
        let card = card::CardFacts {
            state,
            required,
            gpu_id: &sampler.gpu_id,
            engine_unit: &sampler.engine_unit,
            fixes: &context.fixes,
        };
        self.add_all(card.evaluate())?;
        // A unit setting that hides the card has been reported.
        if !self.report.has_problem(&["unit_settings"]) {
            let report = self.running.map(|running| &running.report);
            self.add_all(card.visibility_to_service(report, context.root))?;
        }
        if self.report.has_problem(&["driver", "card", "service_card", "unit_settings"]) {
            self.explained_checks.extend(card::GPU_VISIBILITY_CHECKS);
        }
        if self.report.has_problem(&["engine_card"]) {
            self.explained_checks.push("engine_works");
        }
        Ok(())
    }

    fn engine(&mut self) -> io::Result<()> {
        let context = self.context;
        let Some(config) = context.config() else { return Ok(()) };
        let reached = self.running.is_some_and(|running| running.passes("engine_reachable"));
        let Some(engine) = engine::EngineFacts::probe(config, &context.fixes, reached) else {
            return self
                .add_all([Finding::ok("engine", "builtin: procedural images, made by the service itself")]);
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
        if self.report.has_problem(&["engine_version", "engine_websocket"]) {
            self.explained_checks.push("engine_reachable");
        }
        if self.report.has_problem(&["engine_models", "templates"]) {
            self.explained_checks.push("engine_model");
        }
        let unit = engine_unit::EngineUnitFacts {
            name: &config.engine_unit,
            unit: engine.unit.as_ref(),
            engine_responds: engine.responds(),
            listener: engine.listener.as_ref(),
            root: context.root,
            fixes: &context.fixes,
        };
        self.add_all(unit.evaluate())
    }

    fn settings(&mut self, probe: Option<&CardProbe>) -> io::Result<()> {
        let context = self.context;
        let Some(config) = context.config() else { return Ok(()) };
        let units = context.units.as_ref();
        let service = units.map(|units| &units.service).filter(|service| service.is_loaded());
        let socket = units.map(|units| &units.socket).filter(|socket| socket.is_loaded());
        if let Some(dir) = &config.engine_output_dir {
            let facts = output_dir::OutputDirFacts {
                dir,
                min_free: config.min_free_disk,
                service,
                visible_to_service: self
                    .running
                    .and_then(|running| output_dir::is_visible_to_service(&running.report)),
                fixes: &context.fixes,
            };
            self.add_all([facts.evaluate()])?;
            self.explained_checks.push("disk");
        }
        if let Some(dir) = &config.engine_model_dir {
            let facts =
                model_dir::ModelDirFacts { dir, engine: config.engine, service, fixes: &context.fixes };
            self.add_all([facts.evaluate()])?;
        }
        let facts = settings::SettingsFacts {
            config,
            sockets: socket.map(|_| self.port.addresses.as_slice()),
            service,
            gpu_memory_mib: probe.and_then(CardProbe::memory_total_mib),
            fixes: &context.fixes,
        };
        self.add_all(facts.evaluate())?;
        if self.report.findings().last().is_some_and(|last| last.verdict == Verdict::Fail) {
            self.explained_checks.push("vram_headroom");
        }
        Ok(())
    }

    fn readiness(&mut self, probe: Option<CardProbe>) -> io::Result<()> {
        let context = self.context;
        let config = context.config();
        let direct = match (self.running, config, probe) {
            (None, Some(config), Some(probe)) => {
                self.explained_checks.extend(card::GPU_VISIBILITY_CHECKS);
                Some(HostReadiness::from_sample(config, probe.sample, probe.started).report)
            }
            _ => None,
        };
        let Some(report) = self.running.map(|running| &running.report).or(direct.as_ref()) else {
            return Ok(());
        };
        let facts = readiness::ReadinessFacts {
            report,
            from_service: self.running.is_some(),
            explained_checks: &self.explained_checks,
            engine: config.map(|config| config.engine),
            engine_unit: &context.card.sampler.engine_unit,
            engine_url: report.engine.url.clone(),
            output_dir: config.and_then(|config| config.engine_output_dir.as_deref()).map(Path::new),
        };
        self.add_all(facts.evaluate())
    }

    fn host(&mut self) -> io::Result<()> {
        self.add_all([host::disk_space()])?;
        if self.context.units.is_some() {
            self.add_all(host::journal())?;
            self.add_all(host::clock())?;
        }
        self.add_all(network::host_names())?;
        self.add_all(network::firewall(&self.port.addresses, self.context.root))?;
        self.add_all(host::driver_upgrades())
    }

    fn generate(&mut self) -> io::Result<()> {
        let finding = match self.running {
            None => Finding::skip("generate", "the service does not answer (see above)"),
            Some(running) if !running.report.admits() => {
                Finding::skip("generate", "the service is not ready (see above)")
            }
            Some(running) => {
                let token = self.context.config().and_then(|config| config.token.as_ref());
                generate::check_generation(&running.client, token, &self.context.card.sampler.engine_unit)?
            }
        };
        self.add_all([finding])
    }
}
