//! Warnings about a configuration, and consequences of a problem that are not reported.

use super::*;

const TOKEN: (&str, &str) = ("GATEWAY_BEARER_TOKEN", "t");

#[test]
fn overridden_values_are_warned_of_and_secrets_not_shown() {
    let file = env_file(
        "GATEWAY_BEARER_TOKEN=hush-hush\nGATEWAY_HOST=127.0.0.1\nGATEWAY_PORT=8800\nADA2=a\nADA2_TOKEN=hush\nIMAGES_MAX_PIXELS=\n",
    );
    let yaml = "backends: {gpu_heavy: {base_url: 'http://${ADA2}', supported_capabilities: [images], \
                auth: {bearer_env: ADA2_TOKEN}}}";
    std::fs::write(PathBuf::from(&file).with_file_name(BACKENDS_FILE), yaml).unwrap();
    let env = [
        TOKEN,
        ("GATEWAY_HOST", "0.0.0.0"),
        ("ADA2", "a"),
        ("ADA2_TOKEN", "other"),
        ("IMAGES_MAX_PIXELS", "7"),
    ];
    let warnings = load_with(&["--env-file", &file, "--gateway-port", "1"], &env).unwrap().warnings;
    let place = "remove it there (the service's plist or unit, or the shell), or here";
    assert_eq!(
        warnings,
        [
            format!(
                "{file}: GATEWAY_HOST: \"127.0.0.1\" has no effect: environment GATEWAY_HOST says \"0.0.0.0\"; {place}"
            ),
            format!("{file}: GATEWAY_PORT: \"8800\" has no effect: --gateway-port says \"1\""),
            format!(
                "{file}: GATEWAY_BEARER_TOKEN: this has no effect: environment GATEWAY_BEARER_TOKEN says otherwise; {place}"
            ),
            format!("{file}: ADA2_TOKEN: this has no effect: the environment has another value"),
        ]
    );
}

#[test]
fn a_misspelled_environment_variable_is_reported_unless_the_backends_file_uses_it() {
    let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
    let yaml =
        "backends: {gpu_heavy: {base_url: 'http://${GATEWAY_GPU_HOST}', supported_capabilities: [images]}}";
    std::fs::write(PathBuf::from(&file).with_file_name(BACKENDS_FILE), yaml).unwrap();
    let names = [
        "GATEWAY_PROT",
        "MAX_REQEST_BYTES",
        "GATEWAY_OWNER_TOKEN",
        "GATEWAY_GPU_HOST",
        "GATEWAY_WHAT",
        "HOME",
    ]
    .map(str::to_owned);
    let environment = |name: &str| (name == "GATEWAY_GPU_HOST").then(|| "ada2".to_owned());
    let read = |flags: &[&str]| {
        let matches = cli::command().get_matches_from([&["gateway", "--env-file", &file], flags].concat());
        load_with_variables(&matches, &environment, &names)
    };
    let suggestions = [
        "environment: GATEWAY_OWNER_TOKEN: is not a setting; did you mean GATEWAY_OWNER_TOKENS?",
        "environment: GATEWAY_PROT: is not a setting; did you mean GATEWAY_PORT?",
        "environment: MAX_REQEST_BYTES: is not a setting; did you mean MAX_REQUEST_BYTES?",
    ];
    let warnings = read(&[]).unwrap().warnings;
    assert_eq!(warnings[..3], suggestions);
    assert_eq!(warnings[3..], ["environment: unknown settings, ignored: GATEWAY_WHAT"]);
    let problems = read(&["--gateway-port", "many"]).unwrap_err();
    assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>()[1..], suggestions);
}

