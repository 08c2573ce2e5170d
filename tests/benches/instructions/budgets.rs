//! The recorded figures. They hold for one compiler and one profile: with another compiler nothing can be said.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    fs,
    path::PathBuf,
    process::Command,
};

use serde_json::{Map, Value, json};

/// In percent of the figure.
const ALLOWED: f64 = 3.0;

/// Of one profile.
pub(crate) struct Budgets {
    /// All profiles' figures, as in the file.
    file: Map<String, Value>,
    profile: String,
    compiler: String,
    figures: BTreeMap<String, u64>,
}

/// A count beside its figure.
pub(crate) enum Verdict {
    /// By so many percent.
    Within(f64),
    Over(f64),
    /// With what to do.
    Incomparable(String),
}

impl Budgets {
    pub(crate) fn read() -> Self {
        let file = fs::read(path()).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let (profile, compiler) = (profile(), compiler());
        let file: Map<String, Value> = file.unwrap_or_default();
        let recorded = file.get(&profile).filter(|recorded| recorded["compiler"] == *compiler);
        let figures = recorded.and_then(|recorded| serde_json::from_value(recorded["figures"].clone()).ok());
        Self { figures: figures.unwrap_or_default(), file, profile, compiler }
    }

    pub(crate) fn set(&mut self, name: &str, count: u64) {
        self.figures.insert(name.to_owned(), count);
    }

    pub(crate) fn write(mut self) {
        let recorded = json!({"compiler": self.compiler, "figures": self.figures});
        self.file.insert(self.profile, recorded);
        let text = serde_json::to_string_pretty(&self.file).expect("names and numbers are JSON");
        fs::write(path(), text + "\n").expect("the repository can be written");
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn compare(&self, name: &str, count: u64) -> Verdict {
        let Some(figure) = self.figures.get(name) else {
            return Verdict::Incomparable(format!(
                "no figure for {} and {}: record one with --record",
                self.profile, self.compiler
            ));
        };
        let percent = (count as f64 / *figure as f64 - 1.0) * 100.0;
        if percent > ALLOWED { Verdict::Over(percent) } else { Verdict::Within(percent) }
    }
}

impl Verdict {
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Over(_))
    }
}

impl Display for Verdict {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within(percent) => write!(out, "{percent:+.1} %"),
            Self::Over(percent) => write!(
                out,
                "{percent:+.1} %: over the budget of {ALLOWED} %. Find what costs more (callgrind_annotate), or record the \
                 new figure with --record and say why in the commit"
            ),
            Self::Incomparable(why) => out.write_str(why),
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("instructions/budgets.json")
}

/// The folder of the target directory that this program was built into, such as `debug`.
fn profile() -> String {
    let program = std::env::current_exe().expect("this program has a path");
    let folder = program.ancestors().find(|path| !path.ends_with("deps") && path.is_dir());
    folder.and_then(|path| path.file_name()).map_or_else(String::new, |name| name.display().to_string())
}

fn compiler() -> String {
    let version =
        Command::new("rustc").arg("--version").output().expect("cargo runs this, so rustc is there");
    String::from_utf8_lossy(&version.stdout).trim().to_owned()
}
