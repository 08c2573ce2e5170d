//! `gateway token new NAME`: a fresh secret, shown once, and the line that makes it one of the gateway's; with `--qr` also
//! for a phone's camera. Needs no configuration and changes nothing.

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::ArgMatches;
use qrcode::{QrCode, render::unicode::Dense1x2};

use super::{CommandError, Environment};
use crate::config::is_token_name;

/// 256 bits.
const SECRET_BYTES: usize = 32;
/// Tells what it is where it turns up, to people and to scanners for leaked secrets.
const PREFIX: &str = "gw_";

pub(super) fn run(arguments: &ArgMatches, environment: Environment) -> Result<ExitCode, CommandError> {
    let Some((_, new)) = arguments.subcommand() else { return Ok(ExitCode::FAILURE) };
    let name = new.get_one::<String>("name").map(String::as_str).unwrap_or_default();
    if !is_token_name(name) {
        let escaped = name.escape_debug().take(64).collect::<String>();
        return Err(CommandError::Message(format!(
            "{escaped:?} cannot name a token: 1 to 32 of a-z, 0-9, `_` and `-`"
        )));
    }
    let secret = generate_secret()?;
    write!(io::stdout(), "{}", told(name, &secret))?;
    let terminal = io::stdout().is_terminal();
    if new.get_flag("qr") {
        let colours = terminal && environment("NO_COLOR").is_none();
        write!(
            io::stdout(),
            "\nFor a phone's camera (it holds the token and nothing else):\n\n{}\n",
            qr_code(&secret, colours)?
        )?;
    } else if terminal {
        // Not into what may be piped on.
        writeln!(io::stderr(), "\nFor a phone: --qr shows it as a QR code")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Dark on light with the margin that cameras need: by colours of its own where it may, else for a dark terminal.
fn qr_code(secret: &str, colours: bool) -> Result<String, CommandError> {
    let code = QrCode::new(secret)
        .map_err(|error| CommandError::Message(format!("no QR code holds it: {error}")))?;
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

fn told(name: &str, secret: &str) -> String {
    format!(
        "The token of {name}, shown this once:\n\n  {secret}\n\nThe line of the env file; further tokens follow \
         behind commas:\n\n  GATEWAY_BEARER_TOKENS={name}={secret}\n\n`;max=1` behind it bounds its requests at once. Then reload: sudo pkill -HUP -x gateway\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_long_url_safe_and_never_the_same() {
        let made: BTreeSet<_> = (0..100).map(|_| generate_secret().unwrap()).collect();
        assert_eq!(made.len(), 100);
        for token in made {
            assert_eq!(token.len(), PREFIX.len() + 43);
            assert!(
                token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
                "{token}"
            );
        }
    }

    /// Dark modules of a code, row by row, as a camera sees them.
    fn modules(text: &str, is_dark: impl Fn(bool) -> bool) -> Vec<Vec<bool>> {
        let halves = |line: &str| -> [Vec<bool>; 2] {
            let of = |both: [char; 2]| line.chars().map(|letter| is_dark(both.contains(&letter))).collect();
            [of(['\u{2588}', '\u{2580}']), of(['\u{2588}', '\u{2584}'])]
        };
        text.lines().flat_map(halves).collect()
    }

    #[test]
    fn a_code_is_dark_on_light_with_a_margin_of_four_whatever_the_terminal() {
        let secret = generate_secret().unwrap();
        let expected = QrCode::new(&secret).unwrap();
        let (width, colours) = (expected.width(), expected.to_colors());
        let coloured = qr_code(&secret, true).unwrap();
        assert!(
            coloured
                .lines()
                .all(|line| line.starts_with("\x1b[38;5;16;48;5;231m") && line.ends_with("\x1b[0m"))
        );
        let coloured: String = coloured.replace("\x1b[38;5;16;48;5;231m", "").replace("\x1b[0m", "");
        let plain = qr_code(&secret, false).unwrap();
        for seen in [modules(&coloured, |ink| ink), modules(&plain, |ink| !ink)] {
            for (y, row) in seen.iter().take(width + 8).enumerate() {
                assert_eq!(row.len(), width + 8);
                for (x, dark) in row.iter().enumerate() {
                    let inside = (4..width + 4).contains(&x) && (4..width + 4).contains(&y);
                    let wanted = inside && colours[(y - 4) * width + x - 4] == qrcode::Color::Dark;
                    assert_eq!(*dark, wanted, "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn the_line_can_be_pasted() {
        let text = told("alice", "gw_x");
        assert!(text.lines().any(|line| line.trim() == "GATEWAY_BEARER_TOKENS=alice=gw_x"), "{text}");
    }
}
