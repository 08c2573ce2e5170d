//! The engine's models directory: whether the service can read it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use service::{doctor::Finding, subprocess::with_timeout};

use super::{
    configuration::readable_by,
    fixes::{FixHints, drop_in_fix},
    output_dir::is_hidden_by_unit,
};
use crate::{commands::systemd::SystemdUnit, config::EngineKind, sandbox::is_in_home_dir};

const NAME: &str = "model_folder";
/// For listing the directory.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// The facts.
pub(super) struct ModelDirFacts<'a> {
    pub(super) dir: &'a Path,
    pub(super) engine: EngineKind,
    pub(super) service: Option<&'a SystemdUnit>,
    pub(super) fixes: &'a FixHints,
}

/// What listing the directory of checkpoints gives.
#[derive(Debug, Clone, Copy)]
enum Listing {
    /// So many entries; the service's user may read them or not.
    Entries(usize, bool),
    Failed(io::ErrorKind),
    Hangs,
}

impl ModelDirFacts<'_> {
    pub(super) fn evaluate(&self) -> Finding {
        self.evaluate_with(self.list())
    }

    fn list(&self) -> Listing {
        let checkpoints = self.dir.join("checkpoints");
        let entries = move || {
            fs::read_dir(&checkpoints).map(|entries| {
                let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                (checkpoints, paths)
            })
        };
        match with_timeout(READ_TIMEOUT, entries) {
            None => Listing::Hangs,
            Some(Err(error)) => Listing::Failed(error.kind()),
            Some(Ok((checkpoints, paths))) => {
                // What the unit exposes of a home directory can be reached whatever the directories above it allow.
                let service = self.service.filter(|_| !is_in_home_dir(self.dir));
                let may_read = |path: &Path| service.is_none_or(|service| readable_by(service, path));
                Listing::Entries(
                    paths.len(),
                    may_read(&checkpoints) && paths.iter().all(|path| may_read(path)),
                )
            }
        }
    }

    fn evaluate_with(&self, listing: Listing) -> Finding {
        let dir = self.dir.display();
        if self.engine != EngineKind::ComfyUi {
            let message = format!("engine_model_dir has no effect with {}", self.engine.name());
            return Finding::warn(NAME, message, self.fixes.edit("remove engine_model_dir from"));
        }
        let consequence = "models are classified by metadata and name alone";
        match listing {
            _ if is_hidden_by_unit(self.dir, self.service) => {
                let message = format!("the unit's ProtectHome= hides {dir} from the service: {consequence}");
                let lines = format!("ProtectHome=tmpfs and BindReadOnlyPaths={dir}");
                Finding::warn(NAME, message, drop_in_fix("ada2-sidecar", &lines))
            }
            Listing::Hangs => {
                let message = format!("reading engine_model_dir {dir} hangs: {consequence}");
                Finding::warn(NAME, message, "look for a dead mount with `df`")
            }
            Listing::Failed(io::ErrorKind::PermissionDenied) => {
                Finding::skip(NAME, format!("this user cannot read {dir}: run with sudo"))
            }
            Listing::Failed(_) => {
                let message = format!("engine_model_dir {dir} has no directory checkpoints: {consequence}");
                let fix =
                    self.fixes.edit("name the engine's models directory, the parent of checkpoints, in");
                Finding::warn(NAME, message, fix)
            }
            Listing::Entries(_, false) => {
                let message = format!("the service's user cannot read all of {dir}: {consequence}");
                let fix = format!("sudo chmod -R a+rX {dir} # and a+x its parent directories");
                Finding::warn(NAME, message, fix)
            }
            Listing::Entries(count, true) => {
                Finding::ok(NAME, format!("{count} entries of {dir}/checkpoints are readable"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict;

    use super::*;

    #[test]
    fn the_directory_is_there_and_readable_for_the_service() {
        use Verdict::{Ok, Skip, Warn};
        let fixes = FixHints { file: "c".into(), managed_by_unit: true };
        let hiding = SystemdUnit::parse("a", "ProtectHome=yes\nBindReadOnlyPaths=\n");
        let bound = SystemdUnit::parse("a", "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/x/models\n");
        let (readable, home) = (Listing::Entries(3, true), "/home/x/models");
        let comfyui = EngineKind::ComfyUi;
        for (dir, engine, service, listing, verdict, expected) in [
            ("/srv/models", comfyui, &hiding, readable, Ok, "3 entries of /srv/models/checkpoints"),
            ("/srv/models", EngineKind::InvokeAi, &hiding, readable, Warn, "no effect with invokeai"),
            ("/srv/models", comfyui, &hiding, Listing::Entries(3, false), Warn, "user cannot read all of"),
            ("/srv/models", comfyui, &hiding, Listing::Hangs, Warn, "hangs"),
            (
                "/srv/models",
                comfyui,
                &hiding,
                Listing::Failed(io::ErrorKind::NotFound),
                Warn,
                "no directory checkpoints",
            ),
            (
                "/srv/models",
                comfyui,
                &hiding,
                Listing::Failed(io::ErrorKind::NotADirectory),
                Warn,
                "no directory checkpoints",
            ),
            (
                "/srv/models",
                comfyui,
                &hiding,
                Listing::Failed(io::ErrorKind::PermissionDenied),
                Skip,
                "run with sudo",
            ),
            (home, comfyui, &hiding, readable, Warn, "ProtectHome="),
            (home, comfyui, &bound, readable, Ok, "3 entries"),
        ] {
            let facts = ModelDirFacts { dir: Path::new(dir), engine, service: Some(service), fixes: &fixes };
            let finding = facts.evaluate_with(listing);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.message.contains(expected), "{finding:?}");
        }
    }

    #[test]
    fn the_directory_of_checkpoints_is_listed() {
        let root = fakes::new_temp_dir();
        let fixes = FixHints { file: "c".into(), managed_by_unit: false };
        let facts =
            ModelDirFacts { dir: root.path(), engine: EngineKind::ComfyUi, service: None, fixes: &fixes };
        assert_eq!(facts.evaluate().verdict, Verdict::Warn);
        fs::create_dir(root.path().join("checkpoints")).unwrap();
        fs::write(root.path().join("checkpoints/a.safetensors"), "").unwrap();
        let finding = facts.evaluate();
        assert_eq!(finding.verdict, Verdict::Ok);
        assert!(finding.message.starts_with("1 entries"), "{finding:?}");
    }
}
