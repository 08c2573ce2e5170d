//! `gateway ca`: the local authority as a person meets it.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::running::{folder, run, text};

fn ca(data: &Path, flags: &[&str], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    // Whoever runs it need not be able to read the gateway's own files.
    command.env_clear().args(["--env-file", "/nowhere/.env", "--gateway-data-dir"]).arg(data);
    command.args(flags).arg("ca").args(arguments);
    run(command)
}

/// Has a gateway make its authority.
fn start_once(folder: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
    command
        .env_clear()
        .env("GATEWAY_BEARER_TOKEN", "process-token-0123")
        .arg("--env-file")
        .arg(folder.join(".env"));
    command.arg("--ui-image-dir").arg(folder.join("pictures")).arg("--gateway-data-dir").arg(folder);
    let mut child = command
        .args(["--gateway-port", "0", "--images-backend", "mock"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !folder.join("gateway-cert.pem").exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_authority_is_shown_with_what_there_is_to_do_and_nothing_is_changed() {
    let folder = folder("ca");
    let none = ca(&folder, &[], &[]);
    assert_eq!((none.status.code(), none.stdout.is_empty()), (Some(70), true));
    assert!(
        text(&none.stderr).contains("there is no authority yet: the gateway creates it when it starts"),
        "{}",
        text(&none.stderr)
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "the env file");
    start_once(&folder);
    let file = folder.join("gateway-ca.pem");
    let kept = std::fs::read_to_string(&file).unwrap();
    let pem = ca(&folder, &[], &["--pem"]);
    assert_eq!((pem.status.code(), text(&pem.stdout)), (Some(0), kept.clone()));
    let page = text(&ca(&folder, &["--gateway-port", "8811"], &[]).stdout);
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
    let damaged = ca(&folder, &[], &[]);
    assert_eq!(damaged.status.code(), Some(70));
    assert!(
        text(&damaged.stderr).contains("expected the local authority's certificate: "),
        "{}",
        text(&damaged.stderr)
    );
}

#[test]
fn where_there_is_no_authority_of_ours_it_says_what_there_is() {
    let folder = folder("ca-none");
    let off = text(&ca(&folder, &["--gateway-tls", "off"], &[]).stderr);
    assert!(off.contains("GATEWAY_TLS is off"), "{off}");
    let pair = ["--gateway-tls-cert-path", "/etc/mine.pem", "--gateway-tls-key-path", "/etc/mine.key"];
    let given = text(&ca(&folder, &pair, &[]).stderr);
    assert!(given.contains("the certificate that GATEWAY_TLS_CERT_PATH names (/etc/mine.pem)"), "{given}");
}

/// Skipped where there is no openssl.
#[test]
fn openssl_finds_nothing_wrong_with_what_is_made_and_shows_the_same_fingerprint() {
    let folder = folder("ca-openssl");
    start_once(&folder);
    let openssl = |arguments: &[&str]| {
        let run = Command::new("openssl").args(arguments).current_dir(&folder).output();
        run.ok().map(|output| text(&output.stdout) + &text(&output.stderr))
    };
    let strict = ["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost"];
    let Some(verified) = openssl(&[&strict[..], &["-CAfile", "gateway-ca.pem", "gateway-cert.pem"]].concat())
    else {
        return;
    };
    assert_eq!(verified.trim(), "gateway-cert.pem: OK");
    let told = openssl(&["x509", "-in", "gateway-ca.pem", "-noout", "-fingerprint", "-sha256"]).unwrap();
    let fingerprint = told.trim().split_once('=').unwrap().1.to_owned();
    let page = text(&ca(&folder, &[], &[]).stdout);
    assert!(page.contains(&format!("  SHA-256    {fingerprint}\n")), "{fingerprint} in {page}");
}
