//! This machine: configuration, files, launchd job, the running gateway, its backends, and how a Mac is set up.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::ArgMatches;
use reqwest::{Client, Url};
use rustls::pki_types::CertificateDer;
use service::{
    doctor::{Finding, Verdict},
    files::current_user_name,
    secret::Secret,
};

use super::{
    ReachableGateway,
    account::Account,
    backends::{self, BackendFacts},
    certificate::{self, ConfiguredCertificate},
    launchd::{self, LaunchdJob},
    mac,
    paths::{self, ConfiguredPaths, PathsFacts},
    running::{self, Responder, RunContext, RunningGateway},
    settings,
    tools::SystemTools,
};
use crate::{
    commands::{
        Environment,
        target::{GatewayTarget, address_of, build_client},
    },
    config::{Config, ConfigReport},
};

/// Checks whose failure keeps the gateway from starting.
const STARTUP_CHECKS: [&str; 6] =
    ["configuration", "secret_files", "store", "data_dir", "log", "certificate"];
/// The same of the launchd job.
const JOB_CHECKS: [&str; 4] = ["plist", "account", "program", "service"];

/// Examines this machine; also returns the running gateway for further checks.
pub(super) async fn examine(
    report: &ConfigReport,
    arguments: &ArgMatches,
    environment: Environment,
) -> (Vec<Finding>, Option<ReachableGateway>) {
    let tools = SystemTools::new(environment("PATH"));
    let job = if tools.has("sw_vers") { Some(LaunchdJob::inspect(&tools).await) } else { None };
    let env_file = report.env.path.as_path();
    let data_dir = report.settings.raw("GATEWAY_DATA_DIR").map(PathBuf::from);
    let owned: Vec<_> = [Some(env_file), data_dir.as_deref()].into_iter().flatten().collect();
    let account = Account::find(job.as_ref().and_then(LaunchdJob::user), &owned, env_file);
    let mut examination =
        Examination { report, tools: &tools, job: job.as_ref(), account: &account, findings: Vec::new() };
    let is_hidden = report.env.is_unreadable && is_denied(env_file);
    examination.configuration(is_hidden).await;
    if is_hidden {
        // All other checks depend on the settings in that file.
        examination.mac(true).await;
        return (examination.findings, None);
    }
    let gateway = examination.service(arguments).await;
    (examination.findings, gateway)
}

fn is_denied(path: &Path) -> bool {
    fs::File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The examination so far.
struct Examination<'a> {
    report: &'a ConfigReport,
    tools: &'a SystemTools,
    /// On a Mac.
    job: Option<&'a LaunchdJob>,
    account: &'a Account,
    findings: Vec<Finding>,
}

/// Facts that depend on the configuration.
struct ServiceFacts {
    /// None if its address is unknown.
    running: Option<RunningGateway>,
    served_certificate: Option<CertificateDer<'static>>,
    certificate: ConfiguredCertificate,
    /// How to ask it with a token.
    target: Option<GatewayTarget>,
    paths: PathsFacts,
    backends: Vec<BackendFacts>,
    legacy: Option<Result<String, String>>,
}

