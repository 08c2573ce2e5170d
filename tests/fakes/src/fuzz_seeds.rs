//! The inputs that the fuzzers start from, and those that found a fault (`tests/fuzz/seeds`).

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

/// Runs a check on each input that is kept for the fuzzer of this name.
pub fn repeat(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let inputs: Vec<PathBuf> =
        fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(!inputs.is_empty(), "no inputs in {}", dir.display());
    for input in inputs {
        let bytes = fs::read(&input).expect("an input can be read");
        let held = panic::catch_unwind(|| check(&bytes));
        assert!(held.is_ok(), "the check of {} failed, as said above", input.display());
    }
}
