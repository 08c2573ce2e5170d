//! The inputs that the fuzzers start from, and those that found a fault (`tests/fuzz/seeds`).

use std::{fs, path::Path};

/// Runs a check on each input that is kept for the fuzzer of this name.
pub fn repeat(target: &str, check: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let files: Vec<_> = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    assert!(!files.is_empty(), "no inputs in {}", dir.display());
    for file in files {
        println!("{target}: {}", file.display()); // shown if the check fails
        check(&fs::read(&file).expect("an input can be read"));
    }
}
