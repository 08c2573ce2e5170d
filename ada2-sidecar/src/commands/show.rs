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
    outbound::{Connections, io_kind, plain_builder, read_limited},
    settings::Source,
};
use sysinfo::System;
use wire::health::{Check, CheckStatus, ReadyReport};

use super::EXIT_NO;
use crate::{
    admin::{self, Request},
    config::Config,
    engine::monitor::EngineState,
    gpu::{self, GpuSample},
    host,
    outcomes::Seen,
    port,
    readiness::{
        WarmUp,
        latch::{
            Latch,
            file::{LatchFile, boot_id},
        },
        rules::{Inputs, Memory, Rules, is_about_host, judge, status_of},
    },
    smi::{Query, View, readiness::verbose, table},
};

const SERVICE: &str = "ada2-sidecar.service";
/// How the text of a readiness ends.
const VERDICTS: [&str; 2] = ["readyz check passed\n", "readyz check failed\n"];
/// For the running sidecar: it answers from memory.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// For the driver, where no sidecar runs; it may hang.
const DRIVER_TIME: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 1 << 20;

pub(super) fn gpu(arguments: &ArgMatches, config: &Config) -> io::Result<ExitCode> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let query = text("query").map(|fields| (fields, text("format").unwrap_or("csv")));
    let wanted = query.map(|(fields, format)| Query::read(fields, format)).transpose();
    let wanted = wanted.map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault.to_string()))?;
    let as_json = arguments.get_flag("json");
    let path = match query {
        Some((fields, format)) => format!("/gpu?query={fields}&format={format}"),
        None => "/gpu".to_owned(),
    };
    if let Some(answer) = running(config, "/gpu", query.is_some() || as_json, is_card)? {
        // A line of values could be anybody's: they are asked for once it is known who answers.
        let answer = if query.is_some() { running_at(answer.address, &path, as_json)? } else { Some(answer) };
        let Running { well, body, .. } =
            answer.ok_or_else(|| io::Error::other("the sidecar stopped before it answered"))?;
        return print(&body, well);
    }
    let look = Look::now(config)?;
    let view = look.view();
    let well = view.fresh().is_ok();
    match (wanted, view.fresh()) {
        (Some(wanted), Ok((seen, taken))) => print(&wanted.answer(&seen.report, taken), true),
        (Some(_), Err(words)) => Err(io::Error::other(words)),
        (None, _) if as_json => print(
            &format!(
                "{:#}
",
                view.json()
            ),
            well,
        ),
        (None, _) => print(&format!("{}{}", look.note, table(&view)), well),
    }
}

pub(super) fn readyz(arguments: &ArgMatches, config: &Config) -> io::Result<ExitCode> {
    let as_json = arguments.get_flag("json");
    let path = if as_json { "/readyz" } else { "/readyz?verbose" };
    let is_report = |body: &str| {
        if as_json {
            serde_json::from_str::<ReadyReport>(body).is_ok()
        } else {
            VERDICTS.iter().any(|verdict| body.ends_with(verdict))
        }
    };
    if let Some(Running { well, body, address }) = running(config, path, as_json, is_report)? {
        let asked = if as_json { String::new() } else { format!("asked the sidecar at {address}\n") };
        return print(&format!("{asked}{body}"), well);
    }
    let mut look = Look::now(config)?;
    // Whatever card and host are like, nobody serves.
    let words = format!("no sidecar runs; start it: {}", start_command(config));
    look.report.checks.push(Check::pass("service", "none", "runs").but(CheckStatus::Fail, words));
    look.report.status = status_of(&look.report.checks);
    if as_json {
        return print(&serde_json::to_string(&look.report)?, false);
    }
    print(&format!("{}{}", look.note, verbose(&look.view())), false)
}

/// How the service that was asked for is started.
fn start_command(config: &Config) -> String {
    let named = match config.listen_source {
        Source::Flag(_) => config.listen.first(),
        _ => None,
    };
    let says = |arguments: &[&str]| {
        let asked = Command::new("systemctl").args(arguments).stdin(Stdio::null()).output();
        asked.ok().filter(|asked| asked.status.success()).map(|asked| asked.stdout)
    };
    let loaded = || says(&["show", "--value", "--property=LoadState", SERVICE]);
    match named {
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
fn is_card(body: &str) -> bool {
    let json = serde_json::from_str::<serde_json::Value>(body);
    json.is_ok_and(|card| card["readiness"].is_string())
        || body.lines().last().is_some_and(|line| line.starts_with("readiness: "))
}

fn print(text: &str, well: bool) -> io::Result<ExitCode> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NO) })
}

