//! A fake graphics card: a copy of the fake NVML library in a directory of its own, and the scenario beside it. Cards
//! are independent of each other, and can change while they are read.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use fake_nvml::{CALLS_FILE, SCENARIO_FILE};
pub use fake_nvml::{
    CardMemory, Clocks, Display, Ecc, EccCounts, Gpu, Mig, Pci, Pcie, PowerRange, Process, RemappedRows,
    Scenario, Utilization, Xid,
};

use crate::fresh_dir;

/// A machine with a fake card, removed when this value is dropped.
#[derive(Debug)]
pub struct FakeCard {
    dir: PathBuf,
}

impl FakeCard {
    /// One healthy, idle RTX 6000 Ada.
    #[expect(clippy::new_without_default, reason = "it makes files: nobody should get one by deriving")]
    pub fn new() -> Self {
        let card = Self { dir: fresh_dir("card") };
        fs::copy(built_library(), card.library()).expect("the fake library can be copied");
        card.write(&Scenario::default());
        card
    }

    /// The value of the sidecar's `nvml_lib`.
    pub fn library(&self) -> PathBuf {
        self.dir.join("libnvidia-ml.so.1")
    }

    /// Changes what the card is like, from the next call on.
    pub fn set(&self, change: impl FnOnce(&mut Scenario)) {
        let json = fs::read(self.dir.join(SCENARIO_FILE)).expect("the scenario is there");
        let mut scenario = serde_json::from_slice(&json).expect("the scenario is ours");
        change(&mut scenario);
        self.write(&scenario);
    }

    /// The driver logs one more event.
    pub fn xid(&self, code: u64) {
        self.set(|scenario| scenario.gpus[0].xid(code));
    }

    /// How often a symbol was called.
    pub fn calls(&self, symbol: &str) -> usize {
        self.call_log().lines().filter(|line| *line == symbol).count()
    }

    /// Every symbol that was called.
    pub fn symbols(&self) -> BTreeSet<String> {
        self.call_log().lines().map(str::to_owned).collect()
    }

    /// How often any symbol was called.
    pub fn all_calls(&self) -> usize {
        self.call_log().lines().count()
    }

    fn call_log(&self) -> String {
        fs::read_to_string(self.dir.join(CALLS_FILE)).unwrap_or_default()
    }

    /// By renaming, because a call may be reading it.
    fn write(&self, scenario: &Scenario) {
        let json = serde_json::to_vec_pretty(scenario).expect("a scenario is JSON");
        let new = self.dir.join("scenario.new");
        fs::write(&new, json).expect("the scenario can be written");
        fs::rename(new, self.dir.join(SCENARIO_FILE)).expect("the scenario can be replaced");
    }
}

impl Drop for FakeCard {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Cargo puts it beside a test executable, and one directory below any other.
fn built_library() -> PathBuf {
    let name = format!("{}fake_nvml{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let executable = env::current_exe().expect("this program has a path");
    let dir = executable.parent().expect("a program lies in a directory");
    let beside = dir.join(&name);
    if beside.exists() { beside } else { dir.join("deps").join(name) }
}
