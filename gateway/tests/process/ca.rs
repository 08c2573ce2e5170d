//! `gateway ca`.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::running::{run, temp_dir, text};

fn ca(data: &Path, flags: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    // It works for users who cannot read the gateway's files.
    command.env_clear().args(["--env-file", "/nowhere/.env", "--gateway-data-dir"]).arg(data);
    command.args(flags).arg("ca").args(arguments);
    run(command)
}

/// Starts a gateway until it has created its authority.
fn start_once(dir: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command
        .env_clear()
        .env("GATEWAY_BEARER_TOKEN", "process-token-0123")
        .arg("--env-file")
        .arg(dir.join(".env"));
    command.arg("--ui-image-dir").arg(dir.join("images")).arg("--gateway-data-dir").arg(dir);
    let mut child = command
        .args(["--gateway-port", "0", "--images-backend", "mock"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dir.join("gateway-cert.pem").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_authority_is_shown_with_instructions_and_nothing_is_changed() {
    let dir = temp_dir("ca");
    let none = ca(&dir, &[], &[]);
    assert_eq!((none.status.code(), none.stdout.is_empty()), (Some(70), true));
    assert!(
        text(&none.stderr).contains("there is no authority yet: the gateway creates it when it starts"),
        "{}",
        text(&none.stderr)
    );
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "the env file");
    start_once(&dir);
    let file = dir.join("gateway-ca.pem");
    let certificate = std::fs::read_to_string(&file).unwrap();
    let pem = ca(&dir, &[], &["--pem"]);
    assert_eq!((pem.status.code(), text(&pem.stdout)), (Some(0), certificate.clone()));
    let page = text(&ca(&dir, &["--gateway-port", "8811"], &[]).stdout);
    for part in [
        &format!("  file       {}\n", file.display()),
        "(local authority)\n",
        "  names      localhost, local, lan, home.arpa, internal",
        "  addresses  127.0.0.0/8, 10.0.0.0/8, ",
        &format!(
            "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {}\n",
            file.display()
        ),
        "certutil -addstore -f Root gateway-ca.pem",
        &format!("export NODE_EXTRA_CA_CERTS={}\n", file.display()),
        "SSL_CERT_FILE",
        "https://host.docker.internal:8811/v1",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("PRIVATE KEY"));
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let damaged = ca(&dir, &[], &[]);
    assert_eq!(damaged.status.code(), Some(70));
    assert!(
        text(&damaged.stderr).contains("expected the local authority's certificate: "),
        "{}",
        text(&damaged.stderr)
    );
}

#[test]
fn without_an_authority_it_explains_why() {
    let dir = temp_dir("ca-none");
    let off = text(&ca(&dir, &["--gateway-tls", "off"], &[]).stderr);
    assert!(off.contains("GATEWAY_TLS is off"), "{off}");
    let pair = ["--gateway-tls-cert-path", "/etc/mine.pem", "--gateway-tls-key-path", "/etc/mine.key"];
    let given = text(&ca(&dir, &pair, &[]).stderr);
    assert!(given.contains("the certificate that GATEWAY_TLS_CERT_PATH names (/etc/mine.pem)"), "{given}");
}

/// Skipped without openssl.
#[test]
fn openssl_accepts_the_certificate_and_prints_the_same_fingerprint() {
    let dir = temp_dir("ca-openssl");
    start_once(&dir);
    let openssl = |arguments: &[&str]| {
        let run = Command::new("openssl").args(arguments).current_dir(&dir).output();
        run.ok().map(|output| text(&output.stdout) + &text(&output.stderr))
    };
    let strict = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"];
    let Some(verified) = openssl(&[&strict[..], &["-CAfile", "gateway-ca.pem", "gateway-cert.pem"]].concat())
    else {
        return;
    };
    assert_eq!(verified.trim(), "gateway-cert.pem: OK");
    let printed = openssl(&["x509", "-in", "gateway-ca.pem", "-noout", "-fingerprint", "-sha256"]).unwrap();
    let fingerprint = printed.trim().split_once('=').unwrap().1.to_owned();
    let page = text(&ca(&dir, &[], &[]).stdout);
    assert!(page.contains(&format!("  SHA-256    {fingerprint}\n")), "{fingerprint} in {page}");
}
