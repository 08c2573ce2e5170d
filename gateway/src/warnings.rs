//! What an operator should know before it is too late: a disk or the store nearly full, a certificate at its end, a log file that
//! cannot be begun anew. Looked at now and then, published for the status, and logged when it begins and ends.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use service::{
    files::{Disk, disk_of},
    reload::Switch,
    telemetry::log_fault,
};
use tracing::{info, warn};

use crate::{
    blocking::blocking,
    config::{Config, images::makes_none},
    store::{
        fullness::{Fullness, of_disk, of_store, part},
        index::Totals,
    },
    tls::{Tls, examined, foreign},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the last look found. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Warnings(Switch<Arc<Seen>>);

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// In words, with what to do.
    pub(crate) warnings: Vec<String>,
    /// The disk that the pictures are on.
    pub(crate) disk: Option<Disk>,
}

/// What a warning is about: it is the same one as long as that is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// The disk with this number.
    Disk(u64),
    Store,
    Certificate,
    Images,
    Log,
}

impl Default for Warnings {
    fn default() -> Self {
        Self(Switch::new(Arc::default()))
    }
}

impl Warnings {
    /// What the last look found.
    pub(crate) fn now(&self) -> Arc<Seen> {
        self.0.now()
    }
}

/// What is looked at; a reload changes it.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// What the store holds.
    pub(crate) totals: Totals,
    /// Where it is told.
    pub(crate) warnings: Warnings,
}

/// The worker.
pub(crate) async fn watch(watched: impl Fn() -> Watched) {
    let mut fullness = BTreeMap::new();
    // These are told at the start.
    let config = watched().config;
    let images = makes_none(&config).map(|words| (About::Images, words));
    let told = blocking(move || certificate(&config)).await;
    let certificate = told.map(|words| (About::Certificate, words));
    let mut known = certificate.into_iter().chain(images).collect();
    loop {
        let Watched { config, totals, warnings } = watched();
        let (found, disk, before) = blocking(move || {
            let (found, disk) = look(&config, totals, &mut fullness);
            (found, disk, fullness)
        })
        .await;
        fullness = before;
        tell(&known, &found);
        warnings.0.replace(Arc::new(Seen { warnings: found.values().cloned().collect(), disk }));
        known = found;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn tell(known: &BTreeMap<About, String>, found: &BTreeMap<About, String>) {
    for (about, words) in found {
        if !known.contains_key(about) {
            warn!("{words}");
        }
    }
    for (_, words) in known.iter().filter(|(about, _)| !found.contains_key(about)) {
        info!("no longer so: {words}");
    }
}

/// Blocks: a network disk may take its time.
fn look(
    config: &Config,
    totals: Totals,
    fullness: &mut BTreeMap<About, Fullness>,
) -> (BTreeMap<About, String>, Option<Disk>) {
    let mut found = BTreeMap::new();
    let mut nearly_full =
        |about: &About, taken, all| fullness.entry(about.clone()).or_default().look(taken, all);
    for (about, (disk, holds)) in disks(config) {
        let (taken, all) = part(disk);
        if nearly_full(&about, taken, all) {
            let holds: Vec<_> = holds.iter().map(String::as_str).collect();
            found.insert(about, of_disk(disk, &holds));
        }
    }
    if let Some(bound) = config.retention.max_bytes
        && nearly_full(&About::Store, totals.bytes, bound)
    {
        found.insert(About::Store, of_store(totals, bound));
    }
    found.extend(certificate(config).map(|words| (About::Certificate, words)));
    found.extend(makes_none(config).map(|words| (About::Images, words)));
    found.extend(log_fault().map(|words| (About::Log, words)));
    (found, disk_of(&config.store_dir).ok())
}

/// The disks that something of ours is on, each with what that is.
fn disks(config: &Config) -> BTreeMap<About, (Disk, Vec<String>)> {
    let log = config.log.file.as_ref().and_then(|file| file.parent()).map(PathBuf::from);
    let places = [
        ("the pictures", Some(config.store_dir.clone())),
        ("the data", Some(config.data_dir.clone())),
        ("the log", log),
    ];
    let mut disks = BTreeMap::new();
    for (what, place) in places.into_iter().filter_map(|(what, place)| Some((what, place?))) {
        let Some((number, disk)) = disk_at(&place) else { continue };
        let (_, holds) = disks.entry(About::Disk(number)).or_insert((disk, Vec::new()));
        holds.push(format!("{what} ({})", place.display()));
    }
    disks
}

fn disk_at(place: &Path) -> Option<(u64, Disk)> {
    let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
    Some((std::fs::metadata(place).ok()?.dev(), disk_of(place).ok()?))
}

fn certificate(config: &Config) -> Option<String> {
    let pair = match &config.tls {
        Tls::Off => return None,
        Tls::SelfMade => return foreign::warning(&config.data_dir, SystemTime::now()),
        Tls::Pair(pair) => pair,
    };
    let remarks = examined::remarks(&pair.cert, SystemTime::now());
    (!remarks.is_empty()).then(|| format!("GATEWAY_TLS_CERT_PATH: {}", remarks.join("; ")))
}
