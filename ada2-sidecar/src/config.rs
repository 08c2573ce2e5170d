//! The configuration: one table of keys, read into one valid value, every problem at once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ArgMatches;
use ipnet::IpNet;
use reqwest::Url;
use shared::service::{
    guard::{Guard, PRIVATE_RANGES},
    secret::Secret,
    settings::{Key, Problem, Settings, YamlFile, bytes, duration, list},
    telemetry::Format,
};

use crate::{engine::Kind, gpu::Sampling, instance::Instance};

const DEFAULT_FILE: &str = "/etc/ada2-sidecar/config.yaml";

/// Every setting.
pub const KEYS: &[Key] = &[
    Key::new("listen", "ADA2_LISTEN", "Addresses to listen on, comma-separated").or("0.0.0.0:7860"),
    Key::new(
        "allow_from",
        "ADA2_ALLOW_FROM",
        "Address ranges (CIDR) that may order pictures; health answers everybody",
    )
    .or(PRIVATE_RANGES),
    Key::new("token", "ADA2_TOKEN", "If set, /v1 needs this bearer token as well").secret(),
    Key::new("allowed_hosts", "ADA2_ALLOWED_HOSTS", "Further names that this server is reached by"),
    Key::new("allowed_origins", "ADA2_ALLOWED_ORIGINS", "Web origins whose pages may call this server"),
    Key::new("engine", "ADA2_ENGINE", "invokeai, or builtin (procedural pictures, for trying things out)")
        .or("invokeai"),
    Key::new("engine_url", "ADA2_ENGINE_URL", "The engine's address (by engine: http://127.0.0.1:9090)"),
    Key::new(
        "engine_unit",
        "ADA2_ENGINE_UNIT",
        "The engine's systemd unit, whose GPU memory counts as its own (by engine: invokeai.service)",
    ),
    Key::new(
        "default_model",
        "ADA2_DEFAULT_MODEL",
        "Model for requests that name none (without: the engine's first)",
    ),
    Key::new("gpu", "ADA2_GPU", "required: no GPU, not ready. optional: an absent GPU does not gate")
        .or("required"),
    Key::new("gpu_id", "ADA2_GPU_ID", "Index or UUID of the card").or("0"),
    Key::new("nvml_lib", "ADA2_NVML_LIB", "Absolute path of libnvidia-ml.so.1 (without: the system's)"),
    Key::new(
        "min_free_vram",
        "ADA2_MIN_FREE_VRAM",
        "Not ready below this much VRAM that the engine could have; 0 = off",
    )
    .or("8GiB"),
    Key::new("sample_interval", "ADA2_SAMPLE_INTERVAL", "How often the card is read").or("500ms"),
    Key::new("max_inflight", "ADA2_MAX_INFLIGHT", "Image requests at once; one more gets 429").or("4"),
    Key::new(
        "max_engine_queue",
        "ADA2_MAX_ENGINE_QUEUE",
        "Waiting jobs of others in the engine above which a request gets 429",
    )
    .or("4"),
    Key::new("max_n", "ADA2_MAX_N", "Pictures a request").or("4"),
    Key::new("max_pixels", "ADA2_MAX_PIXELS", "Pixels a picture").or("2000000"),
    Key::new("max_request_bytes", "ADA2_MAX_REQUEST_BYTES", "Bytes of a request's body").or("32MiB"),
    Key::new("request_timeout", "ADA2_REQUEST_TIMEOUT", "For a whole image request").or("270s"),
    Key::new("shutdown_grace", "ADA2_SHUTDOWN_GRACE", "For running requests to finish on SIGTERM").or("30s"),
    Key::new("state_dir", "ADA2_STATE_DIR", "Where this instance keeps its identity; STATE_DIRECTORY wins")
        .or("/var/lib/ada2-sidecar"),
    Key::new("log_format", "ADA2_LOG_FORMAT", "text or json").or("text"),
    Key::new("log_filter", "ADA2_LOG", "Which lines are logged, as in RUST_LOG").or("info"),
];

