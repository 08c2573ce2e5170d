use std::{path::Path, time::Duration};

use super::*;
use crate::secret::redact_url_text;

const KEYS: &[SettingSpec] = &[
    SettingSpec::new("max_inflight", "T_MAX", "limit").with_default("4"),
    SettingSpec::new("token", "T_TOKEN", "token").secret(),
    SettingSpec::new("listen", "T_LISTEN", "address").with_default("0.0.0.0:1"),
];

fn gather(flags: &[&str], env: &[(&str, &str)], file: &str) -> Settings {
    let command = clap::Command::new("t").args(KEYS.iter().map(SettingSpec::arg));
    let flags = command.get_matches_from([&["t"], flags].concat());
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let file = YamlFile::parse(Path::new("f.yaml"), file, KEYS).unwrap();
    Settings::resolve(KEYS, &flags, &env, &|key| file.get(key))
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let count =
        |settings: &mut Settings| settings.required("max_inflight", "a number", |text| text.parse().ok());
    assert_eq!(count(&mut gather(&["--max-inflight", "1"], &[("T_MAX", "2")], "max_inflight: 3")), Some(1));
    assert_eq!(count(&mut gather(&[], &[("T_MAX", "2")], "max_inflight: 3")), Some(2));
    assert_eq!(count(&mut gather(&[], &[], "max_inflight: 3")), Some(3));
    assert_eq!(count(&mut gather(&[], &[], "")), Some(4u32));
}

#[test]
fn every_problem_is_collected_without_secrets() {
    let mut settings = gather(&["--listen", "x"], &[("T_MAX", "many"), ("T_TOKEN", "hush")], "");
    let number = settings.required("max_inflight", "a number", |text| text.parse::<u32>().ok());
    assert_eq!(number, None);
    let _ = settings.required::<()>("listen", "an address", |_| None);
    let _ = settings.optional::<()>("token", "16 letters", |_| None);
    let lines: Vec<_> = settings.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "environment T_MAX: max_inflight: expected a number, found \"many\"",
            "--listen: listen: expected an address, found \"x\"",
            "environment T_TOKEN: token: expected 16 letters, found something else",
        ]
    );
    assert!(!settings.effective().contains("hush"));
}

#[test]
fn no_problem_and_no_printed_setting_shows_a_password() {
    const ADDRESS: &[SettingSpec] =
        &[SettingSpec::new("url", "T_URL", "").url(), SettingSpec::new("dir", "T_DIR", "")];
    for given in
        ["http://me:hush@x", "me:hush@x:1", "http://me:hu sh@x", "http://x/?k=hush", "http://x/#hush"]
    {
        let flags = clap::Command::new("t").get_matches_from(["t"]);
        let env = |_: &str| Some(given.to_owned());
        let mut settings = Settings::resolve(ADDRESS, &flags, &env, &|_| None);
        let _ = settings.optional::<()>("url", "an address", |_| None);
        settings.add_problem("dir", format!("expected another place than\n{:?}", redact_url_text(given)));
        let printed = settings.effective().lines().next().unwrap().to_owned();
        for line in settings.problems.iter().map(ToString::to_string).chain([printed]) {
            assert!(!line.contains("sh") && !line.contains('\n'), "{line}");
        }
    }
}

#[test]
fn a_syntax_error_is_located_and_never_quoted() {
    for (text, place) in [
        ("listen: x\ntoken: \"hush", "line 2"),
        ("token: hush\n  listen: [", "line"),
        ("token: hush\ntoken: hush", "given twice"),
        ("token: {hush: [hush}", "line 1"),
        ("token: hush\n---\ntoken: hush", "more than one document"),
        ("token: *hush", "line 1"),
        ("token: !hush hush\n\tlisten: x", "line"),
    ] {
        let problems = YamlFile::parse(Path::new("f.yaml"), text, KEYS).unwrap_err();
        let messages = problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(messages.len(), 1, "{text:?}: {messages:?}");
        assert!(messages[0].contains(place) && !messages[0].contains("hush"), "{text:?}: {messages:?}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let problems = YamlFile::parse(Path::new("f.yaml"), "max_inflght: 3\nzebra: 1", KEYS).unwrap_err();
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["f.yaml: max_inflght: unknown key; did you mean \"max_inflight\"?", "f.yaml: zebra: unknown key"]
    );
    assert!(YamlFile::parse(Path::new("f"), "- a\n- b", KEYS).is_err());
    assert!(YamlFile::parse(Path::new("f"), "listen: {a: 1}", KEYS).is_err());
    assert!(YamlFile::parse(Path::new("f"), "listen: [\nx", KEYS).is_err());
}

#[test]
fn lists_and_scalars_are_one_text() {
    let settings = gather(&[], &[], "listen: ['127.0.0.1:1', '[::1]:2']\nmax_inflight: 7");
    assert_eq!(settings.raw("listen"), Some("127.0.0.1:1,[::1]:2"));
    assert_eq!(settings.raw("max_inflight"), Some("7"));
}

#[test]
fn units() {
    assert_eq!(bytes("8GiB"), Some(8 << 30));
    assert_eq!(bytes("512 MiB"), Some(512 << 20));
    assert_eq!(bytes("0"), Some(0));
    assert_eq!(bytes("1.5GiB").or(bytes("-1")).or(bytes("GiB")), None);
    assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(duration("270"), Some(Duration::from_secs(270)));
    assert_eq!(duration("0").or(duration("-1s")).or(duration("1 day")).or(duration("NaN")), None);
}

#[test]
fn a_token_in_the_file_keeps_its_source_text() {
    let settings = gather(&[], &[], "token: 0012345678901234\nlisten: [1e3, 0x10, yes, 1.50]");
    assert_eq!(settings.raw("token"), Some("0012345678901234"));
    assert_eq!(settings.raw("listen"), Some("1e3,0x10,yes,1.50"));
}

#[test]
fn overridden_file_settings_are_reported_without_secrets() {
    let file = "max_inflight: 3\ntoken: hush\nlisten: x";
    let overridden_by = |flags: &[&str], env: &[(&str, &str)]| gather(flags, env, file).overridden();
    assert_eq!(
        overridden_by(&["--listen", "y"], &[("T_MAX", "2"), ("T_TOKEN", "hush-hush")]),
        [
            "f.yaml: max_inflight: \"3\" has no effect: environment T_MAX says \"2\"; remove it there (the service's plist \
             or unit, or the shell), or here",
            "f.yaml: token: this has no effect: environment T_TOKEN says otherwise; remove it there (the service's plist \
             or unit, or the shell), or here",
            "f.yaml: listen: \"x\" has no effect: --listen says \"y\"",
        ]
    );
    assert_eq!(overridden_by(&[], &[("T_MAX", " 3")]), [""; 0], "the same is no contradiction");
    assert_eq!(
        overridden_by(&["--max-inflight", "3"], &[("T_MAX", "2")]),
        [""; 0],
        "nor is what is not in the file"
    );
}
