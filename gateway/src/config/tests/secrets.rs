//! No output about a configuration shows a secret, and a secret that could never be used is rejected.

use super::*;

/// Planted wherever a secret may be.
const CANARY: &str = "c4nary-S3cret";
const VALID_TOKEN: &str = "GATEWAY_BEARER_TOKEN=valid";

/// A configuration: env file, one further variable, backends.
#[derive(Default)]
struct TestConfig {
    env: String,
    variable: Option<(&'static str, String)>,
    yaml: Option<String>,
}

impl TestConfig {
    fn env(lines: &[String]) -> Self {
        Self { env: lines.join("\n"), ..Self::default() }
    }

    fn yaml(yaml: String) -> Self {
        Self { env: VALID_TOKEN.to_owned(), yaml: Some(yaml), ..Self::default() }
    }

    fn with(self, name: &'static str, value: String) -> Self {
        Self { variable: Some((name, value)), ..self }
    }

    /// Asserts that neither the effective configuration nor any message shows the secret.
    fn assert_hides_secret(self, case: &str) {
        let file = env_file(&format!("{}\n", self.env));
        if let Some(yaml) = self.yaml {
            std::fs::write(PathBuf::from(&file).with_file_name(BACKENDS_FILE), yaml).unwrap();
        }
        let matches = cli::command().get_matches_from(["gateway", "--env-file", &file]);
        let environment = |name: &str| {
            self.variable.as_ref().filter(|(variable, _)| *variable == name).map(|(_, value)| value.clone())
        };
        let output = match load(&matches, &environment) {
            Ok(LoadedConfig { effective, warnings, .. }) => format!("{effective}{warnings:?}"),
            Err(problems) => {
                let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
                format!("{}{problems:?}", lines.concat())
            }
        };
        assert!(!output.contains(CANARY), "{case}: {output}");
    }
}

fn file(name: &str, content: &str) -> String {
    let path = temporary("canary").join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn with_line(line: String) -> TestConfig {
    TestConfig::env(&[VALID_TOKEN.to_owned(), line])
}

#[test]
fn no_token_is_shown_however_malformed() {
    let not_ascii = file("not_ascii", &format!("{CANARY}\u{fc}\n"));
    let two_lines = file("two", &format!("{CANARY}\n{CANARY}\n"));
    for (case, env) in [
        ("a valid one", format!("GATEWAY_BEARER_TOKEN={CANARY}")),
        ("a valid list", format!("GATEWAY_BEARER_TOKENS=bob={CANARY}{CANARY},{CANARY}")),
        ("a character outside ASCII", format!("GATEWAY_BEARER_TOKEN={CANARY}\u{fc}")),
        ("a control character in a list", format!("GATEWAY_BEARER_TOKENS=a,{CANARY}\u{1}")),
        ("a quote that never ends", format!("GATEWAY_BEARER_TOKEN=\"{CANARY}\nA=1")),
        ("text after the quote", format!("GATEWAY_BEARER_TOKEN='x' {CANARY}")),
        ("no equals sign", format!("GATEWAY_BEARER_TOKEN {CANARY}")),
        ("a second line", format!("GATEWAY_BEARER_TOKEN=a\n{CANARY}=\nexport {CANARY}x=")),
        ("a file", format!("GATEWAY_BEARER_TOKEN_FILE={not_ascii}")),
        ("a file of two lines", format!("GATEWAY_BEARER_TOKEN_FILE={two_lines}")),
        ("the token as its file", format!("GATEWAY_BEARER_TOKEN_FILE={CANARY}")),
        ("both", format!("GATEWAY_BEARER_TOKEN={CANARY}\nGATEWAY_BEARER_TOKEN_FILE={not_ascii}")),
        ("the legacy gateway's", format!("{VALID_TOKEN}\nGATEWAY_LEGACY_BEARER_TOKEN={CANARY}\u{fc}")),
    ] {
        TestConfig::env(&[env]).assert_hides_secret(case);
    }
    let overruled =
        TestConfig::env(&[VALID_TOKEN.to_owned()]).with("GATEWAY_BEARER_TOKENS", format!("{CANARY}\n,,"));
    overruled.assert_hides_secret("in the environment");
}

#[test]
fn no_key_is_shown_however_malformed_its_file() {
    let key =
        file("key.pem", &format!("-----BEGIN PRIVATE KEY-----{CANARY}{CANARY}-----END PRIVATE KEY-----"));
    let cut = file("cut.pem", &format!("-----BEGIN CERTIFICATE-----\n{CANARY}\n"));
    for (case, line) in [
        ("on one line", format!("GATEWAY_TLS_CERT_PATH={cut}\nGATEWAY_TLS_KEY_PATH={key}")),
        ("for a certificate", format!("GATEWAY_TLS_CERT_PATH={key}\nGATEWAY_TLS_KEY_PATH={key}")),
        ("for backends", format!("BACKEND_CLIENT_CERT={key}\nBACKEND_CA_BUNDLE={key}")),
        ("cut off", format!("BACKEND_CLIENT_CERT={cut}\nBACKEND_CA_BUNDLE={cut}")),
    ] {
        with_line(line).assert_hides_secret(case);
    }
    let pasted = || format!("-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----");
    for tls in ["on", "off"] {
        let lines = format!("GATEWAY_TLS={tls}\nGATEWAY_TLS_CERT_PATH={cut}");
        with_line(lines).with("GATEWAY_TLS_KEY_PATH", pasted()).assert_hides_secret("in place of its path");
    }
}

#[test]
fn a_key_in_place_of_its_path_is_not_shown() {
    let key = |begin: &str| format!("{begin}MIGHAgEAMBMGByqGSM49AgEG{CANARY}/c0lor+AwEHBG0wawIBAQQg");
    let cert = file("cert.pem", "");
    for (begin, tls) in [
        ("", "on"),
        ("", "off"),
        ("/", "on"),
        ("/", "off"),
        ("a/b/", "on"),
        ("/x.y-z_", "on"),
        ("/a\\n", "off"),
    ] {
        for name in ["GATEWAY_TLS_KEY_PATH", "BACKEND_CLIENT_CERT", "BACKEND_CA_BUNDLE"] {
            let cert = if name == "GATEWAY_TLS_KEY_PATH" { cert.as_str() } else { "" };
            let env = env_file(&format!(
                "{VALID_TOKEN}\nGATEWAY_TLS={tls}\nGATEWAY_TLS_CERT_PATH={cert}\n{name}={}\n",
                key(begin)
            ));
            let output = load_with(&["--env-file", &env], &[]).unwrap_err().concat();
            let message = format!("{name}: expected the path of a PEM file");
            assert!(output.contains(&message) && !output.contains(CANARY), "{begin} {tls}: {output}");
        }
    }
    let long = "/Volumes/certificates.of/the/gateway/on/ai2.local/the-key-and-its-certificate";
    let lower = "/var/lib/private/certificates/of/the/gateway/key";
    for path in ["/nowhere/at-all.pem", "certs/server.crt", "/tmp/no-such-key", "/nope", "/a/b", long, lower]
    {
        for setting in ["BACKEND_CLIENT_CERT", "BACKEND_CA_BUNDLE", "GATEWAY_TLS_CERT_PATH"] {
            let key =
                if setting.ends_with("_PATH") { "GATEWAY_TLS=on\nGATEWAY_TLS_KEY_PATH=/nope" } else { "" };
            let env = env_file(&format!("{VALID_TOKEN}\n{key}\n{setting}={path}\n"));
            let output = load_with(&["--env-file", &env], &[]).unwrap_err().concat();
            assert!(output.contains(&format!("{path}: No such file")), "{setting}: {output}");
        }
    }
    let alone = env_file(&format!("{VALID_TOKEN}\nGATEWAY_TLS=on\nGATEWAY_TLS_CERT_PATH=/nope\n"));
    let output = load_with(&["--env-file", &alone], &[]).unwrap_err().concat();
    assert!(output.contains("GATEWAY_TLS_CERT_PATH here, or in that file: /nope: No such file"), "{output}");
    let certificate = file("certificate.pem", &rcgen_certificate());
    let env = env_file(&format!(
        "{VALID_TOKEN}\nGATEWAY_TLS=on\nGATEWAY_TLS_CERT_PATH={certificate}\nGATEWAY_TLS_KEY_PATH=/nope\n"
    ));
    let output = load_with(&["--env-file", &env], &[]).unwrap_err().concat();
    assert!(output.contains("GATEWAY_TLS_KEY_PATH: ") && output.contains("/nope: No such file"), "{output}");
}

fn rcgen_certificate() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap().pem()
}

#[test]
fn no_password_in_a_url_is_shown() {
    let url = format!("http://me:{CANARY}@ada2:7860");
    for (case, line) in [
        ("of the legacy gateway", format!("GATEWAY_LEGACY_UPSTREAM={url}")),
        ("without scheme", format!("GATEWAY_LEGACY_UPSTREAM=me:{CANARY}@old:1")),
        ("with a slash in it", format!("GATEWAY_LEGACY_UPSTREAM=http://me:x/{CANARY}@old")),
        ("in a query", format!("GATEWAY_LEGACY_UPSTREAM=http://old/?token={CANARY}")),
        ("of images", format!("IMAGES_HTTP_BASE_URL={url}")),
        (
            "of a missing class",
            format!("IMAGES_HTTP_BASE_URL={url}\nIMAGES_BACKEND=mock\nIMAGES_BACKEND_CLASS=none"),
        ),
        ("of the public base URL", format!("PUBLIC_BASE_URL={url}")),
        ("of an origin", format!("GATEWAY_ALLOWED_ORIGINS={url}")),
        ("in another setting", format!("GATEWAY_HOST={url}\nUI_IMAGE_DIR={url}/x")),
    ] {
        with_line(line).assert_hides_secret(case);
    }
}

#[test]
fn no_secret_of_the_backends_file_is_shown() {
    let backend = |base: &str, more: String| {
        format!("backends:\n  a:\n    base_url: {base}\n    supported_capabilities: [images, chat]\n{more}")
    };
    let plain = |more: String| TestConfig::yaml(backend("http://a", more));
    let url = format!("http://me:{CANARY}@ada2:7860");
    let variable = || plain("    auth: {bearer_env: X}\n".to_owned());
    TestConfig::yaml(backend(&url, String::new())).assert_hides_secret("an address");
    let expanded = TestConfig::yaml(backend("'${X}'", String::new()));
    expanded.with("X", url).assert_hides_secret("an address from a variable");
    variable().with("X", CANARY.to_owned()).assert_hides_secret("a valid token");
    variable().with("X", format!("{CANARY}\u{fc}")).assert_hides_secret("a token outside ASCII");
    for (case, more) in [
        ("the token for its variable", format!("    auth: {{bearer_env: {CANARY}}}\n")),
        ("a query of a health path", format!("    health: {{readiness: '/r?key={CANARY}'}}\n")),
        ("YAML cut off", format!("    auth: {{bearer_env: \"{CANARY}\n")),
        ("YAML badly indented", format!("   token: {CANARY}\n")),
        ("a key given twice", format!("    token: {CANARY}\n    token: {CANARY}\n")),
        ("an undefined anchor", format!("    token: *{CANARY}\n")),
    ] {
        plain(more).assert_hides_secret(case);
    }
    with_line(format!("MODEL_ALIASES_JSON={{\"{CANARY}")).assert_hides_secret("aliases that are not JSON");
}

#[test]
fn a_token_in_place_of_its_variable_is_not_shown() {
    let env = env_file(&format!("{VALID_TOKEN}\nBLANK_TOKEN=\n"));
    let load_named = |name: &str| {
        let yaml = format!(
            "backends:\n  a: {{base_url: 'http://a', supported_capabilities: [images], auth: {{bearer_env: {name}}}}}"
        );
        std::fs::write(PathBuf::from(&env).with_file_name(BACKENDS_FILE), yaml).unwrap();
        load_with(&["--env-file", &env], &[]).unwrap_err().concat()
    };
    let output = load_named("HUSHTOKENVALUE");
    assert!(output.contains("backends.a.auth.bearer_env: expected the name of a variable"), "{output}");
    assert!(!output.contains("HUSHTOKENVALUE"), "{output}");
    let output = load_named("BLANK_TOKEN");
    assert!(output.contains("BLANK_TOKEN is empty"), "a variable's name is not secret: {output}");
}

#[test]
fn a_token_that_no_header_can_carry_is_rejected_in_every_source() {
    let (latin, lines) = (file("latin", "schl\u{fc}ssel"), file("lines", "one\ntwo"));
    let legacy =
        "GATEWAY_BEARER_TOKEN=t\nGATEWAY_LEGACY_UPSTREAM=http://old\nGATEWAY_LEGACY_BEARER_TOKEN=t\u{f6}k";
    for (text, environment) in [
        ("GATEWAY_BEARER_TOKEN=schl\u{fc}ssel".to_owned(), &[][..]),
        ("GATEWAY_BEARER_TOKENS=\"good,b\tad\"".to_owned(), &[]),
        (format!("GATEWAY_BEARER_TOKEN_FILE={latin}"), &[]),
        (format!("GATEWAY_BEARER_TOKEN_FILE={lines}"), &[]),
        (format!("GATEWAY_BEARER_TOKENS_FILE={latin}"), &[]),
        (legacy.to_owned(), &[]),
        ("GATEWAY_BEARER_TOKEN=b\u{e4}d".to_owned(), &[("GATEWAY_BEARER_TOKEN", "good")]),
        (String::new(), &[("GATEWAY_BEARER_TOKEN", "\u{fffd}")]),
    ] {
        let problems = load_with(&["--env-file", &env_file(&text)], environment).unwrap_err();
        assert!(problems.concat().contains("printable ASCII"), "{text} {problems:?}");
    }
}

#[test]
fn an_invalid_url_for_the_images_class_is_reported_with_its_setting_and_source() {
    let env = env_file(&format!("{VALID_TOKEN}\nIMAGES_HTTP_BASE_URL=nowhere\n"));
    let message = load_with(&["--env-file", &env], &[]).unwrap_err().concat();
    assert!(message.contains(&format!("{env}: IMAGES_HTTP_BASE_URL: expected")), "{message}");
    let flag = ["--env-file", &env_file(VALID_TOKEN), "--images-http-base-url", "nowhere"];
    let message = load_with(&flag, &[]).unwrap_err().concat();
    assert!(message.contains("--images-http-base-url: IMAGES_HTTP_BASE_URL: expected"), "{message}");
}

#[test]
fn a_backends_token_must_fit_a_header_and_its_variable_is_named() {
    let env = env_file("GATEWAY_BEARER_TOKEN=t\nADA2_TOKEN=t\u{f6}k");
    let yaml = "backends:\n  a: {base_url: 'http://a', supported_capabilities: [images], auth: {bearer_env: ADA2_TOKEN}}";
    std::fs::write(PathBuf::from(&env).with_file_name(BACKENDS_FILE), yaml).unwrap();
    let problems = load_with(&["--env-file", &env], &[]).unwrap_err().concat();
    assert!(problems.contains("auth.bearer_env") && problems.contains("printable ASCII"), "{problems}");
    assert!(problems.contains("ADA2_TOKEN"), "{problems}");
}
