//! Fixes that several checks give.

use std::path::PathBuf;

/// Where settings are changed.
#[derive(Debug, Clone)]
pub(super) struct FixHints {
    /// The configuration's file.
    pub(super) file: PathBuf,
    /// Whether the unit is what runs.
    pub(super) managed_by_unit: bool,
}

impl FixHints {
    /// To give a setting this value.
    pub(super) fn setting(&self, name: &str, value: &str) -> String {
        self.edit(&format!("write `{name}: {value}` into"))
    }

    /// To do this to the configuration's file: `take listen out of`.
    pub(super) fn edit(&self, what: &str) -> String {
        let then =
            if self.managed_by_unit { "`sudo systemctl restart ada2-sidecar`" } else { "start it again" };
        format!("{what} {}, then {then}", self.file.display())
    }
}

/// To give a unit a setting of the section `[Service]`.
pub(super) fn drop_in_fix(unit: &str, line: &str) -> String {
    format!("sudo systemctl edit {unit}, under [Service] {line}, then sudo systemctl restart {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_names_the_file_and_what_comes_after() {
        let fixes = |by_unit| FixHints { file: "/etc/c.yaml".into(), managed_by_unit: by_unit };
        assert_eq!(
            fixes(true).setting("gpu_id", "GPU-1"),
            "write `gpu_id: GPU-1` into /etc/c.yaml, then `sudo systemctl restart ada2-sidecar`"
        );
        assert!(fixes(false).edit("take listen out of").ends_with("out of /etc/c.yaml, then start it again"));
    }
}
