//! Checks that warn instead of gating.

use super::*;

#[test]
fn warn_only_takes_checks_and_suggests_the_nearest_for_an_unknown_one() {
    for (flags, env, file) in [
        (&["--warn-only", "row_remap, disk"][..], &[][..], None),
        (&[], &[("ADA2_WARN_ONLY", "row_remap,disk,")], None),
        (&[], &[], Some("warn_only: [row_remap, disk]")),
        (&[], &[], Some("warn_only: row_remap, disk")),
    ] {
        let config = read_with(flags, env, file).unwrap().config;
        assert_eq!(config.warn_only, ["row_remap", "disk"], "{flags:?} {env:?} {file:?}");
        assert!(config.warnings.is_empty());
    }
    assert!(read_with(&[], &[], None).unwrap().config.warn_only.is_empty());
    let lines = problems(&["--warn-only", "row_remp,nvml,draining,disk"], &[], None);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines[0]
            .starts_with("--warn-only: warn_only: unknown check \"row_remp\"; did you mean \"row_remap\"?"),
        "{lines:#?}"
    );
    assert!(
        lines[1].contains("nvml always gates") && lines[2].contains("draining always gates"),
        "{lines:#?}"
    );
    for name in ["engine_reachable", "snapshot_fresh"] {
        assert!(problems(&["--warn-only", name], &[], None)[0].contains("always gates"));
    }
}

#[test]
fn deprecated_settings_of_single_checks_warn_and_name_warn_only() {
    for (key, value) in [
        ("ecc_mode", "on"),
        ("ecc_errors", "not_ready"),
        ("row_remap_pending", "not_ready"),
        ("row_remap_failure", "degraded"),
        ("max_swap_used", "50"),
        ("max_engine_memory", "48GiB"),
    ] {
        let loaded = read_with(&[], &[], Some(&format!("{key}: {value}"))).unwrap();
        let warnings = &loaded.config.warnings;
        assert_eq!(warnings.len(), 1, "{key}");
        assert!(
            warnings[0].contains(&format!("config.yaml: {key}: read for this version only"))
                && warnings[0].contains("warn_only: "),
            "{warnings:?}"
        );
    }
    let config = read_with(&["--ecc-mode", "on"], &[], None).unwrap().config;
    assert_eq!(
        config.warnings,
        [
            "--ecc-mode: ecc_mode: read for this version only; remove it: ecc warns of a mode that changes at the next reboot; \
             warn_only: ecc keeps it from gating"
        ]
    );
    let config = read_with(&["--row-remap-failure", "degraded"], &[], None).unwrap().config;
    assert!(!config.row_remap_failure_gates, "it still counts");
    assert_eq!(
        config.warnings,
        [
            "--row-remap-failure: row_remap_failure: read for this version only; set warn_only: row_remap in its place"
        ]
    );
}

#[test]
fn a_deprecated_setting_beside_its_warn_only_entry_is_an_error() {
    for (key, value, check) in [
        ("ecc_mode", "on", "ecc"),
        ("ecc_errors", "not_ready", "ecc"),
        ("row_remap_pending", "not_ready", "row_remap"),
        ("row_remap_failure", "degraded", "row_remap"),
        ("max_swap_used", "50", "host_memory"),
        ("max_engine_memory", "48GiB", "host_memory"),
    ] {
        let variable = [("ADA2_WARN_ONLY", "disk,ecc,row_remap,host_memory")];
        let lines = problems(&[], &variable, Some(&format!("{key}: {value}")));
        let expected = format!(
            "config.yaml: {key}: expected nothing beside warn_only: {check} (environment ADA2_WARN_ONLY); remove {key}"
        );
        assert!(lines.len() == 1 && lines[0].ends_with(&expected), "{lines:?}");
    }
    let config =
        read_with(&["--row-remap-failure", "degraded", "--warn-only", "disk"], &[], None).unwrap().config;
    assert_eq!(
        config.warnings,
        [
            "--row-remap-failure: row_remap_failure: read for this version only; set warn_only: row_remap,disk in its place"
        ]
    );
}
