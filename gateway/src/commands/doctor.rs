//! `gateway doctor`: everything that keeps the gateway from serving, or will, with what fixes it, a line for each thing. It looks and
//! changes nothing; it works while the gateway is down, while its configuration is broken, as root, as the gateway's account and as
//! anybody else, who learns of what cannot be told how it can.
//!
//! Facts are gathered at the edge, all at once and each within a time limit; what follows from them is decided by pure functions. What
//! is only a consequence of something that was told already is not told again.

mod account;
mod backends;
mod certificate;
mod gpu_checks;
mod launchd;
mod mac;
mod paths;
mod remote;
mod running;
mod settings;
mod tools;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use clap::ArgMatches;
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use service::{
    doctor::{DoctorReport, Finding, Verdict},
    files::current_user_name,
    secret::Secret,
};

use super::{
    CommandError, Environment, ca, exit_code,
    target::{GatewayTarget, address_of, block_on, escaped},
};
use crate::config::{self, ConfigReport};
use account::Account;
use launchd::LaunchdJob;
use running::{Responder, RunningGateway};
use tools::SystemTools;

/// Where the launchd job has its program, for the firewall where no job is installed.
const PROGRAM: &str = "/usr/local/bin/gateway";

pub(super) fn run(
    arguments: &ArgMatches,
    environment: Environment,
    names: &[String],
) -> Result<ExitCode, CommandError> {
    let mut report = DoctorReport::new(arguments.get_flag("json"));
    let given = arguments.get_one::<String>("url").cloned();
    block_on(async {
        let target = if given.as_deref().is_some_and(|url| !remote::is_local(url)) {
            let target = GatewayTarget::from_arguments(arguments, environment)?;
            let (findings, status) = remote::examine(&target).await;
            findings.into_iter().try_for_each(|finding| report.add(finding))?;
            status.map(|status| (target, status))
        } else {
            let examined = config::inspect(arguments, &environment, names);
            let (findings, running) = examine_local(&examined, arguments, environment, given).await;
            findings.into_iter().try_for_each(|finding| report.add(finding))?;
            running
        };
        let (generate, overload) = (arguments.get_flag("generate"), arguments.get_flag("overload"));
        for finding in gpu_checks::findings(target.as_ref(), generate, overload, report.findings()).await {
            report.add(finding)?;
        }
        Ok(())
    })?;
    Ok(exit_code(report.finish()?))
}

/// A gateway that can be asked for pictures.
type ReachableGateway = Option<(GatewayTarget, serde_json::Value)>;

/// This machine.
async fn examine_local(
    examined: &ConfigReport,
    arguments: &ArgMatches,
    environment: Environment,
    given: Option<String>,
) -> (Vec<Finding>, ReachableGateway) {
    let tools = SystemTools::new(environment("PATH"));
    let is_mac = tools.has("sw_vers");
    let job = if is_mac { Some(LaunchdJob::inspect(&tools).await) } else { None };
    let of_job = job.as_ref().and_then(LaunchdJob::user);
    let data: Option<PathBuf> = examined.settings.raw("GATEWAY_DATA_DIR").map(Into::into);
    let owned = [Some(examined.env.path.as_path()), data.as_deref()];
    let account = Account::find(of_job, &owned.into_iter().flatten().collect::<Vec<_>>(), &examined.env.path);
    let is_denied = examined.env.is_unreadable && is_denied(&examined.env.path);
    let mut seen = Examination {
        examined,
        tools: &tools,
        job: job.as_ref(),
        account: &account,
        is_denied,
        findings: Vec::new(),
    };
    seen.settings().await;
    if is_denied {
        // Where anything is, is in the file that is not to be read.
        seen.machine(true).await;
        return (seen.findings, None);
    }
    let asked = seen.service(arguments, given).await;
    (seen.findings, asked)
}

fn is_denied(path: &Path) -> bool {
    std::fs::File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// What was seen so far.
struct Examination<'a> {
    examined: &'a ConfigReport,
    tools: &'a SystemTools,
    /// On a Mac.
    job: Option<&'a LaunchdJob>,
    account: &'a Account,
    /// The env file is not for this account to read.
    is_denied: bool,
    findings: Vec<Finding>,
}

/// Checks whose failure is why the gateway does not run.
const STARTUP_CHECKS: [&str; 6] =
    ["configuration", "secret_files", "store", "data_dir", "log", "certificate"];

