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
    files::{DiskSpace, disk_space},
    reload::Reloadable,
    telemetry::log_file_error,
};
use tracing::{info, warn};

use crate::{
    blocking::blocking,
    config::{Config, images::no_images_warning},
    store::{
        fullness::{Fullness, disk_warning, store_warning, usage},
        index::StoreTotals,
    },
    tls::{Tls, lints, user_provided},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the last look found. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Warnings(Reloadable<Arc<WarningSnapshot>>);

/// What a look found.
#[derive(Debug, Default)]
pub(crate) struct WarningSnapshot {
    /// In words, with what to do.
    pub(crate) warnings: Vec<String>,
    /// The disk that the pictures are on.
    pub(crate) disk: Option<DiskSpace>,
}

/// What a warning is about: it is the same one as long as that is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum WarningTopic {
    /// The disk with this number.
    Disk(u64),
    Store,
    Certificate,
    Images,
    Log,
}

impl Default for Warnings {
    fn default() -> Self {
        Self(Reloadable::new(Arc::default()))
    }
}

impl Warnings {
    /// What the last look found.
    pub(crate) fn load(&self) -> Arc<WarningSnapshot> {
        self.0.load()
    }
}

/// What is looked at; a reload changes it.
#[derive(Debug)]
pub(crate) struct WarningInputs {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// What the store holds.
    pub(crate) totals: StoreTotals,
    /// Where it is told.
    pub(crate) warnings: Warnings,
}

/// The worker.
pub(crate) async fn run(inputs: impl Fn() -> WarningInputs) {
    let mut fullness = BTreeMap::new();
    // These are told at the start.
    let config = inputs().config;
    let images = no_images_warning(&config).map(|message| (WarningTopic::Images, message));
    let warning = blocking(move || certificate_warning(&config)).await;
    let certificate = warning.map(|message| (WarningTopic::Certificate, message));
    let mut logged = certificate.into_iter().chain(images).collect();
    loop {
        let WarningInputs { config, totals, warnings } = inputs();
        let (found, disk, before) = blocking(move || {
            let (found, disk) = collect(&config, totals, &mut fullness);
            (found, disk, fullness)
        })
        .await;
        fullness = before;
        log_changes(&logged, &found);
        warnings.0.replace(Arc::new(WarningSnapshot { warnings: found.values().cloned().collect(), disk }));
        logged = found;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn log_changes(logged: &BTreeMap<WarningTopic, String>, found: &BTreeMap<WarningTopic, String>) {
    for (about, message) in found {
        if !logged.contains_key(about) {
            warn!("{message}");
        }
    }
    for (_, message) in logged.iter().filter(|(about, _)| !found.contains_key(about)) {
        info!("no longer so: {message}");
    }
}

/// Blocks: a network disk may take its time.
fn collect(
    config: &Config,
    totals: StoreTotals,
    fullness: &mut BTreeMap<WarningTopic, Fullness>,
) -> (BTreeMap<WarningTopic, String>, Option<DiskSpace>) {
    let mut found = BTreeMap::new();
    let mut nearly_full =
        |about: &WarningTopic, taken, all| fullness.entry(about.clone()).or_default().update(taken, all);
    for (about, (disk, holds)) in disks(config) {
        let (taken, all) = usage(disk);
        if nearly_full(&about, taken, all) {
            let holds: Vec<_> = holds.iter().map(String::as_str).collect();
            found.insert(about, disk_warning(disk, &holds));
        }
    }
    if let Some(bound) = config.retention.max_bytes
        && nearly_full(&WarningTopic::Store, totals.bytes, bound)
    {
        found.insert(WarningTopic::Store, store_warning(totals, bound));
    }
    found.extend(certificate_warning(config).map(|message| (WarningTopic::Certificate, message)));
    found.extend(no_images_warning(config).map(|message| (WarningTopic::Images, message)));
    found.extend(log_file_error().map(|message| (WarningTopic::Log, message)));
    (found, disk_space(&config.store_dir).ok())
}

/// The disks that something of ours is on, each with what that is.
fn disks(config: &Config) -> BTreeMap<WarningTopic, (DiskSpace, Vec<String>)> {
    let log = config.log.file.as_ref().and_then(|file| file.parent()).map(PathBuf::from);
    let places = [
        ("the pictures", Some(config.store_dir.clone())),
        ("the data", Some(config.data_dir.clone())),
        ("the log", log),
    ];
    let mut disks = BTreeMap::new();
    for (what, place) in places.into_iter().filter_map(|(what, place)| Some((what, place?))) {
        let Some((number, disk)) = disk_at(&place) else { continue };
        let (_, holds) = disks.entry(WarningTopic::Disk(number)).or_insert((disk, Vec::new()));
        holds.push(format!("{what} ({})", place.display()));
    }
    disks
}

fn disk_at(place: &Path) -> Option<(u64, DiskSpace)> {
    let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
    Some((std::fs::metadata(place).ok()?.dev(), disk_space(place).ok()?))
}

fn certificate_warning(config: &Config) -> Option<String> {
    let pair = match &config.tls {
        Tls::Off => return None,
        Tls::LocalCa => return user_provided::warning(&config.data_dir, SystemTime::now()),
        Tls::Pair(pair) => pair,
    };
    let remarks = lints::warnings(&pair.cert, SystemTime::now());
    (!remarks.is_empty()).then(|| format!("GATEWAY_TLS_CERT_PATH: {}", remarks.join("; ")))
}
