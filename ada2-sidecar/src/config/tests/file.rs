//! The file beside the other sources: its problems, and its scalars.

use super::*;

#[test]
fn unknown_keys_and_bad_values_are_reported_together_and_a_broken_file_only_once() {
    let file = "max_inflght: 3\nmax_n: 99\nzebra: 1\npresets: {a: {modle: k, steps: 0}}\ntoken: ''";
    let lines = problems(&["--engine", "sdwebui"], &[], Some(file));
    for expected in [
        "config.yaml: max_inflght: unknown key; did you mean \"max_inflight\"?",
        "config.yaml: zebra: unknown key",
        "config.yaml: max_n: expected a whole number",
        "presets: a: modle: unknown key",
        "presets: a: steps: expected",
        "config.yaml: token: expected a token",
        "--engine: engine: expected",
    ] {
        assert_eq!(
            lines.iter().filter(|line| line.contains(expected)).count(),
            1,
            "{expected} in {lines:#?}"
        );
    }
    assert_eq!(lines.len(), 7, "{lines:#?}");
    let directory = std::env::temp_dir().display().to_string();
    for (flags, file) in [(vec!["--config", directory.as_str()], None), (vec![], Some("state_dir: [\n"))] {
        let lines = problems(&[&flags[..], &["--max-n", "99"]].concat(), &[], file);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("(the whole file)") && lines[1].starts_with("--max-n: "), "{lines:#?}");
    }
    let lines = problems(&[], &[("ADA2_TOKEN_FILE", "/nowhere/token")], Some("max_n: 99"));
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[test]
fn scalars_of_the_file_keep_the_text_that_they_were_written_with() {
    let file = "token: 0012345678901234\ndefault_model: 1e3\nmax_pixels: 1_000_000\nwarm_up: yes\n\
                presets: {010: {model: 0012, steps: 4, cfg_scale: 7.50}, on: {model: 1.50}}";
    let config = read_with(&[], &[], Some(file)).unwrap().config;
    assert!(config.token.as_ref().is_some_and(|token| token.matches("0012345678901234")));
    assert_eq!(
        (config.default_model.as_deref(), config.max_pixels, config.warm_up),
        (Some("1e3"), 1_000_000, true)
    );
    let presets: Vec<_> = config
        .presets
        .iter()
        .map(|preset| (preset.name.as_str(), preset.model.as_deref().unwrap()))
        .collect();
    assert_eq!(presets, [("010", "0012"), ("on", "1.50")]);
    assert_eq!((config.presets[0].steps, config.presets[0].cfg_scale), (Some(4), Some(7.5)));
}

#[test]
fn an_overridden_value_in_the_file_is_a_warning() {
    let file = Some("max_n: 2\ngpu: optional\ntoken: hush-hush");
    let config = read_with(&["--gpu", "optional"], &[("ADA2_MAX_N", "3"), ("ADA2_TOKEN", "hush")], file)
        .unwrap()
        .config;
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings.iter().any(|warning| {
        warning.contains("config.yaml: max_n: \"2\" has no effect: environment ADA2_MAX_N says \"3\"")
    }));
    assert!(
        config.warnings.iter().any(|warning| warning.contains("token: this has no effect")),
        "{:?}",
        config.warnings
    );
}
