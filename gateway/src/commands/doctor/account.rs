//! The account that the gateway runs as, and its access to files. The system decides that: modes alone are not enough, because of
//! groups and access lists.

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

#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    invoker: Invoker,
    /// Unless it is the default.
    env_file: Option<PathBuf>,
}

/// The account that runs the doctor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Invoker {
    /// The gateway's own.
    Itself,
    Root,
    /// One that cannot check the gateway's access.
    Other,
}

impl Account {
    /// The launchd job's account, else the owner of the first existing file, else the current user.
    pub(super) fn find(job_user: Option<&str>, files: &[&Path], env_file: &Path) -> Self {
        let owner =
            || files.iter().find_map(|path| fs::metadata(path).ok()).map(|file| user_name(file.uid()));
        let current_user = current_user_name();
        let name = job_user.map(str::to_owned).or_else(owner).unwrap_or_else(|| current_user.clone());
        let invoker = match current_user.as_str() {
            user if user == name => Invoker::Itself,
            "root" => Invoker::Root,
            _ => Invoker::Other,
        };
        let env_file = (env_file != Path::new(ENV_FILE)).then(|| env_file.to_owned());
        Self { name, invoker, env_file }
    }

    /// Whether it has access; `None` if the current user cannot find out. `test` is as in `test -w PATH`.
    pub(super) async fn has_access(&self, tools: &SystemTools, test: &str, path: &Path) -> Option<bool> {
        let path = path.to_str()?;
        let output = match self.invoker {
            Invoker::Itself => tools.run("test", &[test, path]).await,
            Invoker::Root => tools.run("sudo", &["-u", &self.name, "-H", "/bin/test", test, path]).await,
            Invoker::Other => return None,
        };
        match output {
            CommandOutput::Done { code: Some(0), .. } => Some(true),
            // If sudo itself failed, it says so.
            CommandOutput::Done { code: Some(1), text } if text.trim().is_empty() => Some(false),
            _ => None,
        }
    }

    /// Whether the current user can check this account's access.
    pub(super) fn is_checkable(&self) -> bool {
        self.invoker != Invoker::Other
    }

    /// The command that can check it.
    pub(super) fn doctor_command(&self) -> String {
        let file = self.env_file.as_deref().map(|path| format!(" --env-file {}", quoted(path)));
        let file = file.unwrap_or_default();
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
    fn the_doctor_command_reads_the_same_env_file() {
        let command = |name, file: &str| Account::find(Some(name), &[], Path::new(file)).doctor_command();
        assert_eq!(command("root", ENV_FILE), "sudo gateway doctor");
        assert_eq!(command("_gateway", ENV_FILE), "sudo -u _gateway gateway doctor");
        assert_eq!(command("root", "/a b/.env"), "sudo gateway doctor --env-file '/a b/.env'");
    }
}
