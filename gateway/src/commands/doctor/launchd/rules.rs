//! Findings about the launchd job. Pure.

use std::time::Duration;

use service::{
    doctor::{Finding, Verdict},
    settings::EXIT_CONFIG,
    text::shell_quoted,
};

use super::{
    JobProgram, JobState, LABEL, LaunchdJob, PLIST, Plist, PlistError, STDERR_LOG, read::PlistContent,
};
use crate::config::KEYS;

/// With fewer file descriptors, there can be few connections.
const FEW_FILES: u64 = 1024;
const INSTALL: &str = "sudo ./install.sh (from the package)";

/// `is_blocked` is whether a reported problem keeps the gateway from starting; `grace` is how long its drain may take.
pub(in super::super) fn findings(
    job: &LaunchdJob,
    is_blocked: bool,
    grace: Option<Duration>,
) -> Vec<Finding> {
    let (uid, mode, content) = match &job.plist {
        Plist::Missing => {
            let message =
                format!("no launchd job: {PLIST} does not exist (the package's install.sh creates it)");
            return vec![Finding::skip("plist", message)];
        }
        Plist::Unreadable(why) => return vec![Finding::skip("plist", format!("{PLIST}: {why}"))],
        Plist::Present { uid, mode, content } => (*uid, *mode, content),
    };
    let mut findings = vec![plist(uid, mode, content, grace)];
    findings.extend(account(content.as_ref().ok(), job.account_exists));
    findings.extend(job.program.as_ref().map(program));
    let is_blocked = is_blocked || findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    findings.push(service(&job.state, job.is_disabled, is_blocked));
    findings
}

fn plist(
    uid: u32,
    mode: u32,
    content: &Result<PlistContent, PlistError>,
    grace: Option<Duration>,
) -> Finding {
    let name = "plist";
    if uid != 0 || mode & 0o022 != 0 {
        return Finding::fail(
            name,
            format!(
                "{PLIST} belongs to uid {uid} with mode {mode:o}: launchd refuses a plist that anyone but root can write"
            ),
            format!("sudo chown root:wheel {PLIST} && sudo chmod 644 {PLIST}"),
        );
    }
    match content {
        Ok(content) => plist_content(content, grace),
        Err(PlistError::Invalid) => {
            let message = format!("{PLIST} is not a valid property list (plutil -lint {PLIST})");
            Finding::fail(name, message, INSTALL)
        }
        Err(PlistError::Unknown) => {
            Finding::skip(name, format!("{PLIST} cannot be read here: sudo gateway doctor"))
        }
    }
}

fn plist_content(content: &PlistContent, grace: Option<Duration>) -> Finding {
    let name = "plist";
    let ours: Vec<_> = content
        .variables
        .iter()
        .filter(|name| KEYS.iter().any(|key| key.env == name.as_str()))
        .map(String::as_str)
        .collect();
    if !ours.is_empty() {
        return Finding::warn(
            name,
            format!("{PLIST} sets {}, which overrides the env file", ours.join(", ")),
            "move it into the env file, then: sudo ./install.sh",
        );
    }
    if let Some(files) = content.files.filter(|files| *files < FEW_FILES) {
        return Finding::warn(
            name,
            format!("{PLIST} allows {files} open files (HardResourceLimits): too few for many connections"),
            INSTALL,
        );
    }
    match grace.zip(content.exit_timeout.map(Duration::from_secs)) {
        // 0 is no limit.
        Some((grace, limit)) if grace >= limit && !limit.is_zero() => Finding::warn(
            name,
            format!(
                "launchd kills the gateway after {} s (ExitTimeOut), before its drain of {} s (GATEWAY_SHUTDOWN_GRACE) ends",
                limit.as_secs(),
                grace.as_secs()
            ),
            "lower GATEWAY_SHUTDOWN_GRACE, or raise ExitTimeOut in the plist and run: sudo ./install.sh",
        ),
        _ => Finding::ok(name, format!("{PLIST}: owner and mode are right")),
    }
}

fn account(content: Option<&PlistContent>, exists: Option<bool>) -> Option<Finding> {
    let (name, user) = ("account", content?.user.as_deref());
    Some(match (user, exists) {
        (Some(user), Some(true)) => Finding::ok(name, format!("the gateway runs as {user}")),
        (Some(user), Some(false)) => {
            Finding::fail(name, format!("the account {user} of the launchd job does not exist"), INSTALL)
        }
        (Some(user), None) => Finding::skip(name, format!("cannot look up the account {user}")),
        (None, _) => Finding::warn(
            name,
            "the launchd job names no account (UserName): the gateway runs as root",
            INSTALL,
        ),
    })
}

fn program(program: &JobProgram) -> Finding {
    let (name, path) = ("program", shell_quoted(&program.path));
    if !program.is_executable {
        return Finding::fail(
            name,
            format!("{path}, which the launchd job starts, is not an executable file"),
            INSTALL,
        );
    }
    if program.is_quarantined {
        return Finding::fail(
            name,
            format!("{path} is quarantined (downloaded by a browser or AirDrop): macOS refuses to run it"),
            format!("sudo xattr -d com.apple.quarantine {path}"),
        );
    }
    Finding::ok(name, format!("{path} is executable"))
}