/// Facts that depend on the configuration.
struct ServiceFacts {
    /// Where the gateway is asked.
    base: Option<String>,
    /// The certificate that it uses.
    served_certificate: Option<CertificateDer<'static>>,
    configured: certificate::ConfiguredCertificate,
    backends: Vec<backends::BackendFacts>,
    legacy: Option<Result<String, String>>,
    places: paths::PathsFacts,
    /// None where its address is not known.
    running: Option<RunningGateway>,
    /// How it can be asked with a token.
    target: Option<(reqwest::Client, Option<Secret>)>,
}

impl Examination<'_> {
    fn fails(&self, names: &[&str]) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Fail && names.contains(&finding.name))
    }

    fn is_daemon(&self) -> bool {
        self.job.is_some_and(LaunchdJob::is_installed)
    }

    async fn settings(&mut self) {
        let command = self.account.doctor_command();
        self.findings.extend(settings::findings(self.examined, self.is_denied.then_some(command.as_str())));
        let files =
            settings::inspect_secret_files(self.examined.secret_files(), self.tools, self.account).await;
        self.findings.extend(settings::secret_files(&files, self.account));
    }

    /// Everything that needs to know where things are.
    async fn service(&mut self, arguments: &ArgMatches, given: Option<String>) -> ReachableGateway {
        let (examined, config) = (self.examined, self.examined.config.as_ref());
        let gathered = self.gather(arguments, given).await;
        let ServiceFacts {
            base,
            served_certificate: shown,
            configured,
            backends,
            legacy,
            places,
            running,
            target,
        } = gathered;
        let is_mac = self.job.is_some();
        let job = self.job.and_then(LaunchdJob::process);
        self.findings.extend(paths::findings(&places, config, self.is_daemon(), job));
        let host = config.and_then(|config| config.public_base_url.as_deref()?.parse::<Url>().ok());
        let host = host.as_ref().and_then(Url::host_str);
        self.findings.extend(certificate::findings(&configured, shown.as_ref(), host, SystemTime::now()));
        if let (true, Some((path, output))) = (is_mac, configured.trust(self.tools).await) {
            self.findings.push(certificate::trust(&path, &output));
        }
        let is_taken = running.as_ref().is_some_and(RunningGateway::is_other_program);
        if let Some(job) = self.job {
            let grace = config.map(|config| config.shutdown_grace);
            let cause = is_taken || self.fails(&STARTUP_CHECKS);
            self.findings.extend(launchd::findings(job, cause, grace));
        }
        self.running(running.as_ref(), &configured, places.gateway(job)).await;
        let sees = |class: &str| running.as_ref()?.backend_error(class);
        self.findings.extend(backends::findings(&backends, &sees, env!("CARGO_PKG_VERSION"), is_mac));
        self.findings.extend(legacy.as_ref().map(backends::legacy));
        let for_others =
            examined.config.as_ref().is_some_and(|config| !settings::is_loopback(&config.listen.0));
        self.machine(for_others).await;
        let status = running.and_then(|running| running.status?.ok())?;
        let ((client, token), base) = target.zip(base)?;
        Some((GatewayTarget::new(base.parse().ok()?, token, client), status))
    }

    async fn gather(&self, arguments: &ArgMatches, given: Option<String>) -> ServiceFacts {
        let (examined, config) = (self.examined, self.examined.config.as_ref());
        let base =
            given.or_else(|| configured_address(examined)).map(|base| base.trim_end_matches('/').to_owned());
        let raw = |name: &str| examined.settings.raw(name);
        let (responder, configured, backends, legacy) = tokio::join!(
            async { Some(running::probe(base.as_deref()?).await) },
            certificate::ConfiguredCertificate::inspect(config, raw("GATEWAY_TLS_CERT_PATH")),
            async {
                match config {
                    Some(config) => backends::inspect_backends(config).await,
                    None => Vec::new(),
                }
            },
            async { backends::ask_legacy(config?).await },
        );
        let shown = match &responder {
            Some(Responder::Gateway(certificate)) => certificate.clone(),
            _ => None,
        };
        let target = authenticated_client(arguments, examined, &configured, shown.as_ref());
        let path = |name: &str| raw(name).map(PathBuf::from);
        let named = paths::ConfiguredPaths {
            store: path("UI_IMAGE_DIR"),
            data: path("GATEWAY_DATA_DIR"),
            log: path("GATEWAY_LOG_FILE"),
        };
        let answers = matches!(responder, Some(Responder::Gateway(_)));
        let files =
            [Some(examined.env.path.clone()), examined.backends_file()].into_iter().flatten().collect();
        let (places, running) = tokio::join!(
            paths::inspect(self.tools, self.account.clone(), named, self.job.is_some(), answers),
            async {
                Some(
                    RunningGateway::inspect(base.clone()?, responder?, self.tools, target.clone(), files)
                        .await,
                )
            },
        );
        ServiceFacts {
            base,
            served_certificate: shown,
            configured,
            backends,
            legacy,
            places,
            running,
            target,
        }
    }

    /// `earlier` is a gateway that runs, though none answers at the configured address.
    async fn running(
        &mut self,
        running: Option<&RunningGateway>,
        configured: &certificate::ConfiguredCertificate,
        earlier: Option<u32>,
    ) {
        let Some(running) = running else {
            let is_any = self.examined.settings.raw("GATEWAY_PORT").is_some_and(|port| port.trim() == "0");
            // Else its address is invalid, which is reported already.
            let message = "GATEWAY_PORT is 0: name the running gateway with --url";
            return self.findings.extend(is_any.then(|| Finding::skip("port", message)));
        };
        let cause = self.fails(&STARTUP_CHECKS) || self.fails(&["plist", "account", "program", "service"]);
        let installed = self.installed().await;
        let context = running::RunContext {
            is_blocked: cause,
            is_daemon: self.is_daemon(),
            installed: &installed,
            store_fails: self.fails(&["store"]),
            unreachable_process: earlier,
            process: running.process(),
            is_root: current_user_name() == "root",
            is_excluded: self.examined.config.as_ref().is_some_and(settings::leaves_out_this_machine),
        };
        self.findings.extend(running::findings(running, context));
        if running.status.is_none() && running.answers() {
            let is_reported = self.findings.iter().any(|finding| finding.name == certificate::SERVED_CHECK);
            self.findings.push(match self.examined.config {
                None => Finding::skip("answers", "not checked: the configuration is broken"),
                Some(_) if is_reported || configured.is_hidden() => {
                    Finding::skip("answers", "not checked: its certificate is not the configured one")
                }
                Some(_) => running::unconfigured_gateway(running, context),
            });
        }
    }

    /// The version that the next start runs.
    async fn installed(&self) -> String {
        let own = env!("CARGO_PKG_VERSION").to_owned();
        let Some(program) = self.job.and_then(LaunchdJob::program) else { return own };
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        if std::env::current_exe().ok().and_then(|path| real(&path)) == real(Path::new(program)) {
            return own;
        }
        let ran = self.tools.run(program, &["--version"]).await;
        ran.text().and_then(|text| text.split_whitespace().nth(1)).map_or(own, escaped)
    }

    /// How a Mac is set.
    async fn machine(&mut self, for_others: bool) {
        if let Some(job) = self.job {
            let printed = mac::gather(self.tools, job.program().unwrap_or(PROGRAM)).await;
            self.findings.extend(mac::findings(&printed, for_others));
        }
    }
}

