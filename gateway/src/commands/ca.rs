//! `gateway ca`: where the local authority's certificate is, what it says, and how programs learn to trust it. Needs no key
//! and changes nothing: the gateway's start makes the authority.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::ArgMatches;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::{CommandError, Environment, target::escaped};
use crate::{
    config,
    tls::{
        files::{format_date, to_pem},
        local_ca,
        parsed::ParsedCertificate,
    },
};

pub(super) fn run(
    matches: &ArgMatches,
    arguments: &ArgMatches,
    environment: Environment,
) -> Result<ExitCode, CommandError> {
    let own = config::certificate_settings(matches, &environment);
    if !own.tls_enabled {
        return Err(CommandError::Message(
            "GATEWAY_TLS is off: the gateway speaks plain HTTP, and there is nothing to trust".to_owned(),
        ));
    }
    if let Some(given) = own.cert_path {
        return Err(CommandError::Message(format!(
            "the gateway shows the certificate that GATEWAY_TLS_CERT_PATH names ({}): programs trust whoever signed that one",
            escaped(&given)
        )));
    }
    let (certificate, facts) = read_authority(&own.data_dir, &own.errors)?;
    if arguments.get_flag("pem") {
        write!(io::stdout(), "{}", to_pem(&certificate))?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = std::path::absolute(own.data_dir.join(local_ca::CA_CERT_FILE))?;
    let host = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let host = if host.is_empty() { "localhost".to_owned() } else { escaped(&host) };
    write!(io::stdout(), "{}\n{}", page(&file, &certificate, &facts), advice(&file, &host, &own.port))?;
    Ok(ExitCode::SUCCESS)
}

fn read_authority(
    dir: &Path,
    unread: &[String],
) -> Result<(CertificateDer<'static>, ParsedCertificate), CommandError> {
    let file = dir.join(local_ca::CA_CERT_FILE);
    let whose = if unread.is_empty() {
        String::new()
    } else {
        format!("\n({}; without it GATEWAY_DATA_DIR is taken for {})", unread.join("; "), dir.display())
    };
    match local_ca::exists(dir) {
        Ok(false) => Err(CommandError::Message(format!(
            "{}: there is no authority yet: the gateway makes it when it starts with TLS and without a pair of yours{whose}",
            file.display()
        ))),
        Err(error) => Err(CommandError::Message(format!(
            "{}: {error}: run it as the gateway's user, such as `sudo -u _gateway gateway ca`{whose}",
            file.display()
        ))),
        Ok(true) => local_ca::read_certificate(dir).map_err(|why| {
            CommandError::Message(format!(
                "{}: expected the local authority's certificate: {why}{whose}",
                file.display()
            ))
        }),
    }
}

/// Pairs of hex digits with colons, as browsers and openssl show it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let pairs: Vec<_> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn page(file: &Path, certificate: &CertificateDer<'_>, facts: &ParsedCertificate) -> String {
    let list = |names: Option<Vec<String>>| names.map_or_else(|| "any".to_owned(), |names| names.join(", "));
    let ranges = facts.permitted.ranges.as_ref();
    let ranges = ranges.map(|ranges| ranges.iter().map(ToString::to_string).collect());
    let mut page =
        "The gateway's local authority. It signs the certificates that the gateway shows; trust it once.\n\n"
            .to_owned();
    for (name, value) in [
        ("file", file.display().to_string()),
        ("subject", escaped(&facts.subject)),
        ("SHA-256", fingerprint(certificate)),
        ("valid", format!("{} to {}", format_date(facts.not_before), format_date(facts.not_after))),
        ("names", list(facts.permitted.domains.clone())),
        ("addresses", list(ranges)),
    ] {
        let _ = writeln!(page, "  {name:<10} {value}");
    }
    page
}

/// How each system and language learns to trust it.
fn advice(file: &Path, host: &str, port: &str) -> String {
    let path = shell_quoted(&file.display().to_string());
    ADVICE.replace("{file}", &path).replace("{host}", host).replace("{port}", port)
}

/// For a shell, where it needs that.
pub(super) fn shell_quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

const ADVICE: &str = "\
On another machine, fetch the certificate first (the key stays here), and compare the fingerprint:
  ssh {host} gateway ca --pem > gateway-ca.pem
  openssl x509 -in gateway-ca.pem -noout -fingerprint -sha256
and write that file in place of {file} below.

macOS (Safari, Chrome, curl, Swift, Go; iCloud does not carry it to other devices)
  sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}
iPhone, iPad
  send the file there (AirDrop), install the profile (Settings > General > VPN & Device Management), then switch it on
  in Settings > General > About > Certificate Trust Settings
Android
  Settings > Security > Encryption & credentials > Install a certificate > CA certificate
Windows, as administrator (Edge, Chrome, PowerShell)
  certutil -addstore -f Root gateway-ca.pem
Debian, Ubuntu
  sudo cp {file} /usr/local/share/ca-certificates/gateway-ca.crt && sudo update-ca-certificates
Fedora, RHEL
  sudo cp {file} /etc/pki/ca-trust/source/anchors/gateway-ca.pem && sudo update-ca-trust
Chrome and Chromium on Linux
  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n 'gateway local authority' -i {file}
Firefox
  Settings > Privacy & Security > View Certificates > Authorities > Import

curl
  curl --cacert {file} https://{host}:{port}/healthz
Python (openai, httpx, aiohttp; requests reads the second): SSL_CERT_FILE takes the place of all public authorities, so
put both into one file
  cat \"$(python3 -m certifi)\" {file} > roots.pem
  export SSL_CERT_FILE=$PWD/roots.pem REQUESTS_CA_BUNDLE=$PWD/roots.pem
  a program that talks to nobody but the gateway needs only: export SSL_CERT_FILE={file}
Node (openai, fetch): beside the public ones
  export NODE_EXTRA_CA_CERTS={file}
Java, as administrator
  keytool -importcert -noprompt -cacerts -storepass changeit -alias gateway-ca -file {file}
Open WebUI in Docker: roots.pem as for Python; from the same machine the gateway is https://host.docker.internal:{port}/v1
  docker run -v $PWD/roots.pem:/roots.pem:ro -e SSL_CERT_FILE=/roots.pem -e REQUESTS_CA_BUNDLE=/roots.pem \\
    --add-host host.docker.internal:host-gateway ... ghcr.io/open-webui/open-webui:main
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_the_file_and_the_gateway() {
        let text = advice(Path::new("/a b/it's/gateway-ca.pem"), "ai2.local", "8800");
        assert!(
            text.contains("-k /Library/Keychains/System.keychain '/a b/it'\\''s/gateway-ca.pem'"),
            "{text}"
        );
        assert!(text.contains("https://ai2.local:8800/healthz") && !text.contains('{'), "{text}");
        for word in ["macOS", "Windows", "Debian", "Fedora", "Python", "Node", "Java", "Open WebUI"] {
            assert!(text.contains(word), "{word}");
        }
        assert_eq!(
            shell_quoted("/var/lib/gateway/data/gateway-ca.pem"),
            "/var/lib/gateway/data/gateway-ca.pem"
        );
    }

    #[test]
    fn a_fingerprint_is_written_as_browsers_and_openssl_do() {
        let text = fingerprint(&CertificateDer::from(vec![1, 2, 3]));
        assert!(text.starts_with("03:90:58:C6:F2:C0:CB:49:"), "{text}");
        assert_eq!(text.len(), 32 * 3 - 1);
    }
}
