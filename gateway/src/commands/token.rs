//! `gateway token new NAME`: prints a new token, the line that configures it, and the page's address with it, as a QR code, too.
//! Needs no configuration and changes nothing.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use qrcode::{QrCode, render::unicode::Dense1x2};

use service::text::{prefix, printable};

use super::{CommandError, Environment};
use crate::{
    config::{self, CertificateSettings, is_token_name},
    tls::host_names,
};

/// 256 bits.
const SECRET_BYTES: usize = 32;
/// Identifies a leaked token, to people and to secret scanners.
const PREFIX: &str = "gw_";
const PHONE_CANNOT: &str = "\nOnly this machine reaches the gateway: for phones and others set GATEWAY_HOST=0.0.0.0 in the env file, then make a \
     token again for its QR code.\n";

pub(super) fn run(
    matches: &ArgMatches,
    arguments: &ArgMatches,
    environment: Environment,
) -> Result<ExitCode, CommandError> {
    let Some((_, new)) = arguments.subcommand() else { return Ok(ExitCode::FAILURE) };
    let name = new.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    if !is_token_name(name) {
        let name = printable(prefix(name, 64));
        return Err(CommandError::Message(format!(
            "\"{name}\" cannot name a token: 1 to 32 characters of a-z, 0-9, `_` and `-`"
        )));
    }
    let secret = generate_secret()?;
    let settings = config::certificate_settings(matches, &environment);
    let address = page_address(&settings, &secret);
    write!(io::stdout(), "{}", instructions(name, &secret, &address))?;
    let terminal = io::stdout().is_terminal();
    if !is_reachable_from_phone(&settings) {
        io::stdout().write_all(PHONE_CANNOT.as_bytes())?;
    } else if terminal || new.get_flag("qr") {
        let colours = terminal && environment("NO_COLOR").is_none();
        write!(io::stdout(), "\nThe same for a phone's camera:\n\n{}\n", qr_code(&address, colours)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The page's address with the token behind `#`, which browsers send to nobody.
fn page_address(settings: &CertificateSettings, secret: &str) -> String {
    let scheme = if settings.tls_enabled { "https" } else { "http" };
    let base = settings.public_base_url.as_deref().map_or_else(
        || {
            let host = if settings.is_loopback { "localhost".to_owned() } else { host_names::local_name() };
            format!("{scheme}://{host}:{}", settings.port)
        },
        |base| base.trim_end_matches('/').to_owned(),
    );
    format!("{base}/ui#token={secret}")
}

/// Behind a public address there is a proxy, whatever the gateway listens on.
fn is_reachable_from_phone(settings: &CertificateSettings) -> bool {
    !settings.is_loopback || settings.public_base_url.is_some()
}

/// Dark on light with the margin that cameras need: with explicit colours if possible, else for a dark terminal.
fn qr_code(text: &str, colours: bool) -> Result<String, CommandError> {
    let code = QrCode::new(text)
        .map_err(|error| CommandError::Message(format!("it does not fit into a QR code: {error}")))?;
    let (dark, light) =
        if colours { (Dense1x2::Dark, Dense1x2::Light) } else { (Dense1x2::Light, Dense1x2::Dark) };
    let text = code.render::<Dense1x2>().dark_color(dark).light_color(light).build();
    let line = |line: &str| {
        if colours { format!("\x1b[38;5;16;48;5;231m{line}\x1b[0m\n") } else { format!("{line}\n") }
    };
    Ok(text.lines().map(line).collect())
}

fn generate_secret() -> Result<String, CommandError> {
    let mut bytes = [0; SECRET_BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random
        .fill(&mut bytes)
        .map_err(|_| CommandError::Message("the system has no random numbers".to_owned()))?;
    Ok(format!("{PREFIX}{}", base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)))
}

fn instructions(name: &str, secret: &str, address: &str) -> String {
    format!(
        "The token of {name}, shown only once:\n\n  {secret}\n\nAdd this line to the env file; separate several tokens with \
         commas:\n\n  GATEWAY_BEARER_TOKENS={name}={secret}\n\nAppend `;max=1` to limit the token to one request at a time. \
         Then reload: sudo pkill -HUP -x gateway\n\n\
         From then on this address opens the page, signed in:\n\n  {}\n",
        printable(address)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_long_url_safe_and_unique() {
        let tokens: BTreeSet<_> = (0..100).map(|_| generate_secret().unwrap()).collect();
        assert_eq!(tokens.len(), 100);
        for token in tokens {
            assert_eq!(token.len(), PREFIX.len() + 43);
            assert!(
                token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
                "{token}"
            );
        }
    }

    /// The dark modules of a code, row by row.
    fn modules(text: &str, is_dark: impl Fn(bool) -> bool) -> Vec<Vec<bool>> {
        let halves = |line: &str| -> [Vec<bool>; 2] {
            let of = |both: [char; 2]| line.chars().map(|ch| is_dark(both.contains(&ch))).collect();
            [of(['\u{2588}', '\u{2580}']), of(['\u{2588}', '\u{2584}'])]
        };
        text.lines().flat_map(halves).collect()
    }

    #[test]
    fn a_qr_code_is_dark_on_light_with_a_margin_of_four_on_any_terminal() {
        let secret = generate_secret().unwrap();
        let code = QrCode::new(&secret).unwrap();
        let (width, colours) = (code.width(), code.to_colors());
        let coloured = qr_code(&secret, true).unwrap();
        assert!(
            coloured
                .lines()
                .all(|line| line.starts_with("\x1b[38;5;16;48;5;231m") && line.ends_with("\x1b[0m"))
        );
        let coloured: String = coloured.replace("\x1b[38;5;16;48;5;231m", "").replace("\x1b[0m", "");
        let plain = qr_code(&secret, false).unwrap();
        for code_modules in [modules(&coloured, |ink| ink), modules(&plain, |ink| !ink)] {
            for (y, row) in code_modules.iter().take(width + 8).enumerate() {
                assert_eq!(row.len(), width + 8);
                for (x, dark) in row.iter().enumerate() {
                    let inside = (4..width + 4).contains(&x) && (4..width + 4).contains(&y);
                    let expected = inside && colours[(y - 4) * width + x - 4] == qrcode::Color::Dark;
                    assert_eq!(*dark, expected, "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn the_address_is_the_public_one_else_this_hosts() {
        let settings = |tls_enabled, is_loopback, public: Option<&str>| CertificateSettings {
            data_dir: "/nowhere".into(),
            tls_enabled,
            cert_path: None,
            is_loopback,
            port: "8800".to_owned(),
            public_base_url: public.map(str::to_owned),
            errors: Vec::new(),
        };
        let address = |tls, public| page_address(&settings(tls, false, public), "gw_x");
        let host = host_names::local_name();
        assert!(host == "localhost" || host.rsplit('.').next() == Some("local"), "{host}");
        assert_eq!(address(true, None), format!("https://{host}:8800/ui#token=gw_x"));
        assert_eq!(address(false, None), format!("http://{host}:8800/ui#token=gw_x"));
        assert_eq!(address(false, Some("https://ai2.example.org/")), "https://ai2.example.org/ui#token=gw_x");
        let here = settings(true, true, None);
        assert_eq!(page_address(&here, "gw_x"), "https://localhost:8800/ui#token=gw_x");
        assert!(!is_reachable_from_phone(&here));
        assert!(is_reachable_from_phone(&settings(true, true, Some("https://ai2.example.org"))));
    }

    #[test]
    fn the_line_can_be_pasted() {
        let text = instructions("alice", "gw_x", "https://ai2.local:8800/ui#token=gw_x");
        assert!(text.lines().any(|line| line.trim() == "https://ai2.local:8800/ui#token=gw_x"), "{text}");
        assert!(text.lines().any(|line| line.trim() == "GATEWAY_BEARER_TOKENS=alice=gw_x"), "{text}");
    }
}
