//! `gateway ca`: the local authority's certificate, and how to make clients trust it. Needs no key and changes nothing: the
//! gateway creates the authority when it starts.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::ArgMatches;
use rustls::pki_types::CertificateDer;
use service::text::{printable, shell_quoted};
use sha2::{Digest, Sha256};

use super::{CommandError, Environment};
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
            "the gateway serves the certificate that GATEWAY_TLS_CERT_PATH names ({}): clients must trust whoever signed it",
            printable(&given)
        )));
    }
    let (certificate, facts) = read_authority(&own.data_dir, &own.errors)?;
    if arguments.get_flag("pem") {
        write!(io::stdout(), "{}", to_pem(&certificate))?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = std::path::absolute(own.data_dir.join(local_ca::CA_CERT_FILE))?;
    let host = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let host = if host.is_empty() { "localhost".to_owned() } else { printable(&host) };
    write!(io::stdout(), "{}\n{}", page(&file, &certificate, &facts), advice(&file, &host, &own.port))?;
    Ok(ExitCode::SUCCESS)
}

fn read_authority(
    dir: &Path,
    errors: &[String],
) -> Result<(CertificateDer<'static>, ParsedCertificate), CommandError> {
    let file = dir.join(local_ca::CA_CERT_FILE);
    let hint = if errors.is_empty() {
        String::new()
    } else {
        format!("\n({}; without it, GATEWAY_DATA_DIR is assumed to be {})", errors.join("; "), dir.display())
    };
    match local_ca::exists(dir) {
        Ok(false) => Err(CommandError::Message(format!(
            "{}: there is no authority yet: the gateway creates it when it starts with TLS and without your own certificate{hint}",
            file.display()
        ))),
        Err(error) => Err(CommandError::Message(format!(
            "{}: {error}: run it as the gateway's user, for example `sudo -u _gateway gateway ca`{hint}",
            file.display()
        ))),
        Ok(true) => local_ca::read_certificate(dir).map_err(|why| {
            CommandError::Message(format!(
                "{}: expected the local authority's certificate: {why}{hint}",
                file.display()
            ))
        }),
    }
}

/// As browsers and openssl print it.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let pairs: Vec<_> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

fn page(file: &Path, certificate: &CertificateDer<'_>, facts: &ParsedCertificate) -> String {
    let list = |names: Option<Vec<String>>| names.map_or_else(|| "any".to_owned(), |names| names.join(", "));
    let ranges = facts.permitted.ranges.as_ref();
    let ranges = ranges.map(|ranges| ranges.iter().map(ToString::to_string).collect());
    let mut page =
        "The gateway's local certificate authority. It signs the gateway's certificates, so clients trust it once.\n\n"
            .to_owned();
    for (name, value) in [
        ("file", file.display().to_string()),
        ("subject", printable(&facts.subject)),
        ("SHA-256", fingerprint(certificate)),
        ("valid", format!("{} to {}", format_date(facts.not_before), format_date(facts.not_after))),
        ("names", list(facts.permitted.domains.clone())),
        ("addresses", list(ranges)),
    ] {
        let _ = writeln!(page, "  {name:<10} {value}");
    }
    page
}

/// How to make each system and language trust it.
fn advice(file: &Path, host: &str, port: &str) -> String {
    let file = file.display().to_string();
    ADVICE.replace("{file}", &shell_quoted(&file)).replace("{host}", host).replace("{port}", port)
}

const ADVICE: &str = "\
On another machine, fetch the certificate first (the key stays here), and compare the fingerprint:
  ssh {host} gateway ca --pem > gateway-ca.pem
  openssl x509 -in gateway-ca.pem -noout -fingerprint -sha256
and write that file in place of {file} below.

macOS (Safari, Chrome, curl, Swift, Go; iCloud does not copy it to other devices)
  sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {file}
iPhone, iPad
  send the file to the device (AirDrop), install the profile (Settings > General > VPN & Device Management), then enable
  it in Settings > General > About > Certificate Trust Settings
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
Python (openai, httpx, aiohttp; requests reads the second variable): SSL_CERT_FILE replaces all public authorities, so put
both into one file
  cat \"$(python3 -m certifi)\" {file} > roots.pem
  export SSL_CERT_FILE=$PWD/roots.pem REQUESTS_CA_BUNDLE=$PWD/roots.pem
  a program that talks only to the gateway needs only: export SSL_CERT_FILE={file}
Node (openai, fetch): in addition to the public authorities
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
    }

    #[test]
    fn the_fingerprint_is_formatted_as_by_browsers_and_openssl() {
        let text = fingerprint(&CertificateDer::from(vec![1, 2, 3]));
        assert!(text.starts_with("03:90:58:C6:F2:C0:CB:49:"), "{text}");
        assert_eq!(text.len(), 32 * 3 - 1);
    }
}
