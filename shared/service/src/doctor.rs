//! The report of both programs' `doctor`: one line per finding, with its fix.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::text::{ellipsize, printable};

/// Characters of a message or a fix; foreign text in them may be long.
const MAX_CHARS: usize = 600;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works now; worth an operator's attention.
    Warn,
    /// Requests fail, or will after the next restart.
    Fail,
    /// Not checked, for example for lack of root.
    Skip,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name, for scripts: `engine_version`.
    pub name: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// What was observed.
    pub message: String,
    /// The command or step that fixes it; present for [`Verdict::Warn`] and [`Verdict::Fail`].
    pub fix: Option<String>,
}

/// Messages and fixes may contain foreign text: all constructors make it safe for a terminal.
impl Finding {
    /// As it should be.
    pub fn ok(name: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Ok, message.as_ref(), None)
    }

    /// Works now, but needs attention.
    pub fn warn(name: &'static str, message: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Warn, message.as_ref(), Some(fix.as_ref()))
    }

    /// Broken.
    pub fn fail(name: &'static str, message: impl AsRef<str>, fix: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Fail, message.as_ref(), Some(fix.as_ref()))
    }

    /// Not checked; `message` says why.
    pub fn skip(name: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(name, Verdict::Skip, message.as_ref(), None)
    }

    fn new(name: &'static str, verdict: Verdict, message: &str, fix: Option<&str>) -> Self {
        Self { name, verdict, message: sanitize(message), fix: fix.map(sanitize) }
    }

    fn line(&self) -> String {
        let label = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "skip",
        };
        let fix = self.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
        format!("{label:4}  {:17}  {}{fix}", self.name, self.message)
    }

    fn json(&self) -> Value {
        let status = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
        };
        let mut object = json!({"name": self.name, "status": status, "message": self.message});
        if let Some(fix) = &self.fix {
            object["fix"] = json!(fix);
        }
        object
    }
}

/// One printable line, cut.
fn sanitize(text: &str) -> String {
    printable(&ellipsize(text.trim(), MAX_CHARS).replace('\n', " | "))
}

/// Prints findings line by line as they are added, or all at once as JSON.
#[derive(Debug)]
pub struct DoctorReport {
    as_json: bool,
    findings: Vec<Finding>,
}

impl DoctorReport {
    /// An empty report.
    pub fn new(as_json: bool) -> Self {
        Self { as_json, findings: Vec::new() }
    }

    /// Adds a finding; prints its line unless as JSON.
    pub fn add(&mut self, finding: Finding) -> io::Result<()> {
        if !self.as_json {
            writeln!(io::stdout(), "{}", finding.line())?;
        }
        self.findings.push(finding);
        Ok(())
    }

    /// The findings so far.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether a finding of one of these names is not [`Verdict::Ok`].
    pub fn has_problem(&self, names: &[&str]) -> bool {
        let is_problem = |finding: &Finding| finding.verdict != Verdict::Ok && names.contains(&finding.name);
        self.findings.iter().any(is_problem)
    }

    /// Prints the summary, or the JSON; true if nothing failed.
    pub fn finish(self) -> io::Result<bool> {
        let count = |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warn));
        if self.as_json {
            let status = match (failed, warned) {
                (0, 0) => "ok",
                (0, _) => "warn",
                _ => "fail",
            };
            let checks: Vec<_> = self.findings.iter().map(Finding::json).collect();
            writeln!(io::stdout(), "{:#}", json!({"status": status, "checks": checks}))?;
        } else {
            let skipped = count(Verdict::Skip);
            writeln!(
                io::stdout(),
                "{} ok, {warned} warning{}, {failed} failed, {skipped} skipped",
                count(Verdict::Ok),
                if warned == 1 { "" } else { "s" }
            )?;
        }
        Ok(failed == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_name_and_the_fix() {
        let finding =
            Finding::fail("port", "0.0.0.0:7860 is held by nginx (pid 7)", "sudo ada2-sidecar move-in");
        assert_eq!(
            finding.line(),
            "FAIL  port               0.0.0.0:7860 is held by nginx (pid 7); fix: sudo ada2-sidecar move-in"
        );
        assert_eq!(
            finding.json(),
            json!({
                "name": "port", "status": "fail", "message": "0.0.0.0:7860 is held by nginx (pid 7)",
                "fix": "sudo ada2-sidecar move-in",
            })
        );
        assert_eq!(Finding::ok("card", "one").line(), "ok    card               one");
    }

    #[test]
    fn a_finding_that_is_not_ok_is_a_problem() {
        let mut report = DoctorReport::new(true);
        report.add(Finding::ok("card", "one")).unwrap();
        report.add(Finding::fail("driver", "gone", "sudo reboot")).unwrap();
        assert!(report.has_problem(&["driver"]) && !report.has_problem(&["card", "service"]));
    }

    #[test]
    fn external_text_is_one_line_and_truncated() {
        let finding = Finding::warn("card", " a\u{1b}[2Jb\nc\n", "\u{e4}".repeat(1000));
        assert_eq!(finding.message, "a\\u{1b}[2Jb | c");
        let fix = finding.fix.unwrap();
        assert_eq!((fix.chars().count(), fix.ends_with('\u{2026}')), (MAX_CHARS + 1, true));
    }
}
