//! The record of a move: what is to be done, what was changed, and how far it is. It is on disk before anything changes, so
//! that whoever comes after an interruption (systemd, the next boot, the next command) can undo or finish it.

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

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Moving in; an interruption is undone.
    MovingIn,
    /// Moved in; what nginx had is remembered.
    MovedIn,
    /// Moving out; an interruption is finished.
    MovingOut,
}

/// What was decided before anything changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The configuration file.
    pub(crate) config: PathBuf,
    /// What is set in it.
    pub(crate) settings: Vec<(String, String)>,
    /// The folder in a home that the service must see.
    pub(crate) home_folder: Option<PathBuf>,
    /// nginx's files that serve the port.
    pub(crate) sites: Vec<PathBuf>,
    /// nginx's unit, if it runs.
    pub(crate) nginx: Option<String>,
    /// Where the socket unit listens.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether the service had never run here.
    pub(crate) first_time: bool,
    /// How long the service may take to be ready.
    pub(crate) ready_seconds: u64,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    pub(crate) phase: Phase,
    pub(crate) plan: Plan,
    /// In the order in which they were done.
    pub(crate) changes: Vec<Change>,
    /// Whether our units may have been started or enabled.
    pub(crate) started: bool,
}

impl Record {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { version: VERSION, phase: Phase::MovingIn, plan, changes: Vec::new(), started: false }
    }
}

/// Where records are kept.
#[derive(Debug)]
pub(crate) struct RecordStore {
    folder: PathBuf,
}

impl RecordStore {
    pub(crate) fn system() -> Self {
        Self::at(Path::new(DIRECTORY))
    }

    fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// None if there is none.
    pub(crate) fn load(&self) -> io::Result<Option<Record>> {
        let path = self.folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(with_path(&path, &error)),
        };
        let unknown =
            |why: &str| io::Error::new(ErrorKind::InvalidData, format!("{}: {why}", path.display()));
        let value: serde_json::Value =
            serde_json::from_slice(&text).map_err(|_| unknown("is not a record of move-in"))?;
        if value.get("version").and_then(serde_json::Value::as_u64) != Some(VERSION.into()) {
            return Err(unknown("is of another version of ada2-sidecar: use that one to move out"));
        }
        serde_json::from_value(value).map(Some).map_err(|_| unknown("is not a record of move-in"))
    }

    /// Returns once it is on disk.
    pub(crate) fn save(&self, record: &Record) -> io::Result<()> {
        self.write(record).map_err(|error| with_path(&self.folder.join(FILE), &error))
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        if !self.folder.is_dir() {
            DirBuilder::new().mode(0o700).create(&self.folder)?;
            sync_parent(&self.folder)?;
        }
        let (path, draft) = (self.folder.join(FILE), self.folder.join("record.new"));
        let mut file = File::create(&draft)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        sync_parent(&path)
    }

    /// Takes it away.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let path = self.folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(with_path(&path, &error)),
            _ => sync_parent(&path)?,
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(with_path(&self.folder, &error)),
            _ => Ok(()),
        }
    }

    /// Does changes under this record: each is noted in it and saved before it is done.
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
    fn a_record_outlives_the_process_and_another_version_is_told() {
        let folder = std::env::temp_dir().join(format!("ada2-record-{}", uuid::Uuid::new_v4()));
        let book = RecordStore::at(&folder);
        assert_eq!(book.load().unwrap(), None);
        let mut record = Record::new(Plan {
            config: "/etc/ada2-sidecar/config.yaml".into(),
            settings: vec![("gpu_id".to_owned(), "GPU-1".to_owned())],
            home_folder: None,
            sites: vec!["/etc/nginx/sites-enabled/a".into()],
            nginx: Some("nginx.service".to_owned()),
            addresses: vec!["0.0.0.0:7860".parse().unwrap()],
            first_time: true,
            ready_seconds: 60,
        });
        book.save(&record).unwrap();
        book.with_changes(&mut record, |note| note(Change::Folder("/x".into()))).unwrap();
        assert_eq!(book.load().unwrap(), Some(record.clone()));
        assert_eq!(record.changes.len(), 1);
        record.version = 2;
        book.save(&record).unwrap();
        assert!(book.load().unwrap_err().to_string().contains("another version"));
        fs::write(folder.join(FILE), "{").unwrap();
        assert!(book.load().unwrap_err().to_string().contains("not a record"));
        book.remove().unwrap();
        book.remove().unwrap();
        assert!(!folder.exists());
    }
}
