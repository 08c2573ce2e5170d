//! The configuration: one table of settings, the env file, the backends' YAML. Read once, every problem at once;
//! after that nothing validates again.

mod access;
pub(crate) mod backends;
mod backends_file;
mod certificates;
mod env_file;
mod examined;
mod expand;
pub(crate) mod images;
pub mod keys;
mod remarks;
mod routing;
mod sections;
mod tokens;

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::ArgMatches;
use service::settings::{
    Fixed, Problem, Settings, Source, Variables, duration, unreadable, without_consequences,
};

pub use self::{
    access::Access,
    backends::{Backend, Backends, Capability, Delivery},
    images::{ImageEngine, Images},
    keys::KEYS,
    routing::{Alias, Routing},
    sections::{Legacy, Log, Outbound, ProbeRules},
    tokens::{Token, is_name as is_token_name},
};
use self::{backends_file::BackendsFile, env_file::EnvFile, examined::Notes};
pub(crate) use self::{certificates::certificates, examined::Examined};
use crate::{
    places::{self, Kind, Place},
    store::retention::Rules as Retention,
    tls::Tls,
};

/// Read if it exists and `--env-file` names no other.
pub const ENV_FILE: &str = "/var/lib/gateway/app/.env";
/// The backends' file beside the env file.
const BACKENDS_FILE: &str = "backends_config.yaml";

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Host and port to listen on.
    pub listen: (String, u16),
    /// Where metrics are served without token, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// What is spoken there.
    pub tls: Tls,
    /// Who may come.
    pub access: Access,
    /// Bytes of one request body.
    pub max_request: usize,
    /// The images route.
    pub images: Images,
    /// Where pictures are kept.
    pub store_dir: PathBuf,
    /// How much of them.
    pub retention: Retention,
    /// Makes picture addresses absolute; without a slash at the end.
    pub public_base_url: Option<String>,
    /// When a backend counts as ready.
    pub health: ProbeRules,
    /// The backends.
    pub backends: Backends,
    /// Where chat, completions and embeddings go.
    pub routing: Routing,
    /// How backends are spoken to.
    pub outbound: Outbound,
    /// Who gets every path that is not ours, if anybody.
    pub legacy: Option<Legacy>,
    /// Where the local authority, its certificates and the backends' lists of models are kept.
    pub data_dir: PathBuf,
    /// The log.
    pub log: Log,
    /// How long running requests may take to finish at shutdown.
    pub shutdown_grace: Duration,
    /// What a reload must not change.
    pub fixed: Fixed,
}

impl Config {
    /// Where the local authority and its certificates are kept, if there is one.
    pub fn self_made_in(&self) -> Option<&Path> {
        matches!(self.tls, Tls::SelfMade).then_some(&self.data_dir)
    }
}

/// The configuration as read.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The same as text, secrets redacted.
    pub effective: String,
    /// What an operator should know: what was ignored, what looks misspelt.
    pub notes: Vec<String>,
    /// What is seen of the places that are written to. Who serves finds out by writing.
    pub places: places::Seen,
}

