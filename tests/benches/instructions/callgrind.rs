//! A program under valgrind's callgrind, and how many instructions it took so far.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use fakes::child::Child;

/// This bench again, with other arguments.
pub(crate) struct Program {
    pub(crate) child: Child,
    dumps: tempfile::TempDir,
}

/// Instructions since the last look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// In the program and in every library.
    pub(crate) all: u64,
    /// In the program's own file only.
    pub(crate) own: u64,
}

impl Program {
    /// Returns once it listens.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let dumps = tempfile::tempdir().expect("a writable directory");
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", dumps.path().join("dump").display()))
            .arg(own_file())
            .args(arguments);
        Self { child: Child::start_as(&mut valgrind), dumps }
    }

    pub(crate) fn counted(&self) -> Counted {
        let before = self.files().len();
        let pid = format!("--pid={}", self.child.id());
        let dumped =
            Command::new("vgdb").args([&pid, "dump"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(dumped.is_ok_and(|status| status.success()), "vgdb, a part of valgrind, cannot reach {pid}");
        let files = self.files();
        assert!(files.len() > before, "callgrind has written no dump");
        let newest = files.last().expect("at least one");
        count(&fs::read_to_string(newest).expect("a dump is text"), &own_file().display().to_string())
    }

    /// The dumps, oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let number = |path: &PathBuf| path.extension()?.to_str()?.parse::<u32>().ok();
        let all = fs::read_dir(self.dumps.path()).expect("our directory").flatten().map(|entry| entry.path());
        let mut dumps: Vec<_> = all.filter_map(|path| Some((number(&path)?, path))).collect();
        dumps.sort();
        dumps.into_iter().map(|(_, path)| path).collect()
    }
}

fn own_file() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

/// Reads callgrind's profile format: `ob=(1) FILE` names the object of the cost lines behind it, `ob=(1)` names it again; the
/// line after `calls=` is what the called function took, which is in that function's own lines as well.
fn count(dump: &str, own_file: &str) -> Counted {
    let mut objects: HashMap<&str, bool> = HashMap::new();
    let (mut all, mut own, mut in_own, mut inclusive) = (0, 0, false, false);
    for line in dump.lines() {
        if let Some((key, value)) = line.split_once('=') {
            inclusive = key == "calls";
            if key != "ob" && key != "cob" {
                continue;
            }
            let (id, name) = value.split_once(' ').unwrap_or((value, ""));
            if !name.is_empty() {
                objects.insert(id, name == own_file);
            }
            if key == "ob" {
                in_own = objects.get(id).copied().unwrap_or_default();
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            let cost = cost.filter(|_| !std::mem::take(&mut inclusive)).unwrap_or_default();
            all += cost;
            own += if in_own { cost } else { 0 };
        }
    }
    Counted { all, own }
}
