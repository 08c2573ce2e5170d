//! The launchd job: its property list, account, program and state.

mod read;
mod rules;

use std::{fs, io, os::unix::fs::MetadataExt};

use self::read::{JobState, PlistContent};
pub(super) use self::rules::findings;
use super::tools::{CommandOutput, SystemTools};

pub(super) const LABEL: &str = "com.ai.gateway";
const PLIST: &str = "/Library/LaunchDaemons/com.ai.gateway.plist";
/// Where the package installs the program.
pub(super) const DEFAULT_PROGRAM: &str = "/usr/local/bin/gateway";
/// Where launchd writes the gateway's standard error.
pub(super) const STDERR_LOG: &str = "/var/lib/gateway/logs/gateway.stderr.log";

/// launchd starts it again.
pub(super) const RESTART: &str = "sudo launchctl kill TERM system/com.ai.gateway";
pub(super) const RELOAD: &str = "sudo launchctl kill HUP system/com.ai.gateway";

#[derive(Debug)]
pub(super) struct LaunchdJob {
    plist: Plist,
    state: JobState,
    process: Option<u32>,
    is_disabled: bool,
    program: Option<JobProgram>,
    account_exists: Option<bool>,
}

/// The property list file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plist {
    Missing,
    Unreadable(String),
    Present { uid: u32, mode: u32, content: Result<PlistContent, PlistError> },
}

/// Why its contents are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlistError {
    /// It is not a valid property list.
    Invalid,
    /// `plutil` gave no answer.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct JobProgram {
    path: String,
    is_executable: bool,
    is_quarantined: bool,
}

impl LaunchdJob {
    pub(super) async fn inspect(tools: &SystemTools) -> Self {
        let plist = plist(tools).await;
        let content = match &plist {
            Plist::Present { content: Ok(content), .. } => Some(content),
            _ => None,
        };
        let target = format!("system/{LABEL}");
        let print_arguments = ["print", target.as_str()];
        let print = tools.run("launchctl", &print_arguments);
        let print_disabled = tools.run("launchctl", &["print-disabled", "system"]);
        let account = async {
            let user = content?.user.as_deref()?;
            match tools.run("id", &["-u", user]).await {
                CommandOutput::Done { code: Some(code), .. } => Some(code == 0),
                _ => None,
            }
        };
        let program = async {
            let path = content?.program.clone()?;
            let quarantine = tools.run("xattr", &["-p", "com.apple.quarantine", &path]).await;
            let mode = fs::metadata(&path).ok().filter(fs::Metadata::is_file).map(|file| file.mode());
            let is_executable = mode.is_some_and(|mode| mode & 0o111 != 0);
            Some(JobProgram { path, is_executable, is_quarantined: quarantine.text().is_some() })
        };
        let (print, print_disabled, account_exists, program) =
            tokio::join!(print, print_disabled, account, program);
        Self {
            state: JobState::read(&print),
            process: read::process(&print),
            is_disabled: print_disabled.text().is_some_and(|text| read::is_disabled(text, LABEL)),
            program,
            account_exists,
            plist,
        }
    }

    /// The account that it runs as.
    pub(super) fn user(&self) -> Option<&str> {
        match &self.plist {
            Plist::Present { content: Ok(content), .. } => content.user.as_deref(),
            _ => None,
        }
    }

    pub(super) fn program(&self) -> Option<&str> {
        self.program.as_ref().map(|program| program.path.as_str())
    }

    pub(super) const fn process(&self) -> Option<u32> {
        self.process
    }

    pub(super) fn is_installed(&self) -> bool {
        self.plist != Plist::Missing
    }
}

async fn plist(tools: &SystemTools) -> Plist {
    let file = match fs::metadata(PLIST) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Plist::Missing,
        Err(error) => return Plist::Unreadable(error.to_string()),
    };
    let content = match tools.run("plutil", &["-convert", "json", "-o", "-", PLIST]).await {
        CommandOutput::Done { code: Some(0), text } => PlistContent::read(&text).ok_or(PlistError::Unknown),
        CommandOutput::Done { text, .. } if text.contains("Property List error") => Err(PlistError::Invalid),
        _ => Err(PlistError::Unknown),
    };
    Plist::Present { uid: file.uid(), mode: file.mode() & 0o7777, content }
}
