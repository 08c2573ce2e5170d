//! `gateway doctor`: everything that keeps the gateway from serving, or will, with what fixes it, a line for each thing. It looks and
//! changes nothing; it works while the gateway is down, while its configuration is broken, as root, as the gateway's account and as
//! anybody else, who learns of what cannot be told how it can.
//!
//! Facts are gathered at the edge, all at once and each within a time limit; what follows from them is decided by pure functions. What
//! is only a consequence of something that was told already is not told again.

mod account;
mod backends;
mod certificate;
mod elsewhere;
mod launchd;
mod mac;
mod places;
mod running;
mod settings;
mod spending;
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
    doctor::{Finding, Report, Verdict},
    files::own_account,
    secret::Secret,
};

use super::{
    Environment, Trouble,
    ask::{Target, address_of, ask, shown},
    ca, verdict,
};
use crate::config::{self, Examined};
use account::Account;
use launchd::Job;
use running::{Responder, Running};
use tools::Tools;

/// Where the launchd job has its program, for the firewall where no job is installed.
const PROGRAM: &str = "/usr/local/bin/gateway";

pub(super) fn run(
    arguments: &ArgMatches,
    environment: Environment,
    names: &[String],
) -> Result<ExitCode, Trouble> {
    let mut report = Report::new(arguments.get_flag("json"));
    let given = arguments.get_one::<String>("url").cloned();
    ask(async {
        let target = if given.as_deref().is_some_and(|url| !elsewhere::is_here(url)) {
            let target = Target::find(arguments, environment)?;
            let (findings, status) = elsewhere::examine(&target).await;
            findings.into_iter().try_for_each(|finding| report.add(finding))?;
            status.map(|status| (target, status))
        } else {
            let examined = config::examine(arguments, &environment, names);
            let (findings, running) = here(&examined, arguments, environment, given).await;
            findings.into_iter().try_for_each(|finding| report.add(finding))?;
            running
        };
        let (generate, overload) = (arguments.get_flag("generate"), arguments.get_flag("overload"));
        for finding in spending::findings(target.as_ref(), generate, overload, report.findings()).await {
            report.add(finding)?;
        }
        Ok(())
    })?;
    Ok(verdict(report.finish()?))
}

/// A gateway that can be asked for pictures.
type Reachable = Option<(Target, serde_json::Value)>;

/// This machine.
async fn here(
    examined: &Examined,
    arguments: &ArgMatches,
    environment: Environment,
    given: Option<String>,
) -> (Vec<Finding>, Reachable) {
    let tools = Tools::new(environment("PATH"));
    let is_mac = tools.has("sw_vers");
    let job = if is_mac { Some(Job::look(&tools).await) } else { None };
    let of_job = job.as_ref().and_then(Job::user);
    let data: Option<PathBuf> = examined.settings.raw("GATEWAY_DATA_DIR").map(Into::into);
    let owned = [Some(examined.env.path.as_path()), data.as_deref()];
    let account = Account::find(of_job, &owned.into_iter().flatten().collect::<Vec<_>>(), &examined.env.path);
    let is_denied = examined.env.unread && is_denied(&examined.env.path);
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
    examined: &'a Examined,
    tools: &'a Tools,
    /// On a Mac.
    job: Option<&'a Job>,
    account: &'a Account,
    /// The env file is not for this account to read.
    is_denied: bool,
    findings: Vec<Finding>,
}

/// Checks whose failure is why the gateway does not run.
const KEEP_IT_FROM_STARTING: [&str; 6] =
    ["configuration", "secret_files", "store", "data_dir", "log", "certificate"];

/// Facts that depend on the configuration.
struct Gathered {
    /// Where the gateway is asked.
    base: Option<String>,
    /// The certificate that it uses.
    shown: Option<CertificateDer<'static>>,
    configured: certificate::Configured,
    backends: Vec<backends::BackendFacts>,
    legacy: Option<Result<String, String>>,
    places: places::Places,
    /// None where its address is not known.
    running: Option<Running>,
    /// How it can be asked with a token.
    target: Option<(reqwest::Client, Option<Secret>)>,
}

