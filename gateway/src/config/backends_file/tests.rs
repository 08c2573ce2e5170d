use super::*;

fn read_text(text: &str) -> Result<BackendsFile, Vec<String>> {
    let variable = |name: &str| match name {
        "ADA2" => Some("ada2.local".to_owned()),
        "ADA2_TOKEN" => Some("hush".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    parse(Some((Path::new("b.yaml"), text)), None, &variable)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn the_built_in_backends_are_those_of_the_contract() {
    let built_in = parse(None, None, &|_| None).unwrap();
    assert_eq!(built_in.backends.classes(), ["local_mlx", "gpu_heavy"]);
    assert_eq!(built_in.warnings, Vec::<String>::new());
    let heavy = built_in.backends.find("gpu_heavy").unwrap();
    assert_eq!(heavy.limits, BTreeMap::from([(Capability::Images, 2)]));
    assert_eq!(heavy.readiness.as_str(), "http://ada2:7860/readyz");
    let mlx = built_in.backends.resolve("mlx").unwrap();
    assert_eq!(mlx.readiness.as_str(), "http://127.0.0.1:10240/health", "against the origin, not below /v1");
}

#[test]
fn missing_values_have_the_documented_defaults() {
    let read = read_text(
        "backends:\n  a: {base_url: 'http://${ADA2}:1', supported_capabilities: [images, music]}\n  \
         b: {base_url: '${NONE}', supported_capabilities: [chat]}\n  \
         c: {base_url: 'http://c', supported_capabilities: [tts]}\n\
         legacy_mapping: {old: b}\ntop: 1\nlegacy_maping: {}",
    )
    .unwrap();
    let a = read.backends.find("a").unwrap();
    assert_eq!(a.base_url.as_str(), "http://ada2.local:1/");
    assert_eq!(a.limits, BTreeMap::from([(Capability::Images, 1)]));
    assert_eq!((a.liveness.path(), a.readiness.path()), ("/healthz", "/readyz"));
    assert_eq!(read.disabled, ["b"]);
    assert_eq!(
        read.warnings,
        [
            "b.yaml: legacy_maping: did you mean \"legacy_mapping\"?",
            "b.yaml: legacy_mapping.old: \"b\" is not a configured class; requests for \"old\" are refused",
            "b.yaml: ignored unknown keys and capabilities: top, backends.a: capability music, backends.c: capability tts, \
             backends.c",
        ]
    );
}

#[test]
fn every_problem_is_named_and_no_address_with_a_password_repeated() {
    let problems = read_text(
        "backends:\n  a: {base_url: 'http://me:hush@x', supported_capabilities: [images]}\n  \
         b: {base_url: 'http://b', supported_capabilities: [chat], concurrency_limits: {chat: 0}}\n  \
         c: {base_url: 'http://c', supported_capabilities: [chat], health: {readiness: 'http://evil/'}}\n  \
         d: {base_url: 'http://d', supported_capabilities: [chat], auth: {bearer_env: NONE}}\n  \
         e: {base_url: 'http://e', supported_capabilities: [images], payload_policy: {images_format: gif}}\n  \
         f: {class: 'a b', base_url: 'http://f', supported_capabilities: [chat]}\n  \
         g: 7",
    )
    .unwrap_err();
    assert_eq!(problems.len(), 7, "{problems:#?}");
    for (problem, key) in problems.iter().zip([
        "backends.a.base_url",
        "backends.b.concurrency_limits.chat",
        "backends.c.health.readiness",
        "backends.d.auth.bearer_env",
        "backends.e.payload_policy.images_format",
        "backends.f.class",
        "backends.g",
    ]) {
        assert!(problem.starts_with(&format!("b.yaml: {key}: expected")), "{problem}");
        assert!(!problem.contains("hush"), "{problem}");
    }
    for broken in ["", "- a", "backends: [", "legacy_mapping: {}"] {
        assert!(read_text(broken).is_err(), "{broken:?}");
    }
}

#[test]
fn all_problems_of_all_backends_are_reported_at_once() {
    let problems_of = |text: &str| read_text(&format!("backends:\n{text}")).unwrap_err();
    let heavy = "  gpu_heavy: {base_url: 'http://h:${ADA2_PORT}', concurrency_limits: {images: x}, \
                 supported_capabilities: [images], auth: {bearer_env: NOPE}}\n";
    let strings = "  b: {base_url: nope, supported_capabilities: chat, concurrency_limits: {chat: no}}\n";
    let rest = "  c: {base_url: 'http://c', health: {liveness: nope, readiness: [1]}, payload_policy: {images_format: zip, \
                images_allow_base64: maybe}, supported_capabilities: [images, chat], concurrency_limits: {images: 0, chat: 0}}\n";
    let class =
        "  d: {class: 'a b', base_url: nope, supported_capabilities: [chat], health: 3, default_model: []}\n";
    let both = "  e: {class: gpu_heavy, base_url: 'http://e', supported_capabilities: [images], auth: {bearer_env: NOPE}}\n";
    for (text, keys) in [
        (
            heavy,
            &["gpu_heavy.concurrency_limits.images", "gpu_heavy.base_url", "gpu_heavy.auth.bearer_env"][..],
        ),
        (strings, &["b.supported_capabilities", "b.concurrency_limits.chat", "b.base_url"]),
        (
            rest,
            &[
                "c.concurrency_limits.images",
                "c.concurrency_limits.chat",
                "c.health.liveness",
                "c.health.readiness",
                "c.payload_policy.images_format",
                "c.payload_policy.images_allow_base64",
            ],
        ),
        (class, &["d.class", "d.base_url", "d.health", "d.default_model"]),
        (&format!("{heavy}{both}"), &["e.class", "e.auth.bearer_env"]),
    ] {
        let problems = problems_of(text);
        for key in keys {
            let prefix = format!("b.yaml: backends.{key}: expected");
            let count = problems.iter().filter(|problem| problem.starts_with(&prefix)).count();
            assert_eq!(count, 1, "{key} in {problems:#?}");
        }
    }
    assert_eq!(problems_of(heavy).len(), 3);
    assert_eq!(problems_of(&[heavy, strings, rest, class, both].concat()).len(), 18);
    let off = read_text(
        "backends: {a: {base_url: '', supported_capabilities: [images], auth: {bearer_env: NOPE}}}",
    );
    assert_eq!(off.unwrap().disabled, ["a"], "a disabled backend needs no token");
}

#[test]
fn a_backends_token_comes_from_a_variable_and_is_never_shown() {
    let read = read_text(
        "backends: {a: {base_url: 'http://a', supported_capabilities: [images], auth: {bearer_env: ADA2_TOKEN}}}",
    )
    .unwrap();
    let backend = read.backends.find("a").unwrap();
    assert_eq!(backend.bearer.as_ref().map(Secret::expose), Some("hush"));
    assert!(!format!("{backend:?}{}", read.backends).contains("hush"));
}

#[test]
fn one_setting_overrides_the_url_of_the_images_class() {
    let with = |url| {
        let source = SettingSource::Environment("IMAGES_HTTP_BASE_URL");
        parse(None, Some(BaseUrlOverride { class: "gpu_heavy", url, source }), &|_| None)
    };
    let file = with("http://127.0.0.1:9").unwrap();
    assert_eq!(file.backends.find("gpu_heavy").unwrap().readiness.as_str(), "http://127.0.0.1:9/readyz");
    let problems = with("127.0.0.1:9").unwrap_err();
    assert!(problems[0].source.contains("IMAGES_HTTP_BASE_URL"), "{problems:?}");
}

#[test]
fn any_class_is_accepted_in_the_order_of_the_file() {
    let read = read_text(
        "backends:\n  z: {base_url: 'http://z', supported_capabilities: [chat], default_model: '${ADA2}'}\n  \
         a: {base_url: 'http://a', supported_capabilities: [embeddings, chat], default_model: ''}\n  \
         gpu_fast: {class: gpu_fast, base_url: 'http://f', supported_capabilities: [chat, embeddings]}\n\
         legacy_mapping: {ollama: gpu_fast}",
    )
    .unwrap();
    assert_eq!(read.backends.classes(), ["z", "a", "gpu_fast"]);
    let models: Vec<_> = read.backends.all.iter().map(|backend| backend.default_model.as_deref()).collect();
    assert_eq!(models, [Some("ada2.local"), None, None]);
    assert!(read.backends.to_string().contains("    default_model: \"ada2.local\"\n"));
    assert_eq!(read.warnings, Vec::<String>::new());
}

#[test]
fn scalars_keep_their_text() {
    let read = read_text(
        "backends:\n  0012: {base_url: http://a, supported_capabilities: [chat], default_model: 0012}\n  \
         b: {class: 1e3, base_url: http://b, supported_capabilities: [chat], default_model: 1.50, \
         concurrency_limits: {chat: 0x10}}\n  \
         c: {base_url: http://c, supported_capabilities: [images], payload_policy: {images_allow_base64: on}}\n\
         legacy_mapping: {010: 0012, yes: 1e3}",
    )
    .unwrap();
    assert_eq!(read.backends.classes(), ["0012", "1e3", "c"]);
    let models: Vec<_> = read.backends.all.iter().map(|backend| backend.default_model.as_deref()).collect();
    assert_eq!(models, [Some("0012"), Some("1.50"), None]);
    assert_eq!(
        read.backends.find("1e3").unwrap().limits[&Capability::Chat],
        16,
        "a number is parsed as YAML does"
    );
    for (name, class) in [("010", "0012"), ("yes", "1e3")] {
        assert_eq!(read.backends.resolve(name).unwrap().class, class);
    }
    assert_eq!(read.warnings, Vec::<String>::new());
}

#[test]
fn an_undefined_variable_is_a_problem_inside_a_longer_value_and_disables_the_backend_alone() {
    let with = |base: &str| {
        read_text(&format!("backends:\n  a: {{base_url: '{base}', supported_capabilities: [images]}}"))
    };
    for (base, address) in [
        ("http://ada2:${MLX_PORT-10240}/v1", "http://ada2:10240/v1"),
        ("http://ada2:${MLX_PORT:-10240}/v1", "http://ada2:10240/v1"),
        ("http://${ADA2}:7860", "http://ada2.local:7860/"),
        ("${ADA2_URL:-http://ada2:7860}", "http://ada2:7860/"),
    ] {
        assert_eq!(with(base).unwrap().backends.find("a").unwrap().base_url.as_str(), address, "{base}");
    }
    assert_eq!(with("${ADA2_URL}").unwrap().disabled, ["a"]);
    for (base, message) in [
        ("http://ada2:${ADA2_PORT}", "expected ADA2_PORT to be defined"),
        ("http://ada2:${ADA2_PORT-}", "expected http://host:port"),
        ("http://ada2:${EMPTY}/v1", "expected http://host:port"),
        ("http://ada2:${ADA2_PORT", "expected `}`"),
        ("http://ada2:${ADA2_PORT:?gone}", "expected ${NAME}, ${NAME-default}"),
    ] {
        let problems = with(base).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(&format!("b.yaml: backends.a.base_url: {message}")), "{problems:?}");
    }
    let others = "backends:\n  a: {base_url: 'http://a', supported_capabilities: [images], health: {readiness: '/${NONE}'}}\n  \
                  b: {base_url: 'http://${NONE}', supported_capabilities: [tts]}\nlegacy_mapping: {x: 'a${NONE}'}";
    let problems = read_text(others).unwrap_err();
    assert_eq!(problems.len(), 2, "a backend without our capabilities is not read: {problems:?}");
    assert!(
        problems[0].contains("health.readiness: expected NONE") && problems[1].contains("legacy_mapping.x"),
        "{problems:?}"
    );
}

#[test]
fn misspelled_keys_have_suggestions_and_foreign_keys_share_one_warning() {
    let yaml = "backends:\n  a:\n    base_url: http://a\n    supported_capabilities: [images, chta, music]\n    \
                concurrency_limits: {images: 2, imgaes: 3, music: 1, tts: 1}\n    \
                health: {livness: /a, READINESS: /b, interval: 3}\n    \
                payload_policy: {image_format: url, images-allow-base64: true, audio: mp3}\n    \
                auth: {bearer_evn: ADA2_TOKEN, header: x}\n";
    let misspelled = [
        "concurrency_limits.imgaes: did you mean \"images\"?",
        "health.READINESS: did you mean \"readiness\"?",
        "health.livness: did you mean \"liveness\"?",
        "payload_policy.image_format: did you mean \"images_format\"?",
        "payload_policy.images-allow-base64: did you mean \"images_allow_base64\"?",
        "auth.bearer_evn: did you mean \"bearer_env\"?",
    ]
    .map(|message| format!("b.yaml: backends.a.{message}"));
    let capability = "b.yaml: backends.a: capability chta: did you mean \"chat\"?";
    let foreign = "b.yaml: ignored unknown keys and capabilities: backends.a.concurrency_limits.tts, backends.a: capability music, \
                   backends.a.health.interval, backends.a.payload_policy.audio, backends.a.auth.header";
    let warnings = read_text(yaml).unwrap().warnings;
    for message in misspelled.iter().map(String::as_str).chain([capability, foreign]) {
        assert!(warnings.iter().any(|warning| warning == message), "{message} in {warnings:#?}");
    }
    assert_eq!(warnings.len(), misspelled.len() + 2, "{warnings:#?}");
    let problems = read_text(&format!("{yaml}    class: 'a b'\n  b: 7\n")).unwrap_err();
    let wrong = problems.iter().filter(|problem| problem.contains("expected")).count();
    assert_eq!((wrong, problems.len()), (2, misspelled.len() + 3), "{problems:#?}");
    let problems = read_text(&yaml.replace("images: 2,", "images: 0, ")).unwrap_err();
    for message in misspelled
        .iter()
        .take(1)
        .map(String::as_str)
        .chain([capability, "limits.images: expected a whole number"])
    {
        assert!(problems.iter().any(|problem| problem.contains(message)), "{message} in {problems:#?}");
    }
}
