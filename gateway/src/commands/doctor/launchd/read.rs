//! The output of `launchctl`, and property lists. Pure.

use serde_json::Value;

use super::super::tools::CommandOutput;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobState {
    Unknown,
    NotLoaded,
    Running,
    Stopped {
        /// The last exit code, if it ever ran.
        exit: Option<i32>,
    },
}

impl JobState {
    /// From `launchctl print`.
    pub(super) fn read(ran: &CommandOutput) -> Self {
        let text = match ran {
            CommandOutput::Done { code: Some(0), text } => text,
            // 113 is launchd's "could not find the service".
            CommandOutput::Done { code: Some(113), .. } => return Self::NotLoaded,
            CommandOutput::Done { text, .. } if text.contains("Could not find service") => {
                return Self::NotLoaded;
            }
            _ => return Self::Unknown,
        };
        if value(text, "pid").is_some() {
            return Self::Running;
        }
        // `78: EX_CONFIG`, or `(never exited)`.
        let exit = value(text, "last exit code").and_then(|code| code.split(':').next()?.trim().parse().ok());
        Self::Stopped { exit }
    }
}

/// The job's own values are indented by one tab; deeper ones belong to its endpoints and the like.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix('\t')?.strip_prefix(name)?.strip_prefix(" = "))
}

/// The job's process, from `launchctl print`.
pub(super) fn process(ran: &CommandOutput) -> Option<u32> {
    value(ran.text()?, "pid")?.trim().parse().ok()
}

/// Whether `launchctl print-disabled system` has the job as disabled: `"com.ai.gateway" => disabled`, earlier `=> true`.
pub(super) fn is_disabled(text: &str, label: &str) -> bool {
    let quoted = format!("\"{label}\" => ");
    text.lines().any(|line| matches!(line.trim().strip_prefix(&quoted), Some("disabled" | "true")))
}

/// The parts of a property list that matter here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PlistContent {
    pub(super) program: Option<String>,
    pub(super) user: Option<String>,
    /// Seconds until launchd kills a job that it has asked to exit.
    pub(super) exit_timeout: Option<u64>,
    /// The limit of open files.
    pub(super) files: Option<u64>,
    /// Names of the job's environment variables.
    pub(super) variables: Vec<String>,
}

impl PlistContent {
    /// From JSON.
    pub(super) fn read(json: &str) -> Option<Self> {
        let Ok(Value::Object(job)) = serde_json::from_str(json) else { return None };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let first = job.get("ProgramArguments").and_then(|arguments| arguments.get(0));
        let variables = job.get("EnvironmentVariables").and_then(Value::as_object);
        Some(Self {
            program: text(job.get("Program")).or_else(|| text(first)),
            user: text(job.get("UserName")),
            exit_timeout: job.get("ExitTimeOut").and_then(Value::as_u64),
            files: job.get("HardResourceLimits").and_then(|limits| limits["NumberOfFiles"].as_u64()),
            variables: variables.into_iter().flat_map(|map| map.keys().cloned()).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> CommandOutput {
        CommandOutput::Done { code: Some(0), text: text.to_owned() }
    }

    #[test]
    fn the_state_of_a_job_is_read_from_its_own_lines() {
        let failed = |code, text: &str| CommandOutput::Done { code: Some(code), text: text.to_owned() };
        for (ran, state) in [
            (
                printed(include_str!("../../../../tests/fixtures/macos/launchctl-running.txt")),
                JobState::Running,
            ),
            (
                printed(include_str!("../../../../tests/fixtures/macos/launchctl-config.txt")),
                JobState::Stopped { exit: Some(78) },
            ),
            (printed("x = {\n\tlast exit code = (never exited)\n}"), JobState::Stopped { exit: None }),
            (printed("x = {\n\tlast exit code = -9\n}"), JobState::Stopped { exit: Some(-9) }),
            (
                failed(113, "Bad request.\nCould not find service \"x\" in domain for system\n"),
                JobState::NotLoaded,
            ),
            (failed(64, "Could not find service"), JobState::NotLoaded),
            (failed(1, "Operation not permitted"), JobState::Unknown),
            (CommandOutput::NotFound, JobState::Unknown),
            (CommandOutput::Failed, JobState::Unknown),
        ] {
            assert_eq!(JobState::read(&ran), state, "{ran:?}");
        }
    }

    #[test]
    fn the_process_of_a_job_is_read_from_its_own_lines() {
        let running = include_str!("../../../../tests/fixtures/macos/launchctl-running.txt");
        assert!(process(&printed(running)).is_some());
        assert_eq!(process(&printed("x = {\n\tpid = 71\n\t\tpid = 5\n}")), Some(71));
        assert_eq!(process(&printed("x = {\n\t\tpid = 5\n}")), None);
    }

    #[test]
    fn a_disabled_job_is_distinguished_from_its_neighbours() {
        let text = include_str!("../../../../tests/fixtures/macos/launchctl-disabled.txt");
        assert!(is_disabled(text, "com.ai.gateway") && !is_disabled(text, "com.ai.gateway.other"));
        assert!(!is_disabled(text, "com.openssh.sshd") && !is_disabled("", "com.ai.gateway"));
        assert!(is_disabled("\t\"com.ai.gateway\" => true\n", "com.ai.gateway"));
    }

    #[test]
    fn a_property_list_is_read_as_json() {
        let json = r#"{"Label":"com.ai.gateway","ProgramArguments":["/usr/local/bin/gateway","serve"],"UserName":"_gateway",
            "ExitTimeOut":45,"HardResourceLimits":{"NumberOfFiles":8192},"EnvironmentVariables":{"GATEWAY_PORT":"1"}}"#;
        let read = PlistContent::read(json).unwrap();
        assert_eq!(
            (read.program.as_deref(), read.user.as_deref()),
            (Some("/usr/local/bin/gateway"), Some("_gateway"))
        );
        assert_eq!(
            (read.exit_timeout, read.files, read.variables),
            (Some(45), Some(8192), vec!["GATEWAY_PORT".to_owned()])
        );
        assert_eq!(PlistContent::read("{}"), Some(PlistContent::default()));
        assert_eq!((PlistContent::read("[]"), PlistContent::read("what")), (None, None));
    }
}
