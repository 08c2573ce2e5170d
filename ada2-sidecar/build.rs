//! Tells the compiler the version, as for both programs, and embeds the built-in graphs: every file in a directory of graphs
//! is part of the program, so that a new family of models needs no code.

#[path = "../shared/build/version.rs"]
mod version;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

const ENGINES: [&str; 2] = ["comfyui", "invokeai"];

fn main() -> io::Result<()> {
    version::main()?;
    let package = PathBuf::from(version::variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(version::variable("OUT_DIR"));
    let mut cargo = io::stdout().lock();
    for engine in ENGINES {
        let graphs = package.join("src/engine").join(engine).join("graphs");
        writeln!(cargo, "cargo:rerun-if-changed={}", graphs.display())?;
        fs::write(out.join(format!("{engine}_graphs.rs")), embed(&graphs)?)?;
    }
    Ok(())
}

/// An expression: a slice of names and contents.
fn embed(graphs: &Path) -> io::Result<String> {
    let mut files = fs::read_dir(graphs)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    let entry = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = file.to_string_lossy().into_owned();
        format!("    ({name:?}, include_str!({path:?})),\n")
    };
    let entries: Vec<_> = files.iter().map(entry).collect();
    Ok(format!("&[\n{}]\n", entries.concat()))
}