impl Examination<'_> {
    fn config(&self) -> Option<&Config> {
        self.report.config.as_ref()
    }

    fn is_mac(&self) -> bool {
        self.job.is_some()
    }

    fn is_daemon(&self) -> bool {
        self.job.is_some_and(LaunchdJob::is_installed)
    }

    fn fails(&self, names: &[&str]) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Fail && names.contains(&finding.name))
    }

    async fn configuration(&mut self, is_hidden: bool) {
        let command = is_hidden.then(|| self.account.doctor_command());
        self.findings.extend(settings::findings(self.report, command.as_deref()));
        let files =
            settings::inspect_secret_files(self.report.secret_files(), self.tools, self.account).await;
        self.findings.extend(settings::secret_files(&files, self.account));
    }

    /// Everything that depends on the configuration.
    async fn service(&mut self, arguments: &ArgMatches) -> Option<ReachableGateway> {
        let config = self.report.config.as_ref();
        let facts = self.gather(arguments).await;
        let job_process = self.job.and_then(LaunchdJob::process);
        self.findings.extend(paths::findings(&facts.paths, config, self.is_daemon(), job_process));
        let public_url: Option<Url> =
            config.and_then(|config| config.public_base_url.as_deref()?.parse().ok());
        self.findings.extend(certificate::findings(
            &facts.certificate,
            facts.served_certificate.as_ref(),
            public_url.as_ref().and_then(Url::host_str),
            SystemTime::now(),
        ));
        if let (true, Some((path, output))) = (self.is_mac(), facts.certificate.trust(self.tools).await) {
            self.findings.push(certificate::trust(&path, &output));
        }
        if let Some(job) = self.job {
            let is_port_taken = facts.running.as_ref().is_some_and(RunningGateway::is_other_program);
            let is_blocked = is_port_taken || self.fails(&STARTUP_CHECKS);
            let grace = config.map(|config| config.shutdown_grace);
            self.findings.extend(launchd::findings(job, is_blocked, grace));
        }
        self.running(&facts, facts.paths.gateway(job_process)).await;
        let reported_error = |class: &str| facts.running.as_ref()?.backend_error(class);
        self.findings.extend(backends::findings(
            &facts.backends,
            &reported_error,
            env!("CARGO_PKG_VERSION"),
            self.is_mac(),
        ));
        self.findings.extend(facts.legacy.as_ref().map(backends::legacy));
        self.mac(config.is_some_and(|config| !settings::is_loopback(&config.listen.0))).await;
        facts.target.zip(facts.running?.status?.ok())
    }

    async fn gather(&self, arguments: &ArgMatches) -> ServiceFacts {
        let config = self.config();
        let setting = |name: &str| self.report.settings.raw(name);
        let url = arguments.get_one::<String>("url").cloned().or_else(|| configured_address(self.report));
        let base = url.map(|url| url.trim_end_matches('/').to_owned());
        let (responder, certificate, backends, legacy) = tokio::join!(
            async { Some(running::probe(base.as_deref()?).await) },
            ConfiguredCertificate::inspect(config, setting("GATEWAY_TLS_CERT_PATH")),
            async {
                match config {
                    Some(config) => backends::inspect_backends(config).await,
                    None => Vec::new(),
                }
            },
            async { backends::ask_legacy(config?).await },
        );
        let served_certificate = match &responder {
            Some(Responder::Gateway(certificate)) => certificate.clone(),
            _ => None,
        };
        let target = base.as_deref().and_then(|base| {
            let (client, token) =
                authenticated_client(arguments, config?, &certificate, served_certificate.as_ref())?;
            Some(GatewayTarget::new(base.parse().ok()?, token, client))
        });
        let path = |name: &str| setting(name).map(PathBuf::from);
        let configured = ConfiguredPaths {
            store: path("UI_IMAGE_DIR"),
            data: path("GATEWAY_DATA_DIR"),
            log: path("GATEWAY_LOG_FILE"),
        };
        let answers = matches!(responder, Some(Responder::Gateway(_)));
        let files: Vec<_> =
            [Some(self.report.env.path.clone()), self.report.backends_file()].into_iter().flatten().collect();
        let (paths, running) = tokio::join!(
            paths::inspect(self.tools, self.account.clone(), configured, self.is_mac(), answers),
            async {
                Some(RunningGateway::inspect(base?, responder?, self.tools, target.as_ref(), &files).await)
            },
        );
        ServiceFacts { running, served_certificate, certificate, target, paths, backends, legacy }
    }

    /// `unreachable_process` is a running gateway that does not answer at the configured address.
    async fn running(&mut self, facts: &ServiceFacts, unreachable_process: Option<u32>) {
        let Some(running) = &facts.running else {
            let is_any = self.report.settings.raw("GATEWAY_PORT").is_some_and(|port| port.trim() == "0");
            // Otherwise the address is invalid, which is reported already.
            let message = "GATEWAY_PORT is 0: name the running gateway with --url";
            return self.findings.extend(is_any.then(|| Finding::skip("port", message)));
        };
        let installed = self.installed_version().await;
        let context = RunContext {
            is_blocked: self.fails(&STARTUP_CHECKS) || self.fails(&JOB_CHECKS),
            is_daemon: self.is_daemon(),
            installed: &installed,
            store_fails: self.fails(&["store"]),
            unreachable_process,
            process: running.process(),
            is_root: current_user_name() == "root",
            is_excluded: self.config().is_some_and(settings::leaves_out_this_machine),
        };
        self.findings.extend(running::findings(running, context));
        if running.status.is_none() && running.answers() {
            let is_reported = self.findings.iter().any(|finding| finding.name == certificate::SERVED_CHECK);
            self.findings.push(match self.config() {
                None => Finding::skip("answers", "not checked: the configuration is broken"),
                Some(_) if is_reported || facts.certificate.is_hidden() => {
                    Finding::skip("answers", "not checked: its certificate is not the configured one")
                }
                Some(_) => running::unconfigured_gateway(running, context),
            });
        }
    }

    /// The version that the next start runs.
    async fn installed_version(&self) -> String {
        let own = env!("CARGO_PKG_VERSION").to_owned();
        let Some(program) = self.job.and_then(LaunchdJob::program) else { return own };
        let real_path = |path: &Path| fs::canonicalize(path).ok();
        if std::env::current_exe().ok().and_then(|path| real_path(&path)) == real_path(Path::new(program)) {
            return own;
        }
        let output = self.tools.run(program, &["--version"]).await;
        output.text().and_then(|text| text.split_whitespace().nth(1)).map_or(own, str::to_owned)
    }

    /// How a Mac is set up.
    async fn mac(&mut self, serves_others: bool) {
        if let Some(job) = self.job {
            let program = job.program().unwrap_or(launchd::DEFAULT_PROGRAM);
            let facts = mac::gather(self.tools, program).await;
            self.findings.extend(mac::findings(&facts, serves_others));
        }
    }
}

