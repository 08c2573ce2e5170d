//! `ada2-sidecar gpu` and `ada2-sidecar readyz`: from the sidecar that runs here, else directly from card and host.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::ArgMatches;
use service::{
    outbound::{ConnectionPolicy, io_error_kind, plaintext_client_builder, read_limited},
    settings::SettingSource,
};
use sysinfo::System;
use wire::health::{Check, CheckStatus, ReadyReport};

use super::EXIT_FAILURE;
use crate::{
    admin::{self, AdminRequest},
    config::Config,
    engine::monitor::EngineState,
    gpu::{self, GpuSample},
    host,
    job_history::JobHistorySnapshot,
    port,
    readiness::{
        WarmUp,
        latch::{
            Latch,
            store::{LatchStore, boot_id},
        },
        rules::{EvaluationInputs, EvaluationState, evaluate, is_host_check, status_of},
    },
    reload::readiness_rules,
    smi::{GpuView, SmiQuery, readiness_text::verbose_text, table},
};

const SERVICE: &str = "ada2-sidecar.service";
/// How the text of a readiness ends.
const READYZ_ENDINGS: [&str; 2] = ["readyz check passed\n", "readyz check failed\n"];
/// For the running sidecar: it answers from memory.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the driver, where no sidecar runs; it may hang.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RESPONSE_BYTES: usize = 1 << 20;

pub(super) fn gpu(arguments: &ArgMatches, config: &Config) -> io::Result<ExitCode> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let query = text("query").map(|fields| (fields, text("format").unwrap_or("csv")));
    let parsed = query.map(|(fields, format)| SmiQuery::parse(fields, format)).transpose();
    let wanted = parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
    let as_json = arguments.get_flag("json");
    let path = match query {
        Some((fields, format)) => format!("/gpu?query={fields}&format={format}"),
        None => "/gpu".to_owned(),
    };
    if let Some(response) = query_running(config, "/gpu", query.is_some() || as_json, is_gpu_response)? {
        // A line of values could be anybody's: they are asked for once it is known who answers.
        let answer =
            if query.is_some() { query_at(response.address, &path, as_json)? } else { Some(response) };
        let ServiceResponse { success: well, body, .. } =
            answer.ok_or_else(|| io::Error::other("the sidecar stopped before it answered"))?;
        return print(&body, well);
    }
    let readiness = HostReadiness::read(config)?;
    let view = readiness.view();
    let well = view.fresh_reading().is_ok();
    match (wanted, view.fresh_reading()) {
        (Some(wanted), Ok((seen, taken))) => print(&wanted.to_csv(&seen.report, taken), true),
        (Some(_), Err(cause)) => Err(io::Error::other(cause)),
        (None, _) if as_json => print(
            &format!(
                "{:#}
",
                view.json()
            ),
            well,
        ),
        (None, _) => print(&format!("{}{}", readiness.preamble, table(&view)), well),
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
    if let Some(ServiceResponse { success: well, body, address }) =
        query_running(config, path, as_json, is_report)?
    {
        let asked = if as_json { String::new() } else { format!("asked the sidecar at {address}\n") };
        return print(&format!("{asked}{body}"), well);
    }
    let mut readiness = HostReadiness::read(config)?;
    // Whatever card and host are like, nobody serves.
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

/// How the service that was asked for is started.
fn start_command(config: &Config) -> String {
    let explicit = match config.listen_source {
        SettingSource::Flag(_) => config.listen.first(),
        _ => None,
    };
    let says = |arguments: &[&str]| {
        let asked = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
        asked.ok().filter(|asked| asked.status.success()).map(|asked| asked.stdout)
    };
    let loaded = || says(&["show", "--value", "--property=LoadState", SERVICE]);
    match explicit {
        Some(address) => format!("ada2-sidecar serve --listen {address}"),
        None if says(&["is-enabled", SERVICE]).is_some() => "sudo systemctl start ada2-sidecar".to_owned(),
        // Installed, and never in nginx's place.
        None if loaded().is_some_and(|state| state.starts_with(b"loaded")) => {
            "sudo ada2-sidecar move-in".to_owned()
        }
        None => "ada2-sidecar serve".to_owned(),
    }
}

/// The card as JSON or as a table.
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
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// What the sidecar that runs here answered.
pub(super) struct ServiceResponse {
    address: SocketAddr,
    /// Whether it was a good answer.
    success: bool,
    pub(super) body: String,
}

/// Where to ask: the address that the command line names; else where the running service says that it listens, which a
/// socket unit may have decided; else where it would.
fn service_address(config: &Config) -> Option<SocketAddr> {
    let is_explicit = matches!(config.listen_source, SettingSource::Flag(_));
    let reported = if is_explicit {
        None
    } else {
        admin::send_request(&config.admin.sockets, AdminRequest::Addresses).ok().flatten()
    };
    let reported = reported.and_then(|answer| answer.lines.first()?.parse().ok());
    reported.or_else(|| config.listen.first().copied()).map(|address| reachable(&address))
}

/// None if none runs; an error if another program answers.
fn query_running(
    config: &Config,
    path: &str,
    as_json: bool,
    is_ours: impl Fn(&str) -> bool,
) -> io::Result<Option<ServiceResponse>> {
    let Some(address) = service_address(config) else { return Ok(None) };
    let Some(answer) = query_at(address, path, as_json)? else { return Ok(None) };
    if is_ours(&answer.body) {
        return Ok(Some(answer));
    }
    let holder = port::find_holder(address);
    let who = holder.as_ref().map_or_else(|| "another program".to_owned(), |holder| holder.describe(address));
    let fix = if holder.is_some_and(|holder| holder.is_nginx()) { "move-in" } else { "doctor" };
    Err(io::Error::other(format!(
        "what answers at {address} is no sidecar but {who}; fix: sudo ada2-sidecar {fix}"
    )))
}

/// The same at this address.
pub(super) fn query_at(
    address: SocketAddr,
    path: &str,
    as_json: bool,
) -> io::Result<Option<ServiceResponse>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = plaintext_client_builder(ConnectionPolicy::PerRequest)
            .timeout(RESPONSE_TIMEOUT)
            .build()
            .map_err(io::Error::other)?;
        let accept = if as_json { "application/json" } else { "*/*" };
        let request = client.get(format!("http://{address}{path}")).header("accept", accept);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if io_error_kind(&error) == Some(io::ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => {
                return Err(io::Error::other(format!("the sidecar at {address} does not answer: {error}")));
            }
        };
        let well = answer.status().is_success();
        let body = read_limited(answer, MAX_RESPONSE_BYTES).await;
        let body = body.map_err(|fault| io::Error::other(format!("the sidecar at {address}: {fault:?}")))?;
        Ok(Some(ServiceResponse {
            address,
            success: well,
            body: String::from_utf8_lossy(&body).into_owned(),
        }))
    })
}

