//! The launchd job: its property list, the account and program that it names, and what launchd says of it.

mod read;
mod rules;

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use self::read::{JobState, PlistContent};
pub(super) use self::rules::findings;
use super::tools::{CommandOutput, SystemTools};

/// The job's name.
pub(super) const LABEL: &str = "com.ai.gateway";
/// Its property list.
pub(super) const PLIST: &str = "/Library/LaunchDaemons/com.ai.gateway.plist";

/// What is known of the job.
#[derive(Debug)]
pub(super) struct LaunchdJob {
    plist: Plist,
    state: JobState,
    process: Option<u32>,
    disabled: bool,
    program: Option<JobProgram>,
    account_exists: Option<bool>,
}

/// Its property list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Plist {
    Missing,
    Unreadable(String),
    Present { uid: u32, mode: u32, content: Result<PlistContent, PlistError> },
}

/// Why it is not known what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlistError {
    /// It is broken.
    Broken,
    /// It is not known.
    Unknown,
}

/// The program that it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct JobProgram {
    path: String,
    is_executable: bool,
    is_quarantined: bool,
}

impl LaunchdJob {
    /// Looks at it.
    pub(super) async fn inspect(tools: &SystemTools) -> Self {
        let plist = plist(tools).await;
        let content = match &plist {
            Plist::Present { content: Ok(content), .. } => Some(content),
            _ => None,
        };
        let target = format!("system/{LABEL}");
        let (of_job, disabled) = (["print", target.as_str()], ["print-disabled", "system"]);
        let printing = tools.run("launchctl", &of_job);
        let disabling = tools.run("launchctl", &disabled);
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
            let mode = fs::metadata(&path).ok().filter(fs::Metadata::is_file).map(|found| found.mode());
            let is_executable = mode.is_some_and(|mode| mode & 0o111 != 0);
            Some(JobProgram { path, is_executable, is_quarantined: quarantine.text().is_some() })
        };
        let (printed, disabled, account_exists, program) =
            tokio::join!(printing, disabling, account, program);
        let disabled = disabled.text().is_some_and(|text| read::is_disabled(text, LABEL));
        Self {
            state: JobState::read(&printed),
            process: read::process(&printed),
            disabled,
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

    /// The program that it starts.
    pub(super) fn program(&self) -> Option<&str> {
        self.program.as_ref().map(|program| program.path.as_str())
    }

    /// The process that runs.
    pub(super) const fn process(&self) -> Option<u32> {
        self.process
    }

    /// Whether there is one at all.
    pub(super) fn is_installed(&self) -> bool {
        self.plist != Plist::Missing
    }
}

async fn plist(tools: &SystemTools) -> Plist {
    let found = match fs::metadata(Path::new(PLIST)) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Plist::Missing,
        Err(error) => return Plist::Unreadable(error.to_string()),
    };
    let content = match tools.run("plutil", &["-convert", "json", "-o", "-", PLIST]).await {
        CommandOutput::Done { code: Some(0), text } => PlistContent::read(&text).ok_or(PlistError::Unknown),
        CommandOutput::Done { text, .. } if text.contains("Property List error") => Err(PlistError::Broken),
        _ => Err(PlistError::Unknown),
    };
    Plist::Present { uid: found.uid(), mode: found.mode() & 0o7777, content }
}