/// Reads flags, environment, env file and backends file.
pub fn load(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Vec<Problem>> {
    load_among(matches, environment, &[])
}

/// The same, and looks for misspellings of ours among the names of all variables.
pub fn load_among(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> Result<Loaded, Vec<Problem>> {
    examine(matches, environment, names).loaded()
}

/// Reads everything, and stops at no problem.
pub(crate) fn examine(
    matches: &ArgMatches,
    environment: &dyn Fn(&str) -> Option<String>,
    names: &[String],
) -> Examined {
    let mut problems = Vec::new();
    let env = EnvPlace::read(matches, environment, &mut problems);
    let mut settings = gather(matches, environment, &env);
    let used = RefCell::new(BTreeSet::new());
    let variable = |name: &str| {
        used.borrow_mut().insert(name.to_owned());
        environment(name).or_else(|| env.value(name))
    };
    // What the env file would have set is unknown where it could not be read: the place of the backends' file, and theirs.
    let backends =
        if env.unread { None } else { read_backends(&settings, &env.path, &variable, &mut problems) };
    let mut composed = Notes::default();
    let config = compose(&mut settings, backends.as_ref(), &mut composed);
    problems.append(&mut settings.problems);
    let unusable = access::unusable_tokens(&[
        ("environment".to_owned(), environment),
        (env.path.display().to_string(), &|name| env.value(name)),
    ]);
    // One that won is already among the problems, under the same key.
    let known: BTreeSet<_> = problems.iter().map(|problem| problem.key.clone()).collect();
    problems.extend(unusable.into_iter().filter(|problem| !known.contains(&problem.key)));
    let problems = without_consequences(problems, env.unread, remarks::token_meant);
    let is_read = |name: &str| used.borrow().contains(name);
    let variables = Variables { names, keys: KEYS, is_read: &is_read };
    let misspelt = [remarks::misspelt(&env, &used.borrow()), variables.misspelt()].concat();
    let places =
        if env.unread { places::Seen::default() } else { look_at_places(&settings, config.as_ref()) };
    let config = config.filter(|_| backends.is_some() && problems.is_empty());
    let of_backends = backends.unwrap_or_default();
    let off =
        of_backends.disabled.iter().map(|class| format!("backend {class} is off: its base_url is empty"));
    let notes = Notes {
        foreign: remarks::foreign(&env, &used.borrow()),
        off: off.collect(),
        backends: of_backends.notes,
        images: config.as_ref().and_then(images::makes_none),
        certificate: config
            .as_ref()
            .map(|config| remarks::of_certificate(&config.tls, &settings))
            .unwrap_or_default(),
        without_effect: variables.without_effect("GATEWAY_").into_iter().collect(),
        overruled: [settings.overruled(), remarks::overruled(&env, &used.borrow(), environment)].concat(),
        ..composed
    };
    Examined {
        config,
        problems,
        misspelt,
        misspelt_backends: of_backends.misspelt,
        notes,
        places,
        settings,
        env,
    }
}

/// The places that are written to. Without a certificate of its own making the gateway does without the data's.
fn look_at_places(settings: &Settings, config: Option<&Config>) -> places::Seen {
    let makes_certificates = config.is_some_and(|config| config.self_made_in().is_some());
    let named = [
        ("UI_IMAGE_DIR", Kind::Folder, true),
        ("GATEWAY_DATA_DIR", Kind::Folder, makes_certificates),
        ("GATEWAY_LOG_FILE", Kind::File, true),
    ];
    let named = named.into_iter().filter_map(|(setting, kind, is_needed)| {
        Some(Place { setting, path: settings.raw(setting)?.as_ref(), kind, is_needed })
    });
    places::Seen::look(&named.collect::<Vec<_>>())
}

/// The settings as written: flags, environment, env file.
fn gather(matches: &ArgMatches, environment: &dyn Fn(&str) -> Option<String>, env: &EnvPlace) -> Settings {
    let given = |name: &str, value: Option<String>| {
        value.filter(|value| !value.trim().is_empty() || keys::BLANK_COUNTS.contains(&name))
    };
    let from_file = |name: &str| given(name, env.value(name));
    let from_environment = |name: &str| given(name, environment(name));
    Settings::gather(KEYS, matches, &from_environment, &|key| {
        from_file(key.env).map(|value| (value, Source::File(env.path.clone())))
    })
}

/// The env file and its place.
#[derive(Debug)]
pub(crate) struct EnvPlace {
    pub(crate) path: PathBuf,
    file: EnvFile,
    /// It is there, and could not be read.
    pub(crate) unread: bool,
}

impl EnvPlace {
    /// Lines that cannot be read are problems where they give one of our settings.
    fn read(
        matches: &ArgMatches,
        environment: &dyn Fn(&str) -> Option<String>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let named = matches.try_get_one::<String>("env-file").ok().flatten();
        let path = PathBuf::from(named.map_or(ENV_FILE, String::as_str));
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => EnvFile::parse(&text, environment),
            Err(error) if named.is_some() || error.kind() != std::io::ErrorKind::NotFound => {
                let words = format!("expected a file: {}", unreadable(&path, &error));
                problems.push(Problem::new("--env-file", path.display().to_string(), words));
                return Self { path, file: EnvFile::default(), unread: true };
            }
            Err(_) => EnvFile::default(),
        };
        let ours =
            |key: &Option<String>| key.as_deref().is_none_or(|name| KEYS.iter().any(|key| key.env == name));
        for fault in file.faults.iter().filter(|fault| ours(&fault.key)) {
            let source = format!("{}:{}", path.display(), fault.line);
            problems.push(Problem::new(source, fault.key.as_deref().unwrap_or("(no name)"), fault.expected));
        }
        Self { path, file, unread: false }
    }

    fn value(&self, name: &str) -> Option<String> {
        self.file.values.get(name).cloned()
    }
}

fn read_backends(
    settings: &Settings,
    env_file: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Vec<Problem>,
) -> Option<BackendsFile> {
    let named = settings.raw("BACKENDS_CONFIG").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| env_file.with_file_name(BACKENDS_FILE));
    let class_and_url = settings.raw("IMAGES_BACKEND_CLASS").zip(settings.raw("IMAGES_HTTP_BASE_URL"));
    let override_url = class_and_url.map(|(class, url)| backends_file::Override {
        class,
        url,
        source: settings.source("IMAGES_HTTP_BASE_URL"),
    });
    let read = match std::fs::read_to_string(&path) {
        Ok(text) => backends_file::read(Some((&path, &text)), override_url, variable),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            backends_file::read(None, override_url, variable)
        }
        Err(error) => {
            // Not as a default: nobody named it, and yet it is there.
            let source =
                named.map_or("backends".to_owned(), |_| settings.source("BACKENDS_CONFIG").to_string());
            let words = format!("expected a file: {}", unreadable(&path, &error));
            Err(vec![Problem::new(source, path.display().to_string(), words)])
        }
    };
    read.map_err(|more| problems.extend(more)).ok()
}