/// The address of the configured gateway, unless it is invalid.
fn configured_address(report: &ConfigReport) -> Option<String> {
    let is_of_address = |key: &str| ["GATEWAY_HOST", "GATEWAY_PORT"].contains(&key);
    if report.problems.iter().any(|problem| is_of_address(&problem.key) || is_of_address(&problem.source)) {
        return None;
    }
    let setting = |name: &str| report.settings.raw(name);
    let tls = service::settings::boolean(setting("GATEWAY_TLS")?).unwrap_or(true);
    address_of(setting("GATEWAY_HOST")?.trim(), setting("GATEWAY_PORT")?.trim().parse().ok()?, tls)
}

/// The client that may send the token, with the token; none if the server may be another than the configured gateway.
fn authenticated_client(
    arguments: &ArgMatches,
    config: &Config,
    configured: &ConfiguredCertificate,
    served: Option<&CertificateDer<'static>>,
) -> Option<(Client, Option<Secret>)> {
    let given = arguments.get_one::<String>("token").and_then(|token| Secret::token(token).ok());
    let token = given.or_else(|| config.access.tokens.first().map(|token| token.secret.clone()));
    let client = if let Some(file) = arguments.get_one::<String>("ca") {
        build_client(Some(file.clone()), true, None).ok()
    } else {
        let configured = configured.own().map(|certificate| &certificate.leaf);
        // One that differs was replaced since the start, or is another server's.
        let is_configured = served.is_none_or(|served| configured == Some(served));
        is_configured.then(|| running::client(configured.cloned())).flatten()
    };
    client.map(|client| (client, token))
}
