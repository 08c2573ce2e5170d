//! The record of a move: the plan, the changes so far, and the phase. It is on disk before anything changes, so that after
//! an interruption systemd, the next boot or the next command can undo or finish it.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Write},
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::changes::{Change, sync_parent};

const DIRECTORY: &str = "/var/lib/ada2-sidecar-move-in";
const FILE: &str = "record.json";
const VERSION: u32 = 1;

/// Where this host's record is.
pub(crate) fn path() -> PathBuf {
    Path::new(DIRECTORY).join(FILE)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// An interruption is undone.
    MovingIn,
    /// nginx's files are remembered.
    MovedIn,
    /// An interruption is finished.
    MovingOut,
}

/// What was decided before anything changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) config: PathBuf,
    /// To set in the configuration file.
    pub(crate) settings: Vec<(String, String)>,
    /// The output directory, if it is in a home directory and so must be exposed to the service.
    #[serde(rename = "home_folder")]
    pub(crate) home_dir: Option<PathBuf>,
    /// The files of nginx that serve the port.
    pub(crate) sites: Vec<PathBuf>,
    /// nginx's unit, if it runs.
    pub(crate) nginx: Option<String>,
    /// The addresses of the socket unit.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether the service has never run here.
    pub(crate) first_time: bool,
    pub(crate) ready_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) phase: Phase,
    pub(crate) plan: Plan,
    /// In the order in which they were made.
    pub(crate) changes: Vec<Change>,
    /// Whether our units may have been started or enabled.
    pub(crate) started: bool,
}

impl Record {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { version: VERSION, phase: Phase::MovingIn, plan, changes: Vec::new(), started: false }
    }
}

#[derive(Debug)]
pub(crate) struct RecordStore {
    dir: PathBuf,
}

impl RecordStore {
    pub(crate) fn system() -> Self {
        Self::at(Path::new(DIRECTORY))
    }

    fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub(crate) fn load(&self) -> io::Result<Option<Record>> {
        let path = self.dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(with_path(&path, &error)),
        };
        let invalid =
            |problem: &str| io::Error::new(ErrorKind::InvalidData, format!("{}: {problem}", path.display()));
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| invalid("is not a record of move-in"))?;
        if value.get("version").and_then(serde_json::Value::as_u64) != Some(VERSION.into()) {
            return Err(invalid("is of another version of ada2-sidecar: use that one to move out"));
        }
        serde_json::from_value(value).map(Some).map_err(|_| invalid("is not a record of move-in"))
    }

    /// Durable once it returns.
    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        self.write(record).map_err(|error| with_path(&self.dir.join(FILE), &error))
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        if !self.dir.is_dir() {
            DirBuilder::new().mode(0o700).create(&self.dir)?;
            sync_parent(&self.dir)?;
        }
        let (path, draft) = (self.dir.join(FILE), self.dir.join("record.new"));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        sync_parent(&path)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        let path = self.dir.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(with_path(&path, &error)),
            _ => sync_parent(&path)?,
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(with_path(&self.dir, &error)),
            _ => Ok(()),
        }
    }

    /// Makes changes that are recorded and saved one by one, each before it is made.
    pub(crate) fn with_changes<T>(
        &self,
        record: &mut Record,
        work: impl FnOnce(&mut dyn FnMut(Change) -> io::Result<()>) -> io::Result<T>,
    ) -> io::Result<T> {
        work(&mut |change| {
            record.changes.push(change);
            self.save(record)
        })
    }
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_one_of_another_version_is_an_error() {
        let dir = std::env::temp_dir().join(format!("ada2-record-{}", uuid::Uuid::new_v4()));
        let store = RecordStore::at(&dir);
        assert_eq!(store.load().unwrap(), None);
        let mut record = Record::new(Plan {
            config: "/etc/ada2-sidecar/config.yaml".into(),
            settings: vec![("gpu_id".to_owned(), "GPU-1".to_owned())],
            home_dir: None,
            sites: vec!["/etc/nginx/sites-enabled/a".into()],
            nginx: Some("nginx.service".to_owned()),
            addresses: vec!["0.0.0.0:7860".parse().unwrap()],
            first_time: true,
            ready_seconds: 60,
        });
        store.save(&record).unwrap();
        store
            .with_changes(&mut record, |record_change| record_change(Change::Directory("/x".into())))
            .unwrap();
        assert_eq!(store.load().unwrap(), Some(record.clone()));
        assert_eq!(record.changes.len(), 1);
        let json = fs::read_to_string(dir.join(FILE)).unwrap();
        assert!(json.contains("\"home_folder\"") && json.contains("\"folder\": \"/x\""), "{json}");
        record.version = 2;
        store.save(&record).unwrap();
        assert!(store.load().unwrap_err().to_string().contains("another version"));
        fs::write(dir.join(FILE), "{").unwrap();
        assert!(store.load().unwrap_err().to_string().contains("not a record"));
        store.remove().unwrap();
        store.remove().unwrap();
        assert!(!dir.exists());
    }
}
