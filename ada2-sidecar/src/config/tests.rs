//! The layers, the problems, and the sample file.

mod checks;
mod file;
mod models_and_presets;

use std::time::Duration;

use super::*;

fn read_with(flags: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<LoadedConfig, Vec<Problem>> {
    let directory = std::env::temp_dir().join(format!("ada2-config-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&directory).unwrap();
    let state = directory.join("state").display().to_string();
    let mut arguments = vec!["ada2-sidecar".to_owned()];
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    if !flags.contains(&"--state-dir") {
        arguments.extend(["--state-dir".to_owned(), state]);
    }
    if let Some(text) = file {
        let path = directory.join("config.yaml");
        std::fs::write(&path, text).unwrap();
        arguments.extend(["--config".to_owned(), path.display().to_string()]);
    }
    let matches = crate::cli::command().get_matches_from(arguments);
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let loaded = load(&matches, &env);
    std::fs::remove_dir_all(directory).unwrap();
    loaded
}

fn problems(flags: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Vec<String> {
    read_with(flags, env, file).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_misspelt_variable_is_reported_and_foreign_ones_are_not() {
    let names = ["ADA2_MAX_INFLIHT", "ADA2_CONFIG", "ADA2_MAX_N", "ADA2_HOST", "HOME"].map(str::to_owned);
    let read = |flags: &[&str]| {
        let flags = crate::cli::command()
            .get_matches_from([&["ada2-sidecar", "--engine", "builtin"], flags].concat());
        load_with_variables(&flags, &|_| None, &names)
    };
    let warning = "environment: ADA2_MAX_INFLIHT: is not a setting; did you mean ADA2_MAX_INFLIGHT?";
    let warnings = read(&[]).unwrap().config.warnings;
    assert_eq!(warnings, [warning, "environment: unknown settings, ignored: ADA2_HOST"]);
    let problems = read(&["--max-n", "many"]).unwrap_err();
    assert_eq!((problems.len(), problems[1].to_string().as_str()), (2, warning));
}

#[test]
fn no_setting_is_required() {
    let config = read_with(&[], &[], None).unwrap().config;
    assert_eq!(config.listen, ["0.0.0.0:7860".parse().unwrap()]);
    assert_eq!(config.engine_url.as_ref().unwrap().as_str(), "http://127.0.0.1:9090/");
    assert_eq!((config.engine_unit.as_str(), config.gpu_required), ("invokeai.service", true));
    assert_eq!((config.min_free_vram, config.max_inflight, config.max_engine_queue), (8 << 30, 4, 4));
    assert_eq!(config.request_timeout, Duration::from_secs(270));
}

#[test]
fn flag_over_environment_over_file() {
    let file = Some("max_inflight: 3\nmax_n: 2\ngpu: optional\nallow_from: [10.0.0.0/8, 192.168.1.7]");
    let config =
        read_with(&["--max-inflight", "1"], &[("ADA2_MAX_INFLIGHT", "2"), ("ADA2_MAX_N", "5")], file)
            .unwrap()
            .config;
    assert_eq!((config.max_inflight, config.max_n, config.gpu_required), (1, 5, false));
    assert_eq!(config.allow_from.len(), 2);
}

#[test]
fn every_problem_is_reported_at_once() {
    let lines = problems(
        &["--listen", "nowhere", "--engine", "sdwebui"],
        &[
            ("ADA2_TOKEN", " "),
            ("ADA2_MAX_N", "99"),
            ("ADA2_ENGINE_URL", "https://user:pw@host/path"),
            ("ADA2_LOG", "a=b=c=d"),
        ],
        None,
    );
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("environment ADA2_TOKEN: token: expected a token that is not empty")));
    assert!(
        lines.iter().any(|line| line
            == "environment ADA2_MAX_N: max_n: expected a whole number from 1 to 10, found \"99\"")
    );
    assert!(lines.iter().any(|line| line.starts_with("--engine: engine: expected invokeai, comfyui")));
}

#[test]
fn a_host_or_origin_that_could_never_match_is_named_with_what_to_write() {
    let env = [("ADA2_ALLOWED_HOSTS", "*.fritz.box"), ("ADA2_ALLOWED_ORIGINS", "https://*.example")];
    let lines = problems(&[], &env, None);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("environment ADA2_ALLOWED_HOSTS: allowed_hosts: expected .fritz.box"),
        "{lines:?}"
    );
    assert!(lines[1].contains("allowed_origins: expected full origins"), "{lines:?}");
    let file = "allowed_hosts: [ada2.example.org:7860, 'ada2.example.org.', fine.example.org]\n\
                allowed_origins: [ui.example.org, 'https://ui.example.org/', 'https://ui.example.org', 'null']";
    let lines = problems(&[], &[], Some(file));
    assert_eq!(lines.len(), 5, "each entry has a line of its own: {lines:?}");
    let file = "allowed_hosts: ['me@ada2', '*', 'ada2:1']\n\
                allowed_origins: ['*', 'https://u@a.b', 'https://a.b/x', 'https://c.d', 'https://u:s3c,r3t,@e.f', 'g']";
    let lines = problems(&[], &[], Some(file));
    assert_eq!(lines.len(), 8, "user info hides no other entry's fault: {lines:?}");
    let output = lines.concat();
    let is_redacted = |place: &str| output.contains(&format!("or password, found \"{place}\""));
    assert!(
        is_redacted("[redacted]@ada2")
            && is_redacted("https://[redacted]@a.b")
            && is_redacted("https://[redacted]@e.f"),
        "{output}"
    );
    assert!(!["s3c", "r3t", "u@", "me@"].iter().any(|secret| output.contains(secret)), "{output}");
    let env = [
        ("ADA2_ALLOWED_HOSTS", ".fritz.box, ADA2.example.org"),
        ("ADA2_ALLOWED_ORIGINS", "https://UI.example:443"),
    ];
    let guard = read_with(&[], &env, None).unwrap().config.guard;
    assert_eq!((guard.allowed_hosts.len(), guard.allowed_origins.len()), (2, 1));
}

#[test]
fn a_broken_file_is_named_with_the_nearest_key() {
    let lines = problems(&[], &[], Some("max_inflght: 3"));
    assert!(
        lines[0].ends_with("config.yaml: max_inflght: unknown key; did you mean \"max_inflight\"?"),
        "{lines:?}"
    );
    assert!(problems(&["--config", "/does/not/exist.yaml"], &[], None)[0].contains("cannot be read"));
}

#[test]
fn an_empty_token_in_any_source_is_an_error_never_no_token() {
    for (flags, env, file) in [
        (&["--token", ""][..], &[][..], None),
        (&[], &[("ADA2_TOKEN", "")], None),
        (&[], &[], Some("token: ''")),
    ] {
        assert!(problems(flags, env, file)[0].contains("token"), "{flags:?} {env:?} {file:?}");
    }
}

#[test]
fn the_effective_configuration_hides_the_token() {
    let effective = read_with(&[], &[("ADA2_TOKEN", "hush-hush")], None).unwrap().effective;
    assert!(
        effective.contains("token: \"[redacted]\"  # environment ADA2_TOKEN") && !effective.contains("hush"),
        "{effective}"
    );
}

#[test]
fn the_sample_file_is_valid_and_shows_the_defaults() {
    let sample = include_str!("../../config.example.yaml");
    let given = read_with(&[], &[], Some(sample)).unwrap().effective;
    let bare = read_with(&[], &[], None).unwrap().effective;
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("state_dir"));
        lines.filter_map(|line| line.split("  # ").next().map(str::to_owned)).collect()
    };
    assert_eq!(values(&given), values(&bare), "the sample shows each default as it is");
}