/// Where the gateway of this configuration can be asked, unless what is configured is invalid.
fn configured_address(examined: &ConfigReport) -> Option<String> {
    let is_of_address = |key: &str| ["GATEWAY_HOST", "GATEWAY_PORT"].contains(&key);
    if examined.problems.iter().any(|problem| is_of_address(&problem.key) || is_of_address(&problem.source)) {
        return None;
    }
    let raw = |name: &str| examined.settings.raw(name);
    let tls = service::settings::boolean(raw("GATEWAY_TLS")?).unwrap_or(true);
    address_of(raw("GATEWAY_HOST")?.trim(), raw("GATEWAY_PORT")?.trim().parse().ok()?, tls)
}

/// The client that may show it a token, and the token. None where it cannot be told that it is the gateway that is configured.
fn authenticated_client(
    arguments: &ArgMatches,
    examined: &ConfigReport,
    configured: &certificate::ConfiguredCertificate,
    served: Option<&CertificateDer<'static>>,
) -> Option<(reqwest::Client, Option<Secret>)> {
    let config = examined.config.as_ref()?;
    let given = arguments.get_one::<String>("token").and_then(|token| Secret::token(token).ok());
    let token = given.or_else(|| config.access.tokens.first().map(|token| token.secret.clone()));
    if let Some(file) = arguments.get_one::<String>("ca") {
        return super::target::build_client(Some(file.clone()), true, None)
            .ok()
            .map(|client| (client, token));
    }
    let certificate = configured.own().map(|own| own.leaf.clone());
    // What the running one shows was replaced since, or is somebody else's.
    let is_known = match (&certificate, served) {
        (Some(own), Some(served)) => own == served,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    is_known.then(|| running::client(certificate)).flatten().map(|client| (client, token))
}

/// Text for a shell, on a line.
fn quoted(text: &str) -> String {
    ca::shell_quoted(&escaped(text))
}
