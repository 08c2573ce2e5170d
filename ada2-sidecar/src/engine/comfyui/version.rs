//! What a version of ComfyUI can do (from its upstream history).

/// Clients can choose the ids of prompts: without that, a lost response leaves a job that we cannot identify.
const CLIENT_IDS: [u64; 3] = [0, 3, 45];
/// `/interrupt` honours its `prompt_id`. Before, it stops whatever runs.
const INTERRUPT_BY_ID: [u64; 3] = [0, 3, 57];
/// Tested at both ends and in between: the oldest, and the first that is too new.
const TESTED: std::ops::Range<[u64; 3]> = [0, 3, 64]..[0, 34, 0];

/// A version as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) text: String,
    /// None if it does not consist of numbers.
    numbers: Option<[u64; 3]>,
}

/// Proof that this server interrupts only the named prompt. Only a version provides it.
#[derive(Debug, Clone, Copy)]
pub(super) struct InterruptsById(());

impl Version {
    pub(super) fn read(text: &str) -> Self {
        let part = |part: &str| {
            let end = part.find(|character: char| !character.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse::<u64>().ok()
        };
        let mut parts = text.trim_start_matches('v').split('.').map(part);
        let mut next = || parts.next().unwrap_or(Some(0));
        let numbers = next().zip(next()).zip(next()).map(|((major, minor), patch)| [major, minor, patch]);
        // It appears in terminals and in systemd.
        let text = text.chars().filter(|character| !character.is_control()).take(64).collect();
        Self { text, numbers }
    }

    /// Whether it is unsupported; an unreadable version gets the benefit of the doubt.
    pub(super) fn is_too_old(&self) -> bool {
        self.numbers.is_some_and(|numbers| numbers < CLIENT_IDS)
    }

    /// Whether a running job can be interrupted alone; no benefit of the doubt here.
    pub(super) fn interrupts_by_id(&self) -> Option<InterruptsById> {
        self.numbers.filter(|numbers| *numbers >= INTERRUPT_BY_ID).map(|_| InterruptsById(()))
    }

    /// What an operator should know about this version.
    pub(super) fn warning(&self) -> Option<String> {
        let text = &self.text;
        if self.interrupts_by_id().is_none() {
            return Some(format!(
                "ComfyUI {text} cannot interrupt a single job, so a cancelled job keeps running and keeps its slot: update \
                 to 0.3.57 or later"
            ));
        }
        let is_tested = self.numbers.is_some_and(|numbers| TESTED.contains(&numbers));
        (!is_tested).then(|| format!("ComfyUI {text} is untested here; tested are 0.3.64 to 0.33"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_honour_the_id_can_interrupt() {
        for (text, too_old, interrupts) in [
            ("0.33.0", false, true),
            ("0.3.64", false, true),
            ("0.3.57", false, true),
            ("v1.0", false, true),
            ("0.4.0rc1", false, true),
            ("0.3.56", false, false),
            ("0.3.50", false, false),
            ("0.3.44", true, false),
            ("0.2.9", true, false),
            ("unknown", false, false),
            ("", false, false),
        ] {
            let version = Version::read(text);
            assert_eq!(version.is_too_old(), too_old, "{text}");
            assert_eq!(version.interrupts_by_id().is_some(), interrupts, "{text}");
        }
    }

    #[test]
    fn an_untested_version_is_a_warning() {
        for tested in ["0.33.0", "0.33.7", "0.20.0", "0.12.1", "0.3.64"] {
            assert_eq!(Version::read(tested).warning(), None, "{tested}");
        }
        let warning = Version::read("0.37.0").warning().unwrap();
        assert_eq!(warning, "ComfyUI 0.37.0 is untested here; tested are 0.3.64 to 0.33");
        for untested in ["0.34.0", "0.3.63", "1.33.0"] {
            assert!(Version::read(untested).warning().is_some(), "{untested}");
        }
        assert!(Version::read("0.3.50").warning().unwrap().contains("update to 0.3.57"));
    }
}