/// What the sidecar that runs here answered.
pub(super) struct Running {
    address: SocketAddr,
    /// Whether it was a good answer.
    well: bool,
    pub(super) body: String,
}

/// Where to ask: the address that the command line names; else where the running service says that it listens, which a
/// socket unit may have decided; else where it would.
fn address(config: &Config) -> Option<SocketAddr> {
    let named = matches!(config.listen_source, Source::Flag(_));
    let told =
        if named { None } else { admin::ask(&config.admin.sockets, Request::Addresses).ok().flatten() };
    let told = told.and_then(|answer| answer.lines.first()?.parse().ok());
    told.or_else(|| config.listen.first().copied()).map(|address| reachable(&address))
}

/// None if none runs; an error if another program answers.
fn running(
    config: &Config,
    path: &str,
    as_json: bool,
    is_ours: impl Fn(&str) -> bool,
) -> io::Result<Option<Running>> {
    let Some(address) = address(config) else { return Ok(None) };
    let Some(answer) = running_at(address, path, as_json)? else { return Ok(None) };
    if is_ours(&answer.body) {
        return Ok(Some(answer));
    }
    let holder = port::holder(address);
    let who = holder.as_ref().map_or_else(|| "another program".to_owned(), |holder| holder.who(address));
    let fix = if holder.is_some_and(|holder| holder.is_nginx()) { "move-in" } else { "doctor" };
    Err(io::Error::other(format!(
        "what answers at {address} is no sidecar but {who}; fix: sudo ada2-sidecar {fix}"
    )))
}

/// The same at this address.
pub(super) fn running_at(address: SocketAddr, path: &str, as_json: bool) -> io::Result<Option<Running>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client =
            plain_builder(Connections::Fresh).timeout(ANSWER_TIME).build().map_err(io::Error::other)?;
        let accept = if as_json { "application/json" } else { "*/*" };
        let request = client.get(format!("http://{address}{path}")).header("accept", accept);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if io_kind(&error) == Some(io::ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => {
                return Err(io::Error::other(format!("the sidecar at {address} does not answer: {error}")));
            }
        };
        let well = answer.status().is_success();
        let body = read_limited(answer, MAX_ANSWER).await;
        let body = body.map_err(|fault| io::Error::other(format!("the sidecar at {address}: {fault:?}")))?;
        Ok(Some(Running { address, well, body: String::from_utf8_lossy(&body).into_owned() }))
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
pub(super) struct Look {
    sample: Option<Arc<GpuSample>>,
    pub(super) report: ReadyReport,
    note: String,
}

/// The first look at the card; none if the driver does not answer in time.
pub(super) fn sample(sampling: gpu::Sampling) -> io::Result<Option<Arc<GpuSample>>> {
    let mut samples = gpu::start(sampling)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let first = tokio::time::timeout(DRIVER_TIME, samples.wait_for(Option::is_some)).await;
        first.ok().and_then(Result::ok).and_then(|sample| sample.clone())
    }))
}

impl Look {
    fn now(config: &Config) -> io::Result<Self> {
        let started = Instant::now();
        let look = Self::of(config, sample(config.sampling())?, started);
        let address = address(config).map(|address| format!(" at {address}"));
        let note = format!(
            "no sidecar runs{}: this is read directly, and says nothing of the engine\n",
            address.unwrap_or_default()
        );
        Ok(Self { note, ..look })
    }

    /// With what was seen of the card since `started`.
    pub(super) fn of(config: &Config, sample: Option<Arc<GpuSample>>, started: Instant) -> Self {
        let host = System::new().ok().map(|mut system| host::look(&mut system, &config.host_watch()));
        let inputs = Inputs {
            gpu: sample.as_deref(),
            host: host.as_ref(),
            started,
            engine: &EngineState::default(),
            graphs: &[],
            outcomes: &Seen::default(),
            warm_up: &WarmUp::Off,
            limit: config.max_inflight,
            inflight: 0,
            oldest_cancel: None,
            draining: false,
        };
        let memory = Memory::starting(latched(config));
        let now = Instant::now();
        let mut report = judge(None, memory, &inputs, &Rules::of(config), now, SystemTime::now()).report;
        report.checks.retain(is_about_host);
        report.status = status_of(&report.checks);
        Self { sample, report, note: String::new() }
    }

    fn view(&self) -> View<'_> {
        View { sample: self.sample.as_deref(), report: &self.report, now: Instant::now() }
    }
}

/// What a sidecar that ran here left latched.
fn latched(config: &Config) -> Latch {
    let boot = boot_id();
    let kept =
        config.state_dirs.iter().find_map(|folder| LatchFile::in_directory(folder).read().ok().flatten());
    kept.unwrap_or_default().of_boot(&boot)
}