fn service(state: &JobState, is_disabled: bool, is_blocked: bool) -> Finding {
    let name = "service";
    let load = format!("sudo launchctl enable system/{LABEL} && sudo launchctl bootstrap system {PLIST}");
    match state {
        JobState::Running => Finding::ok(name, format!("launchd runs {LABEL}")),
        JobState::Unknown => Finding::skip(name, "`launchctl print` gave no answer: sudo gateway doctor"),
        // A consequence of a reported problem.
        JobState::NotLoaded | JobState::Stopped { .. } if is_blocked => {
            Finding::skip(name, format!("launchd does not run {LABEL}: fix what failed first"))
        }
        JobState::NotLoaded if is_disabled => Finding::fail(name, format!("{LABEL} is disabled"), load),
        JobState::NotLoaded => Finding::fail(name, format!("launchd has not loaded {LABEL}"), load),
        JobState::Stopped { exit } => {
            let ended = match exit {
                Some(code) if *code == i32::from(EXIT_CONFIG) => {
                    "; it exited with 78: its configuration is broken".to_owned()
                }
                Some(code) => format!("; it exited with {code}"),
                None => String::new(),
            };
            Finding::fail(
                name,
                format!("{LABEL} is loaded and does not run{ended}"),
                format!("read {STDERR_LOG}, then: sudo launchctl kickstart system/{LABEL}"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use service::doctor::Verdict::{Fail, Ok, Skip, Warn};

    use super::*;

    fn good() -> LaunchdJob {
        let content = PlistContent {
            program: Some("/usr/local/bin/gateway".to_owned()),
            user: Some("_gateway".to_owned()),
            exit_timeout: Some(45),
            files: Some(8192),
            variables: Vec::new(),
        };
        LaunchdJob {
            plist: Plist::Present { uid: 0, mode: 0o644, content: Result::Ok(content) },
            state: JobState::Running,
            process: Some(8),
            is_disabled: false,
            program: Some(JobProgram {
                path: "/usr/local/bin/gateway".to_owned(),
                is_executable: true,
                is_quarantined: false,
            }),
            account_exists: Some(true),
        }
    }

    fn content(job: &mut LaunchdJob) -> &mut PlistContent {
        match &mut job.plist {
            Plist::Present { content: Result::Ok(content), .. } => content,
            _ => unreachable!("a good one has contents"),
        }
    }

    #[test]
    fn a_good_job_has_no_findings_and_each_fault_is_reported_once() {
        type Break = fn(&mut LaunchdJob);
        let table: [(Break, &str, Verdict, &str); 15] = [
            (|_| (), "plist", Ok, ""),
            (|job| job.plist = Plist::Missing, "plist", Skip, ""),
            (|job| owned(job, 501, 0o644), "plist", Fail, "sudo chown root:wheel"),
            (|job| owned(job, 0, 0o664), "plist", Fail, "sudo chmod 644"),
            (|job| job.plist = broken(PlistError::Invalid), "plist", Fail, "install.sh"),
            (|job| job.plist = broken(PlistError::Unknown), "plist", Skip, ""),
            (|job| content(job).variables = vec!["GATEWAY_PORT".to_owned()], "plist", Warn, "env file"),
            (|job| content(job).files = Some(256), "plist", Warn, "install.sh"),
            (|job| content(job).exit_timeout = Some(30), "plist", Warn, "GATEWAY_SHUTDOWN_GRACE"),
            (|job| job.account_exists = Some(false), "account", Fail, "install.sh"),
            (|job| content(job).user = None, "account", Warn, "install.sh"),
            (|job| quarantine(job), "program", Fail, "xattr -d"),
            (|job| job.state = JobState::NotLoaded, "service", Fail, "launchctl bootstrap system"),
            (|job| job.state = JobState::Stopped { exit: Some(70) }, "service", Fail, "kickstart"),
            (|job| job.state = JobState::Unknown, "service", Skip, ""),
        ];
        for (nth, (fault, name, verdict, fix)) in table.into_iter().enumerate() {
            let mut job = good();
            fault(&mut job);
            let found = findings(&job, false, Some(Duration::from_secs(30)));
            let finding = found.iter().find(|finding| finding.name == name).unwrap();
            assert_eq!(finding.verdict, verdict, "{nth} {finding:?}");
            assert!(finding.fix.as_deref().unwrap_or_default().contains(fix), "{nth} {finding:?}");
            assert!(found.iter().all(|other| other.name == name || other.verdict == Ok), "{nth} {found:?}");
        }
    }

    fn owned(job: &mut LaunchdJob, owner: u32, bits: u32) {
        if let Plist::Present { uid, mode, .. } = &mut job.plist {
            (*uid, *mode) = (owner, bits);
        }
    }

    fn broken(content: PlistError) -> Plist {
        Plist::Present { uid: 0, mode: 0o644, content: Err(content) }
    }

    fn quarantine(job: &mut LaunchdJob) {
        job.program.iter_mut().for_each(|program| program.is_quarantined = true);
    }

    #[test]
    fn a_consequence_of_a_reported_problem_is_not_reported_again() {
        let mut job = good();
        job.state = JobState::Stopped { exit: Some(78) };
        let found = findings(&job, true, None);
        assert!(found.iter().all(|finding| matches!(finding.verdict, Ok | Skip)), "{found:?}");
        owned(&mut job, 501, 0o644);
        let found = findings(&job, false, None);
        assert_eq!(found.iter().filter(|finding| finding.verdict == Fail).count(), 1, "{found:?}");
    }
}