fn compose(settings: &mut Settings, backends: Option<&BackendsFile>, notes: &mut Notes) -> Option<Config> {
    let host = settings.take("GATEWAY_HOST", "an IP address, or localhost", |text| {
        (text == "localhost" || text.parse::<std::net::IpAddr>().is_ok()).then(|| text.to_owned())
    });
    let loopback = host.as_deref().is_some_and(|host| {
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    let port = settings.take("GATEWAY_PORT", "a port number", |text| text.parse().ok());
    let metrics_listen =
        settings.optional("GATEWAY_METRICS_LISTEN", sections::SOCKET, |text| text.trim().parse().ok());
    let tls = sections::read_tls(settings);
    // Only a host that was understood can be judged.
    let access = Access::read(settings, loopback || host.is_none(), &mut notes.owners);
    let max_request = settings.take("MAX_REQUEST_BYTES", "a number of bytes", |text| {
        service::settings::bytes(text).and_then(|bytes| usize::try_from(bytes).ok())
    });
    let images = Images::read(settings, backends);
    let retention = sections::retention(settings);
    let public_base_url =
        settings.raw("PUBLIC_BASE_URL").map(|text| (backends_file::base_url(text), text.to_owned()));
    if public_base_url.as_ref().is_some_and(|(url, _)| url.is_none()) {
        settings.complain("PUBLIC_BASE_URL", backends_file::EXPECTED_URL);
    }
    let health = sections::health(settings);
    let routing = Routing::read(settings, backends, &mut notes.routing);
    let outbound = Outbound::read(settings);
    let legacy = Legacy::read(settings, port);
    let log = Log::read(settings);
    let grace = settings.take("GATEWAY_SHUTDOWN_GRACE", "a time such as 30s", duration);
    let (images, file) = (images?, backends?);
    let mock = images::mock(&images, file).map(Arc::new);
    Some(Config {
        listen: (host?, port?),
        metrics_listen: metrics_listen?,
        tls: tls?,
        access: access?,
        max_request: max_request?,
        images,
        store_dir: settings.raw("UI_IMAGE_DIR")?.into(),
        retention: retention?,
        public_base_url: public_base_url.map(|(_, text)| text.trim().trim_end_matches('/').to_owned()),
        health: health?,
        backends: Backends { mock, ..file.backends.clone() },
        routing: routing?,
        outbound: outbound?,
        legacy,
        data_dir: settings.raw("GATEWAY_DATA_DIR")?.into(),
        log: log?,
        shutdown_grace: grace?,
        fixed: settings.fixed(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