/// An address to connect to, where the service listens on all of them.
pub(super) fn reachable(listen: &SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// One look of our own at card and host.
pub(super) struct HostReadiness {
    sample: Option<Arc<GpuSample>>,
    pub(super) report: ReadyReport,
    preamble: String,
}

/// The first look at the card; none if the driver does not answer in time.
pub(super) fn first_sample(sampling: gpu::GpuSamplerConfig) -> io::Result<Option<Arc<GpuSample>>> {
    let mut samples = gpu::start(sampling)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let first = tokio::time::timeout(DRIVER_TIMEOUT, samples.wait_for(Option::is_some)).await;
        first.ok().and_then(Result::ok).and_then(|sample| sample.clone())
    }))
}

impl HostReadiness {
    fn read(config: &Config) -> io::Result<Self> {
        let started = Instant::now();
        let look = Self::from_sample(config, first_sample(config.gpu_sampler_config())?, started);
        let address = service_address(config).map(|address| format!(" at {address}"));
        let note = format!(
            "no sidecar runs{}: this is read directly, and says nothing of the engine\n",
            address.unwrap_or_default()
        );
        Ok(Self { preamble: note, ..look })
    }

    /// With what was seen of the card since `started`.
    pub(super) fn from_sample(config: &Config, sample: Option<Arc<GpuSample>>, started: Instant) -> Self {
        let host =
            System::new().ok().map(|mut system| host::sample(&mut system, &config.host_sampler_config()));
        let inputs = EvaluationInputs {
            gpu: sample.as_deref(),
            host: host.as_ref(),
            started_at: started,
            engine: &EngineState::default(),
            graphs: &[],
            job_history: &JobHistorySnapshot::default(),
            warm_up: &WarmUp::Off,
            slot_limit: config.max_inflight,
            inflight: 0,
            oldest_cancel_age: None,
            draining: false,
        };
        let state = EvaluationState::new(stored_latch(config));
        let now = Instant::now();
        let mut report =
            evaluate(None, state, &inputs, &readiness_rules(config), now, SystemTime::now()).report;
        report.checks.retain(is_host_check);
        report.status = status_of(&report.checks);
        Self { sample, report, preamble: String::new() }
    }

    fn view(&self) -> GpuView<'_> {
        GpuView { sample: self.sample.as_deref(), report: &self.report, now: Instant::now() }
    }
}

/// What a sidecar that ran here left latched.
fn stored_latch(config: &Config) -> Latch {
    let boot = boot_id();
    let stored = config.state_dirs.iter().find_map(|folder| LatchStore::open(folder).load().ok().flatten());
    stored.unwrap_or_default().for_boot(&boot)
}
