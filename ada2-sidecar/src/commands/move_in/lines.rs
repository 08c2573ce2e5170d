//! What is printed: a line for each step, in the form of `doctor`'s. Whoever reads may be gone (a lost connection): that
//! stops nothing.

use service::doctor::{Finding, Report};

/// Foreign text is cut here.
const LONGEST: usize = 600;

/// Why a command does not go on, and the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) step: &'static str,
    pub(crate) message: String,
    pub(crate) fix: String,
}

impl Stop {
    pub(crate) fn at(step: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { step, message: message.into(), fix: fix.into() }
    }

    /// A command or a file of this host failed.
    pub(crate) fn failed(step: &'static str, what: &str, why: impl std::fmt::Display) -> Self {
        Self::at(step, format!("{what}: {why}"), "fix that, then `sudo ada2-sidecar move-in` again")
    }
}

/// The lines.
#[derive(Debug)]
pub(crate) struct Lines(Report);

impl Lines {
    pub(crate) fn new() -> Self {
        Self(Report::new(false))
    }

    pub(crate) fn ok(&mut self, step: &'static str, message: &str) {
        self.add(Finding::ok(step, shown(message)));
    }

    pub(crate) fn warn(&mut self, step: &'static str, message: &str, fix: &str) {
        self.add(Finding::warn(step, shown(message), shown(fix)));
    }

    pub(crate) fn fail(&mut self, stop: &Stop) {
        self.add(Finding::fail(stop.step, shown(&stop.message), shown(&stop.fix)));
    }

    fn add(&mut self, finding: Finding) {
        let _ = self.0.add(finding);
    }
}

/// One line without control characters, cut.
pub(crate) fn shown(text: &str) -> String {
    let mut line = String::new();
    for letter in text.trim().chars().take(LONGEST) {
        match letter {
            '\n' => line.push_str(" | "),
            letter if letter.is_control() => line.extend(letter.escape_default()),
            letter => line.push(letter),
        }
    }
    if text.trim().chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_one_line_and_ends() {
        assert_eq!(shown(" a\u{1b}[2Jb\nc\n"), "a\\u{1b}[2Jb | c");
        assert_eq!(shown(&"x".repeat(700)).chars().count(), LONGEST + 1);
    }
}
