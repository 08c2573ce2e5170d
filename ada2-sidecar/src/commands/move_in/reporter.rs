//! What is printed: a line for each step, in the form of `doctor`'s. Whoever reads may be gone (a lost connection): that
//! stops nothing.

use service::doctor::{DoctorReport, Finding};

/// Foreign text is cut here.
const MAX_CHARS: usize = 600;

/// Why a command does not go on, and the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MoveError {
    pub(crate) step: &'static str,
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl MoveError {
    pub(crate) fn new(step: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { step, message: message.into(), fix: fix.into() }
    }

    /// A command or a file of this host failed.
    pub(crate) fn from_cause(step: &'static str, what: &str, why: impl std::fmt::Display) -> Self {
        Self::new(step, format!("{what}: {why}"), "fix that, then `sudo ada2-sidecar move-in` again")
    }
}

/// The lines.
#[derive(Debug)]
pub(crate) struct StepReporter(DoctorReport);

impl StepReporter {
    pub(crate) fn new() -> Self {
        Self(DoctorReport::new(false))
    }

    pub(crate) fn ok(&mut self, step: &'static str, message: &str) {
        self.add(Finding::ok(step, sanitize(message)));
    }

    pub(crate) fn warn(&mut self, step: &'static str, message: &str, fix: &str) {
        self.add(Finding::warn(step, sanitize(message), sanitize(fix)));
    }

    pub(crate) fn fail(&mut self, error: &MoveError) {
        self.add(Finding::fail(error.step, sanitize(&error.message), sanitize(&error.fix)));
    }

    fn add(&mut self, finding: Finding) {
        let _ = self.0.add(finding);
    }
}

/// One line without control characters, cut.
pub(crate) fn sanitize(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim().chars().take(MAX_CHARS) {
        match c {
            '\n' => line.push_str(" | "),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    if text.trim().chars().nth(MAX_CHARS).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_line_and_ends() {
        assert_eq!(sanitize(" a\u{1b}[2Jb\nc\n"), "a\\u{1b}[2Jb | c");
        assert_eq!(sanitize(&"x".repeat(700)).chars().count(), MAX_CHARS + 1);
    }
}
