//! Prints a line for each step, like `doctor`. A lost terminal stops nothing.

use std::fmt::Display;

use service::doctor::{DoctorReport, Finding};

/// Why a command stops, and what the operator does about it.
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
    pub(crate) fn from_cause(step: &'static str, what: &str, cause: impl Display) -> Self {
        Self::new(step, format!("{what}: {cause}"), "fix that, then `sudo ada2-sidecar move-in` again")
    }

    pub(crate) fn interrupted() -> Self {
        Self::new(
            "stopped",
            "interrupted, by you or by the end of your session",
            "`sudo ada2-sidecar move-in` starts again",
        )
    }
}

#[derive(Debug)]
pub(crate) struct StepReporter(DoctorReport);

impl StepReporter {
    pub(crate) fn new() -> Self {
        Self(DoctorReport::new(false))
    }

    pub(crate) fn ok(&mut self, step: &'static str, message: &str) {
        self.add(Finding::ok(step, message));
    }

    pub(crate) fn warn(&mut self, step: &'static str, message: &str, fix: &str) {
        self.add(Finding::warn(step, message, fix));
    }

    pub(crate) fn fail(&mut self, error: &MoveError) {
        self.add(Finding::fail(error.step, &error.message, &error.fix));
    }

    fn add(&mut self, finding: Finding) {
        let _ = self.0.add(finding);
    }
}