#[test]
fn unwritable_paths_are_reported_apart_and_together_with_other_problems() {
    let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
    let flags = [
        "--env-file",
        &file,
        "--ui-image-dir",
        &file,
        "--gateway-data-dir",
        &file,
        "--gateway-log-file",
        "/",
    ];
    let loaded = load_with(&flags, &[]).unwrap();
    let keys: Vec<_> = loaded.paths.problems.iter().map(|problem| problem.source.as_str()).collect();
    assert_eq!(keys, ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"]);
    let problems = load_with(&[&flags[..], &["--gateway-port", "many"]].concat(), &[]).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn a_missing_image_backend_is_a_warning_unless_its_class_was_set() {
    let chat = "mlx: {base_url: 'http://m', supported_capabilities: [chat]}";
    let off = "gpu_heavy: {base_url: '${NO_GPU}', supported_capabilities: [images], concurrency_limits: {images: 3}}";
    let named = ("IMAGES_BACKEND_CLASS", "gpu_heavy");
    let mock = ("IMAGES_BACKEND", "mock");
    let read = |backends: &[&str], env: &[(&str, &str)]| {
        let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
        let yaml = format!("backends: {{{}}}", backends.join(", "));
        std::fs::write(PathBuf::from(&file).with_file_name(BACKENDS_FILE), yaml).unwrap();
        load_with(&["--env-file", &file], env)
    };
    for (backends, env) in
        [(&[chat][..], &[][..]), (&[off], &[]), (&[off, chat], &[]), (&[off, chat], &[named])]
    {
        let loaded = read(backends, env).unwrap();
        let count = loaded.warnings.iter().filter(|warning| warning.contains("no image backend: ")).count();
        assert_eq!(count, 1, "{backends:?}: {:#?}", loaded.warnings);
        assert!(loaded.config.backends.mock.is_none());
    }
    for (backends, env) in [
        (&[chat][..], &[named][..]),
        (&[chat], &[("IMAGES_BACKEND_CLASS", "mlx")]),
        (&[off, chat], &[("IMAGES_BACKEND_CLASS", "gpu_heavvy")]),
        (&[chat], &[("IMAGES_HTTP_BASE_URL", "http://h")]),
    ] {
        let problems = read(backends, env).unwrap_err();
        assert!(
            problems.len() == 1 && problems[0].contains("IMAGES_BACKEND_CLASS: expected a configured"),
            "{problems:?}"
        );
    }
    for (backends, env, limit) in [
        (&[chat][..], &[mock][..], 2),
        (&[chat], &[mock, named], 2),
        (&[chat], &[mock, ("IMAGES_BACKEND_CLASS", "mlx")], 2),
        (&[off], &[mock], 3),
    ] {
        let loaded = read(backends, env).unwrap();
        let mock_backend = loaded.config.backends.mock.as_ref().unwrap();
        assert_eq!(
            (&mock_backend.class, mock_backend.limits[&Capability::Images]),
            (&loaded.config.images.class, limit)
        );
        assert!(!loaded.warnings.concat().contains("no image backend: "));
    }
    let on = off.replace("${NO_GPU}", "http://h");
    assert!(read(&[&on], &[mock]).unwrap().config.backends.mock.is_none(), "its own limit applies");
}

#[test]
fn a_misspelling_is_reported_with_the_problems() {
    let file = env_file("GATEWAY_BEARER_TOKNE=t\nGATEWAY_PORT=many\nOLLAMA_HOST=x\n");
    let yaml = "backends: {gpu_heavy: {base_url: 'http://a', supported_capabilities: [images], health: {livness: /}}}";
    std::fs::write(PathBuf::from(&file).with_file_name(BACKENDS_FILE), yaml).unwrap();
    let problems = load_with(&["--env-file", &file], &[]).unwrap_err();
    for message in [
        "GATEWAY_BEARER_TOKNE: is not a setting; did you mean GATEWAY_BEARER_TOKEN?",
        "GATEWAY_PORT: expected a port number",
        "GATEWAY_BEARER_TOKEN: expected a token here",
        "backends.gpu_heavy.health.livness: did you mean \"liveness\"?",
    ] {
        assert_eq!(
            problems.iter().filter(|problem| problem.contains(message)).count(),
            1,
            "{message} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn consequences_of_an_unreadable_file_are_not_reported() {
    // A directory cannot be read as a file, even by root.
    let directory = temporary("unread").display().to_string();
    for (flags, env, lines) in [
        (vec!["--env-file", directory.as_str()], vec![], 1),
        (
            vec!["--env-file", directory.as_str(), "--gateway-port", "many"],
            vec![("GATEWAY_AUTH", "off"), ("GATEWAY_HOST", "::")],
            3,
        ),
        (vec!["--env-file", directory.as_str()], vec![("IMAGES_BACKEND_CLASS", "other")], 1),
    ] {
        let problems = load_with(&flags, &env).unwrap_err();
        assert_eq!(problems.len(), lines, "{problems:#?}");
        assert!(
            problems[0].starts_with(&format!("--env-file: {directory}: expected a file: ")),
            "{problems:#?}"
        );
    }
    for (text, message) in [
        (
            format!("GATEWAY_BEARER_TOKEN_FILE={directory}\n"),
            "GATEWAY_BEARER_TOKEN_FILE: expected a readable file",
        ),
        (
            format!("GATEWAY_BEARER_TOKENS_FILE={directory}\n"),
            "GATEWAY_BEARER_TOKENS_FILE: expected a readable file",
        ),
        ("GATEWAY_BEARER_TOKEN='t\n".to_owned(), "GATEWAY_BEARER_TOKEN: expected a closing quote"),
        ("GATEWAY_BEARER_TOKENS='t\n".to_owned(), "GATEWAY_BEARER_TOKENS: expected a closing quote"),
        (format!("GATEWAY_BEARER_TOKEN=t\nBACKENDS_CONFIG={directory}\n"), "expected a file"),
        (
            format!("GATEWAY_BEARER_TOKEN=t\nMODEL_ALIASES_PATH={directory}\n"),
            "MODEL_ALIASES_PATH: expected a file",
        ),
    ] {
        let problems = load_with(&["--env-file", &env_file(&text)], &[]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(message), "{message} in {problems:#?}");
    }
    let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
    std::fs::create_dir(PathBuf::from(&file).with_file_name(BACKENDS_FILE)).unwrap();
    let problems = load_with(&["--env-file", &file], &[]).unwrap_err();
    assert!(
        problems.len() == 1 && problems[0].contains("backends_config.yaml: expected a file"),
        "{problems:#?}"
    );
}