/// A valid configuration.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is the key of the same name; its help says what it means")]
pub struct Config {
    pub listen: Vec<SocketAddr>,
    pub allow_from: Vec<IpNet>,
    pub token: Option<Secret>,
    pub guard: Guard,
    pub engine: Kind,
    /// None for the builtin engine.
    pub engine_url: Option<Url>,
    pub engine_unit: String,
    pub default_model: Option<String>,
    pub gpu_required: bool,
    pub gpu_id: String,
    pub nvml_lib: Option<PathBuf>,
    /// Bytes.
    pub min_free_vram: u64,
    pub sample_interval: Duration,
    pub max_inflight: usize,
    pub max_engine_queue: u64,
    pub max_n: u64,
    pub max_pixels: u64,
    pub max_request_bytes: usize,
    pub request_timeout: Duration,
    pub shutdown_grace: Duration,
    pub instance: Instance,
    pub log_format: Format,
    pub log_filter: String,
}

/// A configuration, and how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// The valid values.
    pub config: Config,
    /// For `check-config`.
    pub effective: String,
}

/// Reads all layers. Nothing is bound or started before this succeeds.
pub fn load(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    let file = read_file(flags, environment)?;
    let mut settings = Settings::gather(KEYS, flags, environment, &|key| file.get(key));
    let (systemd_state, home) = (environment("STATE_DIRECTORY"), environment("HOME"));
    let checking = flags.subcommand_name() == Some("check-config");
    let config = read(&mut settings, &|settings, kind| {
        // The builtin engine lives and dies with this process: it has no jobs to know again.
        if checking || kind == Kind::Builtin {
            Some(Instance::nameless())
        } else {
            Instance::open(settings, systemd_state.as_deref(), home.as_deref())
        }
    });
    match config {
        Some(config) if settings.problems.is_empty() => {
            Ok(Loaded { config, effective: settings.effective() })
        }
        _ => Err(settings.problems),
    }
}

