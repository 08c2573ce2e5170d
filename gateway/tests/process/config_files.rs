//! What the commands report about files that are invalid, unreadable or unwritable.

use std::{
    ffi::OsStr,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use crate::running::{TOKEN, gateway, run, temp_dir, text};

const BACKENDS: &str = include_str!("../fixtures/unset_port.yaml");

fn lines(bytes: &[u8]) -> Vec<String> {
    text(bytes).lines().map(str::to_owned).collect()
}

fn with_backends(name: &str, variables: &[(&str, &str)]) -> std::process::Output {
    let dir = temp_dir(name);
    std::fs::write(dir.join("backends_config.yaml"), BACKENDS).unwrap();
    let mut command = gateway(&dir, &[]);
    command.arg("check-config").env("GATEWAY_BEARER_TOKEN", TOKEN).envs(variables.iter().copied());
    run(command)
}

#[test]
fn an_undefined_variable_inside_a_longer_value_exits_78_and_is_named() {
    let output = with_backends("unset", &[]);
    let printed = lines(&output.stderr);
    assert_eq!((output.status.code(), printed.len()), (Some(78), 1), "{printed:?}");
    assert!(
        printed[0].contains("backends.gpu_heavy.base_url: expected ADA2_PORT to be defined"),
        "{printed:?}"
    );
    let output = with_backends("set", &[("ADA2_PORT", "7860")]);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for address in ["http://ada2:7860/", "http://127.0.0.1:10240/v1"] {
        assert!(printed.contains(&format!("base_url: {address}\n")), "{address} in {printed}");
    }
}

/// Makes a file unreadable for `command`, even if the tests run as root.
fn make_unreadable(file: &Path, command: &mut Command) {
    let root = std::fs::metadata(file).unwrap().uid() == 0;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(if root { 0o600 } else { 0 })).unwrap();
    if root {
        command.uid(65_534).gid(65_534);
    }
}

#[test]
fn an_unreadable_env_file_is_one_error_with_its_fix() {
    let dir = temp_dir("closed");
    let file = dir.join(".env");
    std::fs::write(&file, format!("GATEWAY_BEARER_TOKEN={TOKEN}\nBACKENDS_CONFIG=/nowhere\n")).unwrap();
    for subcommand in ["check-config", "status", "verify"] {
        let mut command = gateway(&dir, &[]);
        make_unreadable(&file, command.arg(subcommand));
        let output = run(command);
        let printed = lines(&output.stderr);
        assert_eq!((output.status.code(), printed.len()), (Some(78), 1), "{subcommand}: {printed:?}");
        let message = format!("--env-file: {}: expected a file: Permission denied", file.display());
        assert!(printed[0].starts_with(&message), "{printed:?}");
        assert!(printed[0].contains("sudo -u ") || printed[0].contains("is your own"), "{printed:?}");
    }
}

#[test]
fn an_unreadable_token_file_is_one_error() {
    let dir = temp_dir("closed-token");
    let file = dir.join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let mut command = gateway(&dir, &[]);
    make_unreadable(&file, command.arg("check-config").env("GATEWAY_BEARER_TOKEN_FILE", &file));
    let output = run(command);
    let printed = lines(&output.stderr);
    assert_eq!((output.status.code(), printed.len()), (Some(78), 1), "{printed:?}");
    assert!(
        printed[0].contains("GATEWAY_BEARER_TOKEN_FILE: expected a readable file: Permission denied"),
        "{printed:?}"
    );
}

#[test]
fn an_expired_certificate_is_a_warning_with_its_date() {
    let dir = temp_dir("expired");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["ai2.local".to_owned()]).unwrap();
    let yesterday = SystemTime::now() - Duration::from_hours(36);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), yesterday.into());
    let certificate = params.self_signed(&key).unwrap();
    // Both in one file, as some tools write them.
    let file = dir.join("both.pem");
    std::fs::write(
        &file,
        format!("\u{feff}{}{}", certificate.pem(), key.serialize_pem()).replace('\n', "\r\n"),
    )
    .unwrap();
    // The arguments of `gateway` turn TLS off.
    let plain = gateway(&dir, &[]);
    let mut command = Command::new(plain.get_program());
    let on = |argument: &OsStr| if argument == "off" { "on".into() } else { argument.to_owned() };
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).args(plain.get_args().map(on));
    command.arg("--gateway-tls-cert-path").arg(&file).arg("check-config");
    let output = run(command);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let warning = format!("GATEWAY_TLS_CERT_PATH: {}: the certificate expired on ", file.display());
    assert!(printed.contains(&warning) && printed.contains("(1 day ago): clients reject it"), "{printed}");
}

#[test]
fn all_unwritable_paths_are_reported_at_once_by_both_commands() {
    let dir = temp_dir("paths");
    std::fs::write(dir.join("file"), "").unwrap();
    let below = |name: &str| dir.join("file").join(name).display().to_string();
    let paths = [below("images"), below("data"), below("gateway.log")];
    for subcommand in ["serve", "check-config"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(dir.join(".env"));
        command.args(["--ui-image-dir", &paths[0], "--gateway-data-dir", &paths[1]]);
        command.args(["--gateway-log-file", &paths[2], "--gateway-port", "0", subcommand]);
        let output = run(command);
        let printed = lines(&output.stderr);
        assert_eq!((output.status.code(), printed.len()), (Some(78), 3), "{subcommand}: {printed:#?}");
        for (setting, path) in ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"].iter().zip(&paths) {
            let line = printed.iter().find(|line| line.starts_with(&format!("{setting}: {path}: expected ")));
            let line = line.unwrap_or_else(|| panic!("{setting} in {printed:#?}"));
            assert!(line.contains("is owned by uid"), "{line}");
            assert!(subcommand != "serve" || line.contains("sudo chown"), "{line}");
        }
    }
}

#[test]
fn a_path_that_only_the_current_user_cannot_write_is_a_warning() {
    let dir = temp_dir("not-mine");
    let mut command = gateway(&dir, &["--gateway-log-file", &dir.join("log").display().to_string()]);
    command.arg("check-config").env("GATEWAY_BEARER_TOKEN", TOKEN).env("GATEWAY_PROT", "1");
    if std::fs::metadata(&dir).unwrap().uid() != 0 {
        // Only root can run as another user.
        return;
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    command.uid(65_534).gid(65_534);
    let output = run(command);
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for setting in ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"] {
        assert!(printed.contains(&format!("# {setting}: ")), "{setting} in {printed}");
    }
    assert_eq!(
        printed.matches("(the current user); the gateway's account needs write access").count(),
        3,
        "{printed}"
    );
    assert!(
        printed.contains("# environment: GATEWAY_PROT: is not a setting; did you mean GATEWAY_PORT?"),
        "{printed}"
    );
}