/// A secret that is planted in every place that can hold one.
const CANARY: &str = "c4nary-S3cret";

#[test]
fn no_output_contains_a_secret() {
    let temp_dir = std::env::temp_dir().join(format!("ada2-canary-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&temp_dir).unwrap();
    let file = |name: &str, content: &str| {
        std::fs::write(temp_dir.join(name), content).unwrap();
        temp_dir.join(name).display().to_string()
    };
    let odd = file("odd", &format!("{CANARY}\u{fc}"));
    let template = file("template.json", CANARY);
    let url = format!("http://me:{CANARY}@127.0.0.1:9090");
    for (name, env, text) in [
        ("a sound token", vec![("ADA2_TOKEN", CANARY.to_owned())], String::new()),
        ("a token outside ASCII", vec![("ADA2_TOKEN", format!("{CANARY}\u{fc}"))], String::new()),
        ("a token in the file", vec![], format!("token: \"{CANARY}\\u00fc\"")),
        ("a token file", vec![("ADA2_TOKEN_FILE", odd.clone())], String::new()),
        ("a token as its file", vec![("ADA2_TOKEN_FILE", CANARY.to_owned())], String::new()),
        ("both", vec![("ADA2_TOKEN_FILE", odd), ("ADA2_TOKEN", CANARY.to_owned())], String::new()),
        ("the engine's address", vec![("ADA2_ENGINE_URL", url.clone())], String::new()),
        ("without scheme", vec![("ADA2_ENGINE_URL", format!("me:{CANARY}@127.0.0.1:9090"))], String::new()),
        ("with a query", vec![], format!("engine_url: 'http://127.0.0.1:9090/?key={CANARY}'")),
        ("an origin", vec![], format!("allowed_origins: ['{url}/']")),
        (
            "an address in another setting",
            vec![("ADA2_LISTEN", url.clone()), ("ADA2_GPU_ID", url)],
            String::new(),
        ),
        ("a quote that never ends", vec![], format!("token: \"{CANARY}")),
        ("badly indented", vec![], format!("max_n: 1\n   token: {CANARY}")),
        ("given twice", vec![], format!("token: {CANARY}\ntoken: {CANARY}")),
        ("no mapping", vec![], CANARY.to_owned()),
        ("a map for a value", vec![], format!("token: {{{CANARY}: {CANARY}}}")),
        ("a template that is none", vec![], format!("presets: {{p: {{template: '{template}'}}}}")),
    ] {
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let output = match read_with(&[], &env, Some(&text)) {
            Ok(LoadedConfig { config, effective }) => format!("{effective}{config:?}"),
            Err(problems) => format!("{problems:?}"),
        };
        assert!(!output.contains(CANARY), "{name}: {output}");
    }
    std::fs::remove_dir_all(temp_dir).unwrap();
}

#[test]
fn an_invalid_token_is_rejected_from_every_source() {
    let file = std::env::temp_dir().join(format!("ada2-token-{}", uuid::Uuid::new_v4()));
    std::fs::write(&file, "one\ntwo").unwrap();
    let path = file.display().to_string();
    for (flags, env, text) in [
        (vec![], vec![("ADA2_TOKEN", "schl\u{fc}ssel")], ""),
        (vec![], vec![("ADA2_TOKEN", "a\u{7f}")], ""),
        (vec![], vec![("ADA2_TOKEN_FILE", path.as_str())], ""),
        (vec![], vec![], "token: \"b\\tad\""),
        (vec!["--token", "good"], vec![("ADA2_TOKEN", "")], ""),
        (vec!["--token", "good"], vec![], "token: schl\u{fc}ssel"),
    ] {
        let output = problems(&flags, &env, Some(text));
        assert!(
            output.len() == 1 && output[0].contains("ASCII") || output[0].contains("empty"),
            "{env:?} {text} {output:?}"
        );
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_systemd_credential_is_named_as_the_tokens_source_and_warns_if_it_overrides_the_file() {
    let temp_dir = std::env::temp_dir().join(format!("ada2-credential-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&temp_dir).unwrap();
    let credential = temp_dir.join("token").display().to_string();
    let directory = temp_dir.display().to_string();
    let env = |more: &[(&'static str, &'static str)]| {
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        more.chain([("CREDENTIALS_DIRECTORY", directory.clone())]).collect::<Vec<_>>()
    };
    let read = |more: &[(&'static str, &'static str)], file: &str| {
        let env = env(more);
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        read_with(&[], &env, Some(file))
    };
    assert!(read(&[], "").unwrap().config.token.is_none(), "there is no such credential");
    std::fs::write(temp_dir.join("token"), "hush-hush-hush\n").unwrap();
    let loaded = read(&[], "").unwrap();
    assert!(loaded.config.token.is_some() && loaded.config.warnings.is_empty(), "{loaded:?}");
    for line in [
        "token: \"[redacted]\"  # systemd credential token\n".to_owned(),
        format!("token_file: {credential}  # systemd credential token\n"),
    ] {
        assert!(loaded.effective.contains(&line), "{line}: {}", loaded.effective);
    }
    for (more, file, other) in [
        (&[("ADA2_TOKEN", "forgotten")][..], "", "environment ADA2_TOKEN"),
        (&[], "token: forgotten", "config.yaml"),
    ] {
        let problems: Vec<_> = read(more, file).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let expected = "systemd credential token: token_file: expected either this or token, found both";
        assert!(problems[0].starts_with(expected) && problems[0].contains(other), "{problems:?}");
    }
    let warnings = read(&[], "token_file: /etc/forgotten").unwrap().config.warnings;
    assert!(
        warnings.len() == 1
            && warnings[0].contains("config.yaml: token_file: no effect: systemd credential token"),
        "{warnings:?}"
    );
    // The same file by its path, and a path that is named for this very process.
    assert_eq!(read(&[], &format!("token_file: {credential}")).unwrap().config.warnings, [""; 0]);
    let problems = read(&[("ADA2_TOKEN_FILE", "/etc/own-choice")], "").unwrap_err();
    assert!(problems[0].to_string().starts_with("environment ADA2_TOKEN_FILE: token_file"), "{problems:?}");
    std::fs::write(temp_dir.join("token"), "schl\u{fc}ssel").unwrap();
    let problems = read(&[], "").unwrap_err();
    assert!(problems[0].to_string().starts_with("systemd credential token: token: "), "{problems:?}");
    std::fs::remove_dir_all(temp_dir).unwrap();
}
