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
    let notes = load_with(&["--env-file", &file, "--gateway-port", "1"], &env).unwrap().notes;
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
