//! Files that are wrong, or that the asking user may not read: what `check-config` says of them.

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

use crate::running::{TOKEN, folder, gateway, run, text};

const BACKENDS: &str = include_str!("../fixtures/unset_port.yaml");

fn lines(bytes: &[u8]) -> Vec<String> {
    text(bytes).lines().map(str::to_owned).collect()
}

fn with_backends(name: &str, variables: &[(&str, &str)]) -> std::process::Output {
    let folder = folder(name);
    std::fs::write(folder.join("backends_config.yaml"), BACKENDS).unwrap();
    let mut command = gateway(&folder, &[]);
    command.arg("check-config").env("GATEWAY_BEARER_TOKEN", TOKEN).envs(variables.iter().copied());
    run(command)
}

#[test]
fn a_variable_that_is_not_set_inside_a_longer_value_exits_78_and_is_named() {
    let output = with_backends("unset", &[]);
    let said = lines(&output.stderr);
    assert_eq!((output.status.code(), said.len()), (Some(78), 1), "{said:?}");
    assert!(said[0].contains("backends.gpu_heavy.base_url: expected ADA2_PORT to be defined"), "{said:?}");
    let output = with_backends("set", &[("ADA2_PORT", "7860")]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for address in ["http://ada2:7860/", "http://127.0.0.1:10240/v1"] {
        assert!(said.contains(&format!("base_url: {address}\n")), "{address} in {said}");
    }
}

/// Lets nobody but its owner read it; and `command` not, even where everybody is root.
fn close(file: &Path, command: &mut Command) {
    let root = std::fs::metadata(file).unwrap().uid() == 0;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(if root { 0o600 } else { 0 })).unwrap();
    if root {
        command.uid(65_534).gid(65_534);
    }
}

#[test]
fn an_env_file_that_may_not_be_read_is_one_error_that_says_who_may() {
    let folder = folder("closed");
    let file = folder.join(".env");
    std::fs::write(&file, format!("GATEWAY_BEARER_TOKEN={TOKEN}\nBACKENDS_CONFIG=/nowhere\n")).unwrap();
    for subcommand in ["check-config", "status", "verify"] {
        let mut command = gateway(&folder, &[]);
        close(&file, command.arg(subcommand));
        let output = run(command);
        let said = lines(&output.stderr);
        assert_eq!((output.status.code(), said.len()), (Some(78), 1), "{subcommand}: {said:?}");
        let told = format!("--env-file: {}: expected a file: Permission denied", file.display());
        assert!(said[0].starts_with(&told), "{said:?}");
        assert!(said[0].contains("sudo -u ") || said[0].contains("is your own"), "{said:?}");
    }
}

#[test]
fn a_file_of_a_token_that_may_not_be_read_is_one_error() {
    let folder = folder("closed-token");
    let file = folder.join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let mut command = gateway(&folder, &[]);
    close(&file, command.arg("check-config").env("GATEWAY_BEARER_TOKEN_FILE", &file));
    let output = run(command);
    let said = lines(&output.stderr);
    assert_eq!((output.status.code(), said.len()), (Some(78), 1), "{said:?}");
    assert!(
        said[0].contains("GATEWAY_BEARER_TOKEN_FILE: expected a readable file: Permission denied"),
        "{said:?}"
    );
}

#[test]
fn an_expired_certificate_is_told_with_its_date_and_served() {
    let folder = folder("expired");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["ai2.local".to_owned()]).unwrap();
    let yesterday = SystemTime::now() - Duration::from_hours(36);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), yesterday.into());
    let certificate = params.self_signed(&key).unwrap();
    // Both in one file, as some authorities' tools write them.
    let file = folder.join("both.pem");
    std::fs::write(
        &file,
        format!("\u{feff}{}{}", certificate.pem(), key.serialize_pem()).replace('\n', "\r\n"),
    )
    .unwrap();
    // The harness says off.
    let plain = gateway(&folder, &[]);
    let mut command = Command::new(plain.get_program());
    let on = |argument: &OsStr| if argument == "off" { "on".into() } else { argument.to_owned() };
    command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).args(plain.get_args().map(on));
    command.arg("--gateway-tls-cert-path").arg(&file).arg("check-config");
    let output = run(command);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = format!("GATEWAY_TLS_CERT_PATH: {}: the certificate expired on ", file.display());
    assert!(said.contains(&told) && said.contains("(1 day ago): clients reject it"), "{said}");
}

#[test]
fn every_place_that_cannot_be_written_is_told_in_one_run_by_both_commands() {
    let folder = folder("places");
    std::fs::write(folder.join("file"), "").unwrap();
    let below = |name: &str| folder.join("file").join(name).display().to_string();
    let places = [below("pictures"), below("data"), below("gateway.log")];
    for subcommand in ["serve", "check-config"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command.env_clear().env("GATEWAY_BEARER_TOKEN", TOKEN).arg("--env-file").arg(folder.join(".env"));
        command.args(["--ui-image-dir", &places[0], "--gateway-data-dir", &places[1]]);
        command.args(["--gateway-log-file", &places[2], "--gateway-port", "0", subcommand]);
        let output = run(command);
        let said = lines(&output.stderr);
        assert_eq!((output.status.code(), said.len()), (Some(78), 3), "{subcommand}: {said:#?}");
        for (setting, place) in ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"].iter().zip(&places) {
            let line = said.iter().find(|line| line.starts_with(&format!("{setting}: {place}: expected ")));
            let line = line.unwrap_or_else(|| panic!("{setting} in {said:#?}"));
            assert!(line.contains("is owned by uid"), "{line}");
            assert!(subcommand != "serve" || line.contains("sudo chown"), "{line}");
        }
    }
}

#[test]
fn what_only_the_asking_user_cannot_write_is_a_note() {
    let folder = folder("not-mine");
    let mut command = gateway(&folder, &["--gateway-log-file", &folder.join("log").display().to_string()]);
    command.arg("check-config").env("GATEWAY_BEARER_TOKEN", TOKEN).env("GATEWAY_PROT", "1");
    if std::fs::metadata(&folder).unwrap().uid() != 0 {
        // Only root can be somebody else.
        return;
    }
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    command.uid(65_534).gid(65_534);
    let output = run(command);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for setting in ["UI_IMAGE_DIR", "GATEWAY_DATA_DIR", "GATEWAY_LOG_FILE"] {
        assert!(said.contains(&format!("# {setting}: ")), "{setting} in {said}");
    }
    assert_eq!(
        said.matches("(the current user); the gateway's account needs write access").count(),
        3,
        "{said}"
    );
    assert!(
        said.contains("# environment: GATEWAY_PROT: is not a setting; did you mean GATEWAY_PORT?"),
        "{said}"
    );
}
