//! A copy of the library in a directory of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use fake_nvml::{CALLS_FILE, Gpu, SCENARIO_FILE, Scenario};
use nvml_wrapper::{Nvml, error::NvmlError};

/// Removed when this value is dropped.
pub(crate) struct Machine(PathBuf);

impl Machine {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = env::temp_dir().join(format!("fake-nvml-{}-{nth}", process::id()));
        fs::create_dir_all(&dir).expect("the temporary directory can be written");
        let machine = Self(dir);
        fs::copy(built_library(), machine.0.join("libnvidia-ml.so.1")).expect("the library can be copied");
        machine.write(&Scenario::default());
        machine
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn try_load(&self) -> Result<Nvml, NvmlError> {
        Nvml::builder().lib_path(self.0.join("libnvidia-ml.so.1").as_os_str()).init()
    }

    pub(crate) fn load(&self) -> Nvml {
        self.try_load().expect("the library answers")
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Scenario)) {
        let json = fs::read(self.0.join(SCENARIO_FILE)).expect("the scenario is there");
        let mut scenario = serde_json::from_slice(&json).expect("the scenario is ours");
        change(&mut scenario);
        self.write(&scenario);
    }

    pub(crate) fn set_card(&self, change: impl FnOnce(&mut Gpu)) {
        self.set(|scenario| change(&mut scenario.gpus[0]));
    }

    pub(crate) fn write_text(&self, json: &str) {
        let new = self.0.join("scenario.new");
        fs::write(&new, json).expect("the scenario can be written");
        fs::rename(new, self.0.join(SCENARIO_FILE)).expect("the scenario can be replaced");
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.join(CALLS_FILE)).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn write(&self, scenario: &Scenario) {
        self.write_text(&serde_json::to_string_pretty(scenario).expect("a scenario is JSON"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Cargo puts it beside the test's executable.
fn built_library() -> PathBuf {
    let name = format!("{}fake_nvml{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let executable = env::current_exe().expect("this program has a path");
    let dir = executable.parent().expect("a program lies in a directory");
    let beside = dir.join(&name);
    if beside.exists() { beside } else { dir.with_file_name(name) }
}
