//! Tells the compiler the version, as for both programs, and embeds the web page: every file in `page/` is part of the program,
//! as it is and compressed, so that a new file needs no code. With the feature `headless` it is `page-headless/`.

#[path = "src/middleware/auth/page_path.rs"]
mod page_path;
#[path = "../shared/build/version.rs"]
mod version;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

fn main() -> io::Result<()> {
    version::main()?;
    let is_headless = !version::variable("CARGO_FEATURE_HEADLESS").is_empty();
    let folder = if is_headless { "page-headless" } else { "page" };
    let folder = PathBuf::from(version::variable("CARGO_MANIFEST_DIR")).join(folder);
    writeln!(io::stdout(), "cargo:rerun-if-changed={}", folder.display())?;
    let out = PathBuf::from(version::variable("OUT_DIR"));
    let mut entries = Vec::new();
    for (nth, name) in names(&folder)?.iter().enumerate() {
        entries.push(embed(&folder, name, &out.join(format!("page-{nth}.gz")))?);
    }
    fs::write(out.join("page.rs"), format!("&[\n{}]\n", entries.concat()))
}

/// The files, sorted, as `main.js` or `charts/line.js`. Hidden ones are an editor's.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for (name, is_dir) in visible_entries(folder)? {
        if is_dir {
            let inner = visible_entries(&folder.join(&name))?;
            names.extend(inner.into_iter().map(|(file, _)| format!("{name}/{file}")));
        } else {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn visible_entries(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let entries = fs::read_dir(folder)?.map(|entry| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.file_type()?.is_dir()))
    });
    let entries: io::Result<Vec<_>> = entries.collect();
    Ok(entries?.into_iter().filter(|(name, _)| !name.starts_with('.')).collect())
}

/// An expression of the type `PageFile`.
fn embed(folder: &Path, name: &str, compressed_path: &Path) -> io::Result<String> {
    let path = folder.join(name);
    let error = |what: String| io::Error::other(format!("{}: {what}", path.display()));
    if !page_path::is_page_path(name) {
        return Err(error(
            "expected a name of a-z, 0-9, - and _ with an extension, at most one folder deep".to_owned(),
        ));
    }
    let mime = mime(&path).ok_or_else(|| error("gateway/build.rs has no media type for it".to_owned()))?;
    let bytes = fs::read(&path).map_err(|why| error(why.to_string()))?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes)?;
    let compressed = encoder.finish()?;
    fs::write(compressed_path, &compressed)?;
    Ok(format!(
        "    PageFile {{ name: {name:?}, mime: {mime:?}, plain: {}, gzip: {} }},\n",
        representation(&path, &bytes),
        representation(compressed_path, &compressed)
    ))
}

/// An expression of the type `Representation`.
fn representation(path: &Path, bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes)[..8].iter().fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    let (path, etag) = (path.to_string_lossy(), format!("\"{hash:016x}\""));
    format!("Representation {{ bytes: include_bytes!({path:?}), etag: {etag:?} }}")
}

fn mime(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()? {
        "html" => Some("text/html; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "png" => Some("image/png"),
        _ => None,
    }
}