impl Examination<'_> {
    fn fails(&self, names: &[&str]) -> bool {
        self.findings.iter().any(|finding| finding.verdict == Verdict::Fail && names.contains(&finding.name))
    }

    fn is_daemon(&self) -> bool {
        self.job.is_some_and(Job::is_installed)
    }

    async fn settings(&mut self) {
        let command = self.account.command();
        self.findings.extend(settings::findings(self.examined, self.is_denied.then_some(command.as_str())));
        let files = settings::look_at_secrets(self.examined.secret_files(), self.tools, self.account).await;
        self.findings.extend(settings::secret_files(&files, self.account));
    }

    /// Everything that needs to know where things are.
    async fn service(&mut self, arguments: &ArgMatches, given: Option<String>) -> Reachable {
        let (examined, config) = (self.examined, self.examined.config.as_ref());
        let gathered = self.gather(arguments, given).await;
        let Gathered { base, shown, configured, backends, legacy, places, running, target } = gathered;
        let is_mac = self.job.is_some();
        let job = self.job.and_then(Job::process);
        self.findings.extend(places::findings(&places, config, self.is_daemon(), job));
        let host = config.and_then(|config| config.public_base_url.as_deref()?.parse::<Url>().ok());
        let host = host.as_ref().and_then(Url::host_str);
        self.findings.extend(certificate::findings(&configured, shown.as_ref(), host, SystemTime::now()));
        if let (true, Some((path, output))) = (is_mac, configured.trust(self.tools).await) {
            self.findings.push(certificate::trust(&path, &output));
        }
        let is_taken = running.as_ref().is_some_and(Running::is_somebody_else);
        if let Some(job) = self.job {
            let grace = config.map(|config| config.shutdown_grace);
            let cause = is_taken || self.fails(&KEEP_IT_FROM_STARTING);
            self.findings.extend(launchd::findings(job, cause, grace));
        }
        self.running(running.as_ref(), &configured, places.gateway(job)).await;
        let sees = |class: &str| running.as_ref()?.sees(class);
        self.findings.extend(backends::findings(&backends, &sees, env!("CARGO_PKG_VERSION"), is_mac));
        self.findings.extend(legacy.as_ref().map(backends::legacy));
        let for_others =
            examined.config.as_ref().is_some_and(|config| !settings::is_loopback(&config.listen.0));
        self.machine(for_others).await;
        let status = running.and_then(|running| running.status?.ok())?;
        let ((client, token), base) = target.zip(base)?;
        Some((Target::with(base.parse().ok()?, token, client), status))
    }

    async fn gather(&self, arguments: &ArgMatches, given: Option<String>) -> Gathered {
        let (examined, config) = (self.examined, self.examined.config.as_ref());
        let base = given.or_else(|| address(examined)).map(|base| base.trim_end_matches('/').to_owned());
        let raw = |name: &str| examined.settings.raw(name);
        let (responder, configured, backends, legacy) = tokio::join!(
            async { Some(running::probe(base.as_deref()?).await) },
            certificate::Configured::look(config, raw("GATEWAY_TLS_CERT_PATH")),
            async {
                match config {
                    Some(config) => backends::look_at(config).await,
                    None => Vec::new(),
                }
            },
            async { backends::ask_legacy(config?).await },
        );
        let shown = match &responder {
            Some(Responder::Gateway(shown)) => shown.clone(),
            _ => None,
        };
        let target = target(arguments, examined, &configured, shown.as_ref());
        let path = |name: &str| raw(name).map(PathBuf::from);
        let named = places::Named {
            store: path("UI_IMAGE_DIR"),
            data: path("GATEWAY_DATA_DIR"),
            log: path("GATEWAY_LOG_FILE"),
        };
        let answers = matches!(responder, Some(Responder::Gateway(_)));
        let files =
            [Some(examined.env.path.clone()), examined.backends_file()].into_iter().flatten().collect();
        let (places, running) = tokio::join!(
            places::look(self.tools, self.account.clone(), named, self.job.is_some(), answers),
            async { Some(Running::ask(base.clone()?, responder?, self.tools, target.clone(), files).await) },
        );
        Gathered { base, shown, configured, backends, legacy, places, running, target }
    }

    /// `earlier` is a gateway that runs, though none answers at the configured address.
    async fn running(
        &mut self,
        running: Option<&Running>,
        configured: &certificate::Configured,
        earlier: Option<u32>,
    ) {
        let Some(running) = running else {
            let is_any = self.examined.settings.raw("GATEWAY_PORT").is_some_and(|port| port.trim() == "0");
            // Else its address is invalid, which is reported already.
            let message = "GATEWAY_PORT is 0: name the running gateway with --url";
            return self.findings.extend(is_any.then(|| Finding::skip("port", message)));
        };
        let cause =
            self.fails(&KEEP_IT_FROM_STARTING) || self.fails(&["plist", "account", "program", "service"]);
        let installed = self.installed().await;
        let around = running::Around {
            cause,
            is_daemon: self.is_daemon(),
            installed: &installed,
            store_fails: self.fails(&["store"]),
            earlier,
            process: running.process(),
            is_root: own_account() == "root",
            is_left_out: self.examined.config.as_ref().is_some_and(settings::leaves_out_this_machine),
        };
        self.findings.extend(running::findings(running, around));
        if running.status.is_none() && running.answers() {
            let is_reported = self.findings.iter().any(|finding| finding.name == certificate::SHOWN);
            self.findings.push(match self.examined.config {
                None => Finding::skip("answers", "not checked: the configuration is broken"),
                Some(_) if is_reported || configured.is_hidden() => {
                    Finding::skip("answers", "not checked: its certificate is not the configured one")
                }
                Some(_) => running::other(running, around),
            });
        }
    }

    /// The version that the next start runs.
    async fn installed(&self) -> String {
        let own = env!("CARGO_PKG_VERSION").to_owned();
        let Some(program) = self.job.and_then(Job::program) else { return own };
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        if std::env::current_exe().ok().and_then(|path| real(&path)) == real(Path::new(program)) {
            return own;
        }
        let ran = self.tools.run(program, &["--version"]).await;
        ran.text().and_then(|text| text.split_whitespace().nth(1)).map_or(own, shown)
    }

    /// How a Mac is set.
    async fn machine(&mut self, for_others: bool) {
        if let Some(job) = self.job {
            let printed = mac::gather(self.tools, job.program().unwrap_or(PROGRAM)).await;
            self.findings.extend(mac::judge(&printed, for_others));
        }
    }
}

