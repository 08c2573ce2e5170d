//! The account that the gateway runs as, and what it may do, asked of the system itself: modes alone do not tell (access lists,
//! groups). Who may not ask for it learns how to.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use service::files::{current_user_name, user_name};

use super::{
    quoted,
    tools::{CommandOutput, SystemTools},
};
use crate::config::ENV_FILE;

/// The account.
#[derive(Debug, Clone)]
pub(super) struct Account {
    /// Its name.
    pub(super) name: String,
    invoker: Invoker,
    /// The env file, where it is not the default.
    env_file: Option<PathBuf>,
}

/// Who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invoker {
    /// It does.
    Itself,
    /// Root does.
    Root,
    /// Somebody who may not.
    Other,
}

impl Account {
    /// The one that the launchd job names, else the owner of the first of these files that is there, else who asks.
    pub(super) fn find(of_job: Option<&str>, files: &[&Path], env_file: &Path) -> Self {
        let owner =
            || files.iter().find_map(|path| fs::metadata(path).ok()).map(|found| user_name(found.uid()));
        let caller = current_user_name();
        let name = of_job.map(str::to_owned).or_else(owner).unwrap_or_else(|| caller.clone());
        let asked = match caller.as_str() {
            caller if caller == name => Invoker::Itself,
            "root" => Invoker::Root,
            _ => Invoker::Other,
        };
        let env_file = (env_file != Path::new(ENV_FILE)).then(|| env_file.to_owned());
        Self { name, invoker: asked, env_file }
    }

    /// Whether it may; `None` where only others can find out. `test` is as in `test -w PATH`.
    pub(super) async fn has_access(&self, tools: &SystemTools, test: &str, path: &Path) -> Option<bool> {
        let path = path.to_str()?;
        let ran = match self.invoker {
            Invoker::Itself => tools.run("test", &[test, path]).await,
            Invoker::Root => tools.run("sudo", &["-u", &self.name, "-H", "/bin/test", test, path]).await,
            Invoker::Other => return None,
        };
        match ran {
            CommandOutput::Done { code: Some(0), .. } => Some(true),
            // sudo says something where it did not get as far as asking.
            CommandOutput::Done { code: Some(1), text } if text.trim().is_empty() => Some(false),
            _ => None,
        }
    }

    /// Whether this is who asks, or root.
    pub(super) fn is_checkable(&self) -> bool {
        self.invoker != Invoker::Other
    }

    /// The command that can tell.
    pub(super) fn doctor_command(&self) -> String {
        let file = |path: &PathBuf| format!(" --env-file {}", quoted(&path.display().to_string()));
        let file = self.env_file.as_ref().map(file).unwrap_or_default();
        match self.name.as_str() {
            "root" => format!("sudo gateway doctor{file}"),
            name => format!("sudo -u {name} gateway doctor{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_can_tell_reads_the_same_file() {
        let command = |name, file: &str| Account::find(Some(name), &[], Path::new(file)).doctor_command();
        assert_eq!(command("root", ENV_FILE), "sudo gateway doctor");
        assert_eq!(command("_gateway", ENV_FILE), "sudo -u _gateway gateway doctor");
        assert_eq!(command("root", "/a b/.env"), "sudo gateway doctor --env-file '/a b/.env'");
    }
}
