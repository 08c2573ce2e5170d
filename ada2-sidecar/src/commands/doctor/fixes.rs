//! Fixes that several checks give.

use std::path::PathBuf;

/// Where settings are changed.
#[derive(Debug, Clone)]
pub(super) struct FixHints {
    /// The configuration file.
    pub(super) file: PathBuf,
    /// Whether systemd runs the service.
    pub(super) managed_by_unit: bool,
}

impl FixHints {
    /// Sets a setting.
    pub(super) fn setting(&self, name: &str, value: &str) -> String {
        self.edit(&format!("write `{name}: {value}` into"))
    }

    /// Changes the configuration file: `remove listen from`.
    pub(super) fn edit(&self, what: &str) -> String {
        format!("{what} {}, then {}", self.file.display(), self.restart())
    }

    pub(super) fn restart(&self) -> &'static str {
        if self.managed_by_unit { "`sudo systemctl restart ada2-sidecar`" } else { "start the service again" }
    }
}

/// Sets a setting of a unit's `[Service]` section.
pub(super) fn drop_in_fix(unit: &str, line: &str) -> String {
    format!("sudo systemctl edit {unit}, under [Service] {line}, then sudo systemctl restart {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_names_the_file_and_the_next_step() {
        let fixes = |managed_by_unit| FixHints { file: "/etc/c.yaml".into(), managed_by_unit };
        assert_eq!(
            fixes(true).setting("gpu_id", "GPU-1"),
            "write `gpu_id: GPU-1` into /etc/c.yaml, then `sudo systemctl restart ada2-sidecar`"
        );
        assert!(
            fixes(false)
                .edit("remove listen from")
                .ends_with("from /etc/c.yaml, then start the service again")
        );
    }
}