/// Where the gateway of this configuration can be asked, unless what is configured is invalid.
fn address(examined: &Examined) -> Option<String> {
    let is_of_address = |key: &str| ["GATEWAY_HOST", "GATEWAY_PORT"].contains(&key);
    if examined.problems.iter().any(|problem| is_of_address(&problem.key) || is_of_address(&problem.source)) {
        return None;
    }
    let raw = |name: &str| examined.settings.raw(name);
    let tls = service::settings::truth(raw("GATEWAY_TLS")?).unwrap_or(true);
    address_of(raw("GATEWAY_HOST")?.trim(), raw("GATEWAY_PORT")?.trim().parse().ok()?, tls)
}

/// The client that may show it a token, and the token. None where it cannot be told that it is the gateway that is configured.
fn target(
    arguments: &ArgMatches,
    examined: &Examined,
    configured: &certificate::Configured,
    shown: Option<&CertificateDer<'static>>,
) -> Option<(reqwest::Client, Option<Secret>)> {
    let config = examined.config.as_ref()?;
    let given = arguments.get_one::<String>("token").and_then(|token| Secret::token(token).ok());
    let token = given.or_else(|| config.access.tokens.first().map(|token| token.secret.clone()));
    if let Some(file) = arguments.get_one::<String>("ca") {
        return super::ask::client(Some(file.clone()), true, None).ok().map(|client| (client, token));
    }
    let certificate = configured.own().map(|own| own.own.clone());
    // What the running one shows was replaced since, or is somebody else's.
    let is_known = match (&certificate, shown) {
        (Some(own), Some(shown)) => own == shown,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    is_known.then(|| running::client(certificate)).flatten().map(|client| (client, token))
}

/// Text for a shell, on a line.
fn quoted(text: &str) -> String {
    ca::quoted(&shown(text))
}
