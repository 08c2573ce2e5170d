mod secrets;
mod warnings;

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::{cli, store::disk::tests::temporary};

const EXISTING: &str = include_str!("../../tests/fixtures/existing.env");

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn load_with(flags: &[&str], environment: &[(&str, &str)]) -> Result<LoadedConfig, Vec<String>> {
    let matches = cli::command().get_matches_from([&["gateway"], flags].concat());
    let environment = |name: &str| {
        environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    };
    load(&matches, &environment).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// An env file with this text, in its own directory.
fn env_file(text: &str) -> String {
    let path = temporary("env").join(".env");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// With the aliases from the fixtures.
fn existing() -> Result<LoadedConfig, Vec<String>> {
    let aliases = fixture("model_aliases.json");
    load_with(&["--env-file", &fixture("existing.env"), "--model-aliases-path", &aliases], &[])
}

#[test]
fn the_existing_files_are_read_as_they_are() {
    let loaded = existing().unwrap();
    let config = &loaded.config;
    assert_eq!(config.listen, ("0.0.0.0".to_owned(), 8800));
    let names: Vec<_> = config.access.tokens.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["token", "alice", "token2"]);
    assert!(config.access.tokens[0].secret.matches("fixture-ab$cd"));
    assert_eq!(config.max_request_bytes, 16 << 20);
    assert_eq!(config.images.model.as_deref(), Some("sd-xl-base-1.0"));
    assert_eq!(config.images.max_pixels, 4_194_304, "a misspelled key changes nothing");
    let days = Duration::from_hours(90 * 24);
    assert_eq!(config.retention, Retention { max_age: Some(days), max_bytes: None });
    assert_eq!(config.public_base_url.as_deref(), Some("https://ai2.local:8800"));
    assert_eq!(config.access.ui_ranges.len(), 2);
    assert!(config.access.api_ranges.is_empty());
    assert!(matches!(config.tls, Tls::LocalCa));
    let heavy = config.backends.find("gpu_heavy").unwrap();
    assert_eq!(heavy.base_url.as_str(), "http://ada2.local:7860/");
    assert_eq!((heavy.liveness.path(), heavy.readiness.path()), ("/healthz", "/readyz"));
    assert!(heavy.bearer.as_ref().is_some_and(|token| token.matches("not-a-real-token")));
    assert_eq!(config.backends.classes().len(), 2);
    let coder = &config.routing.aliases["coder"];
    assert_eq!((coder.backend.as_str(), coder.model.contains("Coder-7B")), ("local_mlx", true));
    assert_eq!((config.routing.aliases.len(), &config.routing.default), (3, &None));
}

#[test]
fn foreign_names_share_one_warning_and_each_misspelling_has_its_own() {
    let warnings = existing().unwrap().warnings;
    let (env, yaml) = (fixture("existing.env"), fixture("backends_config.yaml"));
    assert_eq!(
        warnings[0],
        format!("{env}: IMAGES_MAX_PIXLES: is not a setting; did you mean IMAGES_MAX_PIXELS?")
    );
    assert!(
        warnings[1].starts_with(&format!("{env}: ignored 100 variables that are not gateway settings: ")),
        "{}",
        warnings[1]
    );
    assert!(warnings[1].contains("OLLAMA_HOST") && !warnings[1].contains("ADA2_HOST"), "{}", warnings[1]);
    assert!(!warnings[1].contains("not-a-real"), "names, never values: {}", warnings[1]);
    assert_eq!(warnings[2], "backend gpu_fast is off: its base_url is empty");
    assert_eq!(
        warnings[3],
        format!(
            "{yaml}: legacy_mapping.ollama: \"gpu_fast\" is not a configured class; requests for \"ollama\" are refused"
        )
    );
    assert!(
        warnings[4].starts_with(&format!("{yaml}: ignored unknown keys and capabilities: ")),
        "{}",
        warnings[4]
    );
    for foreign in
        ["defaults", "routing", "version", "backends.heartmula", "capability tts", "capability music"]
    {
        assert!(warnings[4].contains(foreign), "{foreign} in {}", warnings[4]);
    }
    let aliases = fixture("model_aliases.json");
    assert_eq!(
        warnings[5],
        format!("{aliases}: llama: \"ollama\" is not a configured class; requests for it are refused")
    );
    let (owners, aliases) = (&warnings[6], &warnings[7]);
    assert!(
        aliases.contains("MODEL_ALIASES_PATH: \"/var/lib/gateway/app/model_aliases.json\" has no effect")
    );
    assert!(owners.starts_with("GATEWAY_OWNER_TOKENS is not set and there are several tokens: "), "{owners}");
    assert_eq!(warnings.len(), 8);
}

#[test]
fn the_effective_configuration_shows_no_secret() {
    let effective = existing().unwrap().effective;
    for secret in ["fixture-ab", "0123456789abcdef", "plain-token", "not-a-real-token"] {
        assert!(!effective.contains(secret), "{secret}");
    }
    assert!(effective.contains("GATEWAY_BEARER_TOKEN: \"[redacted]\""), "{effective}");
    assert!(effective.contains("    base_url: http://ada2.local:7860/"), "{effective}");
    assert!(!format!("{:?}", existing().unwrap().config).contains("plain-token"));
    assert!(EXISTING.contains("plain-token"), "the fixture contains it");
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let file = env_file("GATEWAY_BEARER_TOKEN=t\nGATEWAY_PORT=1\nIMAGES_MAX_PIXELS=\n");
    let port = |flags: &[&str], environment: &[(&str, &str)]| {
        load_with(&[&["--env-file", &file], flags].concat(), environment).unwrap().config.listen.1
    };
    assert_eq!(port(&["--gateway-port", "3"], &[("GATEWAY_PORT", "2")]), 3);
    assert_eq!(port(&[], &[("GATEWAY_PORT", "2")]), 2);
    assert_eq!(port(&[], &[]), 1);
    assert_eq!(port(&[], &[("GATEWAY_PORT", "")]), 1, "a blank value counts as unset");
    let config = load_with(&["--env-file", &file], &[]).unwrap().config;
    assert_eq!(config.images.max_pixels, 4_194_304);
}

#[test]
fn all_problems_are_reported_at_once() {
    let file = env_file(
        "GATEWAY_BEARER_TOKENS=a,,b\nGATEWAY_PORT=many\nIP_ALLOWLIST=10.0.0.0/99\nIMAGES_BACKEND=dall-e\n\
         IMAGES_BACKEND_CLASS=nobody\nPUBLIC_BASE_URL=https://me:hush@x\nGATEWAY_METRICS_LISTEN=8801\nGATEWAY_TLS_CERT_PATH=/nowhere/c.pem\n\
         GATEWAY_HOST='open\n",
    );
    let problems =
        load_with(&["--env-file", &file, "--health-check-failure-threshold", "0"], &[]).unwrap_err();
    for key in [
        "GATEWAY_BEARER_TOKENS",
        "GATEWAY_PORT",
        "IP_ALLOWLIST",
        "IMAGES_BACKEND",
        "IMAGES_BACKEND_CLASS",
        "PUBLIC_BASE_URL",
        "GATEWAY_METRICS_LISTEN",
        "GATEWAY_TLS_KEY_PATH",
        "GATEWAY_HOST",
        "HEALTH_CHECK_FAILURE_THRESHOLD",
    ] {
        let count = problems.iter().filter(|problem| problem.contains(&format!(" {key}: expected"))).count();
        assert_eq!(count, 1, "{key} in {problems:#?}");
    }
    assert_eq!(problems.len(), 10, "{problems:#?}");
    assert!(
        problems.iter().any(|problem| problem.starts_with(&format!("{file}:9: GATEWAY_HOST: "))),
        "{problems:#?}"
    );
    assert!(!problems.concat().contains("hush"));
}

#[test]
fn a_host_or_origin_that_could_never_match_is_a_problem_with_a_suggestion() {
    let lines = "GATEWAY_BEARER_TOKEN=t\nGATEWAY_ALLOWED_HOSTS=*.fritz.box\nGATEWAY_ALLOWED_ORIGINS=https://*.example,ui.example";
    let env = env_file(lines);
    let problems = load_with(&["--env-file", &env], &[]).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(
        problems[0].starts_with(&format!("{env}: GATEWAY_ALLOWED_HOSTS: expected .fritz.box")),
        "{problems:?}"
    );
    assert!(problems[1].contains("GATEWAY_ALLOWED_ORIGINS: expected full origins"), "{problems:?}");
    assert!(problems[2].contains("https://ui.example, with the scheme"), "{problems:?}");
}

#[test]
fn a_token_is_required_unless_only_loopback_can_connect() {
    let none = env_file("");
    let refused = |flags: &[&str]| load_with(&[&["--env-file", &none], flags].concat(), &[]).is_err();
    assert!(refused(&[]));
    assert!(!refused(&["--gateway-auth", "off"]));
    assert!(!refused(&["--gateway-auth", "off", "--gateway-host", "::1"]));
    assert!(refused(&["--gateway-auth", "off", "--gateway-host", "0.0.0.0"]));
}

#[test]
fn a_blank_token_is_an_error_in_every_source() {
    for (text, environment) in [
        ("GATEWAY_BEARER_TOKEN=", &[][..]),
        ("GATEWAY_BEARER_TOKEN=' '", &[]),
        ("GATEWAY_BEARER_TOKENS=", &[("GATEWAY_BEARER_TOKEN", "good")]),
        ("GATEWAY_BEARER_TOKEN=", &[("GATEWAY_BEARER_TOKEN", "good")]),
        ("GATEWAY_BEARER_TOKEN=good", &[("GATEWAY_BEARER_TOKEN", "")]),
        ("GATEWAY_BEARER_TOKEN=good", &[("GATEWAY_BEARER_TOKENS", "a, ,b")]),
    ] {
        let file = env_file(text);
        let problems = load_with(&["--env-file", &file], environment).unwrap_err();
        assert!(problems.concat().contains("found an empty value"), "{text} {problems:?}");
    }
}

#[test]
fn a_configured_file_must_exist() {
    let nowhere = PathBuf::from("/nowhere/at/all");
    let nowhere = nowhere.to_str().unwrap();
    let token = [("GATEWAY_BEARER_TOKEN", "t")];
    assert!(load_with(&["--env-file", nowhere], &token).unwrap_err()[0].contains(nowhere));
    let none = env_file("");
    assert!(
        load_with(&["--env-file", &none, "--backends", nowhere], &token).unwrap_err()[0].contains(nowhere)
    );
    let loaded = load_with(&["--env-file", &none], &token).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert_eq!(loaded.config.backends.classes(), ["local_mlx", "gpu_heavy"], "the built-in ones");
}

#[test]
fn aliases_are_merged_from_both_sources_and_the_setting_wins() {
    let path = temporary("aliases").join("aliases.json");
    std::fs::write(
        &path,
        r#"{"a": {"backend": "mlx", "model": "x"}, "b": {"backend": "local_mlx", "model": "y"}}"#,
    )
    .unwrap();
    let path = path.display().to_string();
    let file = env_file(
        "GATEWAY_BEARER_TOKEN=t\nMODEL_ALIASES_JSON={\"a\": {\"backend\": \"local_mlx\", \"model\": \"z\"}}\n\
         DEFAULT_BACKEND=mlx\n",
    );
    let routing =
        load_with(&["--env-file", &file, "--model-aliases-path", &path], &[]).unwrap().config.routing;
    let models: Vec<_> =
        routing.aliases.iter().map(|(name, alias)| (name.as_str(), alias.model.as_str())).collect();
    assert_eq!(models, [("a", "z"), ("b", "y")]);
    assert_eq!(routing.default.as_deref(), Some("local_mlx"), "the class of a legacy name");
}

#[test]
fn routing_problems_name_source_and_key() {
    let problems = |aliases: &str, flags: &[&str]| {
        let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
        let flags = [&["--env-file", &file, "--model-aliases-json", aliases][..], flags].concat();
        load_with(&flags, &[]).unwrap_err()
    };
    for (aliases, problem) in [
        ("[]", "(all of it): expected a JSON object such as"),
        ("{", "(all of it): expected a JSON object such as"),
        (r#"{"a": "qwen"}"#, r#"a: expected {"backend": "…", "model": "…"}"#),
        (r#"{"a": {"backend": "local_mlx"}}"#, "a.model: expected the model's name"),
        (r#"{"a": {"backend": "local_mlx", "model": " "}}"#, "a.model: expected the model's name"),
        (r#"{"a": {"model": "m"}}"#, "a.backend: expected the class or legacy name"),
        (
            r#"{"a": {"backend": "nobody", "model": "m"}}"#,
            "a.backend: expected a backend with chat or embeddings (configured: local_mlx)",
        ),
        (r#"{"a": {"backend": "gpu_heavy", "model": "m"}}"#, "a.backend: expected a backend with chat"),
    ] {
        let found = problems(aliases, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("MODEL_ALIASES_JSON") && found[0].contains(problem), "{found:?}");
    }
    let found = problems("{}", &["--default-backend", "nobody", "--model-aliases-path", "/nowhere/a.json"]);
    assert!(found[0].contains("MODEL_ALIASES_PATH") && found[0].contains("/nowhere/a.json"), "{found:?}");
    assert!(found[1].contains("DEFAULT_BACKEND: expected a backend with chat"), "{found:?}");
    assert_eq!(found.len(), 2);
    let loaded =
        load_with(&["--env-file", &env_file("GATEWAY_BEARER_TOKEN=t\n"), "--default-backend", "ollama"], &[])
            .unwrap();
    assert!(
        loaded.warnings[0].contains("the first backend with the capability is used"),
        "{:?}",
        loaded.warnings
    );
    assert_eq!(loaded.config.routing.default, None);
}

#[test]
fn the_legacy_upstream_is_an_origin_and_not_the_gateway_itself() {
    let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
    let with = |extra: &[(&str, &str)]| load_with(&["--env-file", &file], extra);
    let legacy =
        with(&[("GATEWAY_LEGACY_UPSTREAM", "http://127.0.0.1:8802")]).unwrap().config.legacy.unwrap();
    assert_eq!(legacy.origin.as_str(), "http://127.0.0.1:8802/");
    assert!(legacy.bearer.is_none() && with(&[]).unwrap().config.legacy.is_none());
    for (setting, message) in [
        (("GATEWAY_LEGACY_UPSTREAM", "http://127.0.0.1:8800"), "this is the gateway itself"),
        (("GATEWAY_LEGACY_UPSTREAM", "http://old:1/path"), "without a path"),
        (("GATEWAY_LEGACY_UPSTREAM", "http://me:hush@old:1"), "expected http://host:port"),
        (("GATEWAY_LEGACY_BEARER_TOKEN", " "), "an empty one"),
    ] {
        let problems = with(&[setting]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(message), "{problems:?}");
    }
}

#[test]
fn a_token_in_a_setting_and_in_its_file_is_an_error() {
    let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
    let tokens = temporary("tokens").join("tokens");
    std::fs::write(&tokens, "alice=0123456789abcdef\n").unwrap();
    let path = tokens.display().to_string();
    let read = |name: &str| load_with(&["--env-file", &file], &[(name, &path)]);
    let loaded = read("GATEWAY_BEARER_TOKENS_FILE").unwrap();
    assert_eq!(loaded.config.access.tokens.len(), 2);
    assert!(!loaded.effective.contains("0123456789abcdef"), "{}", loaded.effective);
    let problems = read("GATEWAY_BEARER_TOKEN_FILE").unwrap_err();
    assert!(problems[0].contains("found both"), "{problems:?}");
}

#[test]
fn retention_is_unlimited_by_default() {
    let none = env_file("GATEWAY_BEARER_TOKEN=t");
    let retention = |flags: &[&str]| {
        load_with(&[&["--env-file", &none], flags].concat(), &[]).map(|loaded| loaded.config.retention)
    };
    let (age, bytes) = ("--ui-image-store-max-age-days", "--ui-image-store-max-bytes");
    for flags in [&[][..], &[age, "0", bytes, "0"]] {
        assert_eq!(retention(flags), Ok(Retention::default()), "{flags:?}");
    }
    let half_a_day = Duration::from_hours(12);
    let both = Retention { max_age: Some(half_a_day), max_bytes: Some(20 << 30) };
    assert_eq!(retention(&[age, "0.5", bytes, "20GiB"]), Ok(both));
    for flags in [[age, "never"], [age, "-1"], [age, "NaN"], [bytes, "lots"]] {
        assert!(retention(&flags).unwrap_err()[0].contains("no limit"), "{flags:?}");
    }
}