fn read_file(
    flags: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<YamlFile, Vec<Problem>> {
    let given = flags.get_one::<String>("config").cloned().or_else(|| environment("ADA2_CONFIG"));
    let path = Path::new(given.as_deref().unwrap_or(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => YamlFile::read(path, &text, KEYS),
        Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(YamlFile::default())
        }
        Err(error) => {
            Err(vec![Problem::new(path.display(), "(the whole file)", format!("cannot be read: {error}"))])
        }
    }
}

fn read(s: &mut Settings, instance: &dyn Fn(&mut Settings, Kind) -> Option<Instance>) -> Option<Config> {
    let engine = s.take("engine", "invokeai or builtin", Kind::parse);
    let kind = engine.unwrap_or(Kind::Builtin);
    let (listen, allow_from, token, guard) = read_edge(s);
    let engine_url = s.optional("engine_url", "an address like http://127.0.0.1:9090", engine_address);
    let engine_unit = s.optional("engine_unit", "a unit name like invokeai.service", non_empty);
    let default_model = s.optional("default_model", "a model's name", non_empty);
    let gpu_required = s.take("gpu", "required or optional", |text| match text {
        "required" => Some(true),
        "optional" => Some(false),
        _ => None,
    });
    let gpu_id = s.take("gpu_id", "an index like 0 or a UUID like GPU-…", gpu_id);
    let nvml_lib = s.optional("nvml_lib", "an absolute path", |text| {
        Some(PathBuf::from(text)).filter(|path| path.is_absolute())
    });
    let min_free_vram = s.take("min_free_vram", "a size like 8GiB, or 0", bytes);
    let sample_interval =
        s.take("sample_interval", "a duration from 10ms to 5s", |text| between(text, 10, 5_000));
    let max_inflight = count(s, "max_inflight", 1, 64);
    let max_engine_queue = count(s, "max_engine_queue", 0, 1_000_000);
    let max_n = count(s, "max_n", 1, 10);
    let max_pixels = count(s, "max_pixels", 64 * 64, 100_000_000);
    let max_request_bytes = s.take("max_request_bytes", "a size from 1KiB to 256MiB", |text| {
        bytes(text)
            .filter(|bytes| (1 << 10..=256 << 20).contains(bytes))
            .and_then(|bytes| bytes.try_into().ok())
    });
    let request_timeout =
        s.take("request_timeout", "a duration from 1s to 1h", |text| between(text, 1_000, 3_600_000));
    let shutdown_grace = s.take("shutdown_grace", "a duration like 30s", duration);
    let log_format = s.take("log_format", "text or json", Format::parse);
    let log_filter = s.take("log_filter", "a filter like info or ada2_sidecar=debug", |text| {
        shared::service::telemetry::is_filter(text).then(|| text.to_owned())
    });
    let instance = instance(s, kind);
    Some(Config {
        engine_url: engine_url?.or_else(|| kind.default_url()),
        engine_unit: engine_unit?.unwrap_or_else(|| kind.default_unit().to_owned()),
        engine: engine?,
        listen: listen?,
        allow_from: allow_from?,
        token: token?,
        guard: guard?,
        default_model: default_model?,
        gpu_required: gpu_required?,
        gpu_id: gpu_id?,
        nvml_lib: nvml_lib?,
        min_free_vram: min_free_vram?,
        sample_interval: sample_interval?,
        max_inflight: max_inflight?.try_into().ok()?,
        max_engine_queue: max_engine_queue?,
        max_n: max_n?,
        max_pixels: max_pixels?,
        max_request_bytes: max_request_bytes?,
        request_timeout: request_timeout?,
        shutdown_grace: shutdown_grace?,
        instance: instance?,
        log_format: log_format?,
        log_filter: log_filter?,
    })
}

type Edge = (Option<Vec<SocketAddr>>, Option<Vec<IpNet>>, Option<Option<Secret>>, Option<Guard>);

/// Who may come, and how they name us.
fn read_edge(s: &mut Settings) -> Edge {
    let listen = s.take("listen", "addresses like 0.0.0.0:7860", |text| {
        list(text, |item| item.parse().ok()).filter(|all: &Vec<_>| !all.is_empty())
    });
    let allow_from = s.take("allow_from", "ranges like 192.168.0.0/16", |text| list(text, range));
    let token =
        s.optional("token", "a token that is not empty (leave the setting out for none)", Secret::new);
    let hosts = s.optional("allowed_hosts", "names like ada2.example.org, without port", |text| {
        list(text, |name| (!name.contains(['/', ':'])).then(|| name.to_owned()))
    });
    let origins =
        s.optional("allowed_origins", "origins like https://ui.example.org, without path", |text| {
            list(text, |origin| origin_of(origin).map(|()| origin.to_owned()))
        });
    let guard = hosts.zip(origins).map(|(hosts, origins)| Guard {
        allowed_hosts: hosts.unwrap_or_default(),
        allowed_origins: origins.unwrap_or_default(),
    });
    (listen, allow_from, token, guard)
}

impl Config {
    /// What the GPU's sampler needs to know.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            library: self.nvml_lib.clone(),
            gpu_id: self.gpu_id.clone(),
            interval: self.sample_interval,
            engine_unit: self.engine_unit.clone(),
        }
    }
}

fn non_empty(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn gpu_id(text: &str) -> Option<String> {
    (text.parse::<u32>().is_ok() || text.starts_with("GPU-")).then(|| text.to_owned())
}

fn range(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from))
}

fn engine_address(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let plain = url.scheme() == "http" && url.has_host() && matches!(url.path(), "" | "/");
    (plain && url.query().is_none() && url.username().is_empty() && url.password().is_none()).then_some(url)
}

fn origin_of(text: &str) -> Option<()> {
    let (scheme, rest) = text.split_once("://")?;
    (matches!(scheme, "http" | "https") && !rest.is_empty() && !rest.contains('/')).then_some(())
}

fn between(text: &str, low_ms: u64, high_ms: u64) -> Option<Duration> {
    let range = Duration::from_millis(low_ms)..=Duration::from_millis(high_ms);
    duration(text).filter(|duration| range.contains(duration))
}

fn count(s: &mut Settings, name: &str, low: u64, high: u64) -> Option<u64> {
    s.take(name, &format!("a whole number from {low} to {high}"), |text| {
        text.trim().parse().ok().filter(|number| (low..=high).contains(number))
    })
}

#[cfg(test)]
mod tests;
