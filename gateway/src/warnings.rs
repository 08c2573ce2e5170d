//! Warnings for the operator: a disk or the store nearly full, a certificate about to expire, a log file that cannot be reopened.
//! Checked periodically, published in the status, and logged when they appear and disappear.

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

const INTERVAL: Duration = Duration::from_secs(10);

/// A handle to the latest warnings, cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Warnings(Reloadable<Arc<WarningSnapshot>>);

#[derive(Debug, Default)]
pub(crate) struct WarningSnapshot {
    /// Each with its fix.
    pub(crate) warnings: Vec<String>,
    /// The store's disk.
    pub(crate) disk: Option<DiskSpace>,
}

/// Identifies a warning whose figures change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum WarningTopic {
    /// By device number.
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
    pub(crate) fn load(&self) -> Arc<WarningSnapshot> {
        self.0.load()
    }
}

/// The input of one round; a reload may change it.
#[derive(Debug)]
pub(crate) struct WarningInputs {
    pub(crate) config: Arc<Config>,
    pub(crate) totals: StoreTotals,
    /// Where the result is published.
    pub(crate) warnings: Warnings,
}

/// The worker.
pub(crate) async fn run(inputs: impl Fn() -> WarningInputs) {
    let mut fullness = BTreeMap::new();
    // Start-up logs these.
    let config = inputs().config;
    let images = no_images_warning(&config).map(|message| (WarningTopic::Images, message));
    let certificate = blocking(move || certificate_warning(&config)).await;
    let certificate = certificate.map(|message| (WarningTopic::Certificate, message));
    let mut logged = certificate.into_iter().chain(images).collect();
    loop {
        let WarningInputs { config, totals, warnings } = inputs();
        let (current, disk);
        (current, disk, fullness) = blocking(move || {
            let (current, disk) = collect(&config, totals, &mut fullness);
            (current, disk, fullness)
        })
        .await;
        log_changes(&logged, &current);
        warnings.0.replace(Arc::new(WarningSnapshot { warnings: current.values().cloned().collect(), disk }));
        logged = current;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn log_changes(logged: &BTreeMap<WarningTopic, String>, current: &BTreeMap<WarningTopic, String>) {
    for (_, message) in current.iter().filter(|(topic, _)| !logged.contains_key(topic)) {
        warn!("{message}");
    }
    for (_, message) in logged.iter().filter(|(topic, _)| !current.contains_key(topic)) {
        info!("resolved: {message}");
    }
}

/// Blocks: a network disk may be slow.
fn collect(
    config: &Config,
    totals: StoreTotals,
    fullness: &mut BTreeMap<WarningTopic, Fullness>,
) -> (BTreeMap<WarningTopic, String>, Option<DiskSpace>) {
    let mut warnings = BTreeMap::new();
    let mut is_nearly_full = |topic: &WarningTopic, used, capacity| {
        fullness.entry(topic.clone()).or_default().update(used, capacity)
    };
    for (topic, (disk, contents)) in disks(config) {
        let (used, capacity) = usage(disk);
        if is_nearly_full(&topic, used, capacity) {
            let contents: Vec<_> = contents.iter().map(String::as_str).collect();
            warnings.insert(topic, disk_warning(disk, &contents));
        }
    }
    if let Some(limit) = config.retention.max_bytes
        && is_nearly_full(&WarningTopic::Store, totals.bytes, limit)
    {
        warnings.insert(WarningTopic::Store, store_warning(totals, limit));
    }
    warnings.extend(certificate_warning(config).map(|message| (WarningTopic::Certificate, message)));
    warnings.extend(no_images_warning(config).map(|message| (WarningTopic::Images, message)));
    warnings.extend(log_file_error().map(|message| (WarningTopic::Log, message)));
    (warnings, disk_space(&config.store_dir).ok())
}

/// The disks that we write to, each with what is on it.
fn disks(config: &Config) -> BTreeMap<WarningTopic, (DiskSpace, Vec<String>)> {
    let log = config.log.file.as_ref().and_then(|file| file.parent()).map(PathBuf::from);
    let dirs = [
        ("the images", Some(config.store_dir.clone())),
        ("the data", Some(config.data_dir.clone())),
        ("the log", log),
    ];
    let mut disks = BTreeMap::new();
    for (name, dir) in dirs.into_iter().filter_map(|(name, dir)| Some((name, dir?))) {
        let Some((device, disk)) = disk_of(&dir) else { continue };
        let (_, contents) = disks.entry(WarningTopic::Disk(device)).or_insert((disk, Vec::new()));
        contents.push(format!("{name} ({})", dir.display()));
    }
    disks
}

fn disk_of(dir: &Path) -> Option<(u64, DiskSpace)> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    Some((std::fs::metadata(dir).ok()?.dev(), disk_space(dir).ok()?))
}

fn certificate_warning(config: &Config) -> Option<String> {
    let pair = match &config.tls {
        Tls::Off => return None,
        Tls::LocalCa => return user_provided::warning(&config.data_dir, SystemTime::now()),
        Tls::Pair(pair) => pair,
    };
    let warnings = lints::warnings(&pair.cert, SystemTime::now());
    (!warnings.is_empty()).then(|| format!("GATEWAY_TLS_CERT_PATH: {}", warnings.join("; ")))
}
