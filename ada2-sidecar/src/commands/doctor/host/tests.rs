use service::doctor::Verdict;

use super::*;

fn space(available: u64, read_only: bool) -> DiskSpace {
    DiskSpace { mount: "/".into(), available: available * MIB, read_only }
}

#[test]
fn state_and_log_need_space() {
    let judge = |state: Option<DiskSpace>, log: Option<DiskSpace>| {
        evaluate_disk(state.as_ref(), log.as_ref()).verdict
    };
    assert_eq!(judge(Some(space(5000, false)), Some(space(300, false))), Verdict::Ok);
    assert_eq!(judge(Some(space(5000, false)), Some(space(100, false))), Verdict::Warn);
    assert_eq!(judge(Some(space(5000, true)), None), Verdict::Fail);
    assert_eq!(judge(None, None), Verdict::Skip);
    assert!(
        disk_space_at(Path::new("/var/lib/no/such/folder")).is_some(),
        "the nearest directory that exists counts"
    );
}

#[test]
fn the_journal_must_survive_a_reboot() {
    for (configured, dir_exists, verdict) in [
        ("[Journal]\n#Storage=auto\n", true, Verdict::Ok),
        ("[Journal]\n#Storage=auto\n", false, Verdict::Warn),
        ("[Journal]\nStorage=persistent\n", false, Verdict::Ok),
        ("[Journal]\nStorage=volatile\n", true, Verdict::Warn),
        (
            "[Journal]\nStorage=volatile\n# x\n[Journal]\nStorage=persistent\nSystemMaxUse=1G\n",
            true,
            Verdict::Ok,
        ),
        ("Storage=none", true, Verdict::Warn),
    ] {
        assert_eq!(evaluate_journal(configured, dir_exists).verdict, verdict, "{configured}");
    }
    assert!(evaluate_journal("SystemMaxUse=1G\n", true).message.contains("(1G)"));
}

#[test]
fn an_unsynchronised_clock_is_a_warning_and_an_unknown_one_is_skipped() {
    for (clock, verdict) in [
        ("NTPSynchronized=yes\nCanNTP=yes\nNTP=yes", Verdict::Ok),
        ("NTPSynchronized=yes\nCanNTP=no\nNTP=no", Verdict::Ok),
        ("NTPSynchronized=no\nCanNTP=yes\nNTP=no", Verdict::Warn),
        ("NTPSynchronized=no\nCanNTP=yes\nNTP=yes", Verdict::Skip),
        ("NTPSynchronized=no\nCanNTP=no\nNTP=no", Verdict::Skip),
    ] {
        assert_eq!(evaluate_clock(&SystemdUnit::parse("clock", clock)).verdict, verdict, "{clock}");
    }
}

#[test]
fn driver_upgrades_are_a_note() {
    let judge =
        |installed: &str, automatic: &str| evaluate_upgrades(installed, automatic).map(|found| found.message);
    let on = "APT::Periodic::Unattended-Upgrade \"1\";\n";
    assert_eq!(judge("", on), None);
    assert_eq!(judge("unknown not-installed nvidia-driver-590\n", on), None);
    let install = "install installed nvidia-driver-595\n";
    assert!(judge(install, on).unwrap().contains("sudo apt-mark hold nvidia-driver-595"));
    assert!(judge(install, "").unwrap().contains("only manually"));
    assert!(judge("hold installed nvidia-driver-595\n", on).unwrap().contains("is held"));
}

#[test]
fn an_interrupted_move_and_an_impossible_move_out_are_reported() {
    let judge = |record: &str, nginx: Option<&str>| {
        evaluate_move(record, || nginx.map(str::to_owned)).map(|found| (found.verdict, found.fix))
    };
    let out = Some((Verdict::Fail, Some("sudo ada2-sidecar move-out --yes".to_owned())));
    assert_eq!(judge(r#"{"phase": "moving_in"}"#, None), out);
    assert_eq!(judge(r#"{"phase": "moving_out"}"#, None), out);
    let (moved, without_site) = (
        r#"{"phase": "moved_in", "plan": {"sites": ["/etc/nginx/sites-enabled/a"]}}"#,
        r#"{"phase": "moved_in", "plan": {"sites": []}}"#,
    );
    assert_eq!(judge(moved, None), Some((Verdict::Ok, None)));
    assert_eq!(judge(moved, Some("nginx -t: no")), Some((Verdict::Warn, Some("sudo nginx -t".to_owned()))));
    assert_eq!(judge(without_site, Some("nginx -t: no")), Some((Verdict::Ok, None)), "nginx had no site");
    assert_eq!((judge("{", None), judge(r#"{"phase": "later"}"#, None)), (None, None));
}
