//! What is told of a configuration beside its problems, and what is not told since it only follows from one.

use super::*;

const TOKEN: (&str, &str) = ("GATEWAY_BEARER_TOKEN", "t");

#[test]
fn what_the_env_file_says_in_vain_is_told_by_name_and_no_secret_with_it() {
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
    let notes = load_with(&["--env-file", &file, "--gateway-port", "1"], &env).unwrap().warnings;
    let place = "remove it there (the service's plist or unit, or the shell), or here";
    assert_eq!(
        notes,
        [
            format!(
                "{file}: GATEWAY_HOST: \"127.0.0.1\" has no effect: environment GATEWAY_HOST says \"0.0.0.0\"; {place}"
            ),
            format!("{file}: GATEWAY_PORT: \"8800\" has no effect: --gateway-port says \"1\""),
            format!(
                "{file}: GATEWAY_BEARER_TOKEN: this has no effect: environment GATEWAY_BEARER_TOKEN says otherwise; {place}"
            ),
            format!("{file}: ADA2_TOKEN: this has no effect: the environment has another value of it"),
        ]
    );
}

#[test]
fn a_misspelt_variable_of_the_environment_is_told_and_what_the_backends_use_is_not() {
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
    let meant = [
        "environment: GATEWAY_OWNER_TOKEN: is not a setting; did you mean GATEWAY_OWNER_TOKENS?",
        "environment: GATEWAY_PROT: is not a setting; did you mean GATEWAY_PORT?",
        "environment: MAX_REQEST_BYTES: is not a setting; did you mean MAX_REQUEST_BYTES?",
    ];
    let notes = read(&[]).unwrap().warnings;
    assert_eq!(notes[..3], meant);
    assert_eq!(notes[3..], ["environment: unknown settings, ignored: GATEWAY_WHAT"]);
    let problems = read(&["--gateway-port", "many"]).unwrap_err();
    assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>()[1..], meant);
}

#[test]
fn a_place_that_nobody_could_write_is_told_beside_the_problems_and_alone_to_who_checks() {
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
fn without_a_backend_for_pictures_it_starts_and_says_so_unless_one_was_named() {
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
        let told: Vec<_> =
            loaded.warnings.iter().filter(|note| note.contains("no image backend: ")).collect();
        assert_eq!(told.len(), 1, "{backends:?}: {:#?}", loaded.warnings);
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
        let stand_in = loaded.config.backends.mock.as_ref().unwrap();
        assert_eq!(
            (&stand_in.class, stand_in.limits[&Capability::Images]),
            (&loaded.config.images.class, limit)
        );
        assert!(!loaded.warnings.concat().contains("no backend makes pictures"));
    }
    let on = off.replace("${NO_GPU}", "http://h");
    assert!(read(&[&on], &[mock]).unwrap().config.backends.mock.is_none(), "its own limit counts");
}

#[test]
fn a_misspelling_is_told_beside_the_problems() {
    let file = env_file("GATEWAY_BEARER_TOKNE=t\nGATEWAY_PORT=many\nOLLAMA_HOST=x\n");
    let yaml = "backends: {gpu_heavy: {base_url: 'http://a', supported_capabilities: [images], health: {livness: /}}}";
    std::fs::write(PathBuf::from(&file).with_file_name(BACKENDS_FILE), yaml).unwrap();
    let problems = load_with(&["--env-file", &file], &[]).unwrap_err();
    for told in [
        "GATEWAY_BEARER_TOKNE: is not a setting; did you mean GATEWAY_BEARER_TOKEN?",
        "GATEWAY_PORT: expected a port number",
        "GATEWAY_BEARER_TOKEN: expected a token here",
        "backends.gpu_heavy.health.livness: did you mean \"liveness\"?",
    ] {
        assert_eq!(
            problems.iter().filter(|problem| problem.contains(told)).count(),
            1,
            "{told} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

#[test]
fn nothing_is_told_that_only_follows_from_a_file_that_cannot_be_read() {
    // A folder cannot be read as a file; nor can, by root, one that is closed.
    let folder = temporary("unread").display().to_string();
    for (flags, env, lines) in [
        (vec!["--env-file", folder.as_str()], vec![], 1),
        (
            vec!["--env-file", folder.as_str(), "--gateway-port", "many"],
            vec![("GATEWAY_AUTH", "off"), ("GATEWAY_HOST", "::")],
            3,
        ),
        (vec!["--env-file", folder.as_str()], vec![("IMAGES_BACKEND_CLASS", "other")], 1),
    ] {
        let problems = load_with(&flags, &env).unwrap_err();
        assert_eq!(problems.len(), lines, "{problems:#?}");
        assert!(
            problems[0].starts_with(&format!("--env-file: {folder}: expected a file: ")),
            "{problems:#?}"
        );
    }
    for (text, told) in [
        (
            format!("GATEWAY_BEARER_TOKEN_FILE={folder}\n"),
            "GATEWAY_BEARER_TOKEN_FILE: expected a readable file",
        ),
        (
            format!("GATEWAY_BEARER_TOKENS_FILE={folder}\n"),
            "GATEWAY_BEARER_TOKENS_FILE: expected a readable file",
        ),
        ("GATEWAY_BEARER_TOKEN='t\n".to_owned(), "GATEWAY_BEARER_TOKEN: expected a closing quote"),
        ("GATEWAY_BEARER_TOKENS='t\n".to_owned(), "GATEWAY_BEARER_TOKENS: expected a closing quote"),
        (format!("GATEWAY_BEARER_TOKEN=t\nBACKENDS_CONFIG={folder}\n"), "expected a file"),
        (
            format!("GATEWAY_BEARER_TOKEN=t\nMODEL_ALIASES_PATH={folder}\n"),
            "MODEL_ALIASES_PATH: expected a file",
        ),
    ] {
        let problems = load_with(&["--env-file", &env_file(&text)], &[]).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(told), "{told} in {problems:#?}");
    }
    let file = env_file("GATEWAY_BEARER_TOKEN=t\n");
    std::fs::create_dir(PathBuf::from(&file).with_file_name(BACKENDS_FILE)).unwrap();
    let problems = load_with(&["--env-file", &file], &[]).unwrap_err();
    assert!(
        problems.len() == 1 && problems[0].contains("backends_config.yaml: expected a file"),
        "{problems:#?}"
    );
}
