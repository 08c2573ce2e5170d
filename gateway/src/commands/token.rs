//! `gateway token new NAME`: a fresh secret, shown once, and the line that makes it one of the gateway's. Needs no
//! configuration and changes nothing.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::ArgMatches;

use super::Trouble;
use crate::config::is_token_name;

/// 256 bits.
const BYTES: usize = 32;
/// Tells what it is where it turns up, to people and to scanners for leaked secrets.
const PREFIX: &str = "gw_";

pub(super) fn run(arguments: &ArgMatches) -> Result<ExitCode, Trouble> {
    let name = arguments.subcommand().and_then(|(_, new)| new.get_one::<String>("name"));
    let name = name.map(String::as_str).unwrap_or_default();
    if !is_token_name(name) {
        let shown = name.escape_debug().take(64).collect::<String>();
        return Err(Trouble::Words(format!(
            "{shown:?} cannot name a token: 1 to 32 of a-z, 0-9, `_` and `-`"
        )));
    }
    write!(io::stdout(), "{}", told(name, &fresh()?))?;
    Ok(ExitCode::SUCCESS)
}

fn fresh() -> Result<String, Trouble> {
    let mut bytes = [0; BYTES];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| Trouble::Words("the system has no random numbers".to_owned()))?;
    Ok(format!("{PREFIX}{}", base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes)))
}

fn told(name: &str, secret: &str) -> String {
    format!(
        "The token of {name}, shown this once:\n\n  {secret}\n\nThe line of the env file; further tokens follow \
         behind commas:\n\n  GATEWAY_BEARER_TOKENS={name}={secret}\n\nThen reload: sudo pkill -HUP -x gateway\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_long_url_safe_and_never_the_same() {
        let made: BTreeSet<_> = (0..100).map(|_| fresh().unwrap()).collect();
        assert_eq!(made.len(), 100);
        for token in made {
            assert_eq!(token.len(), PREFIX.len() + 43);
            assert!(
                token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)),
                "{token}"
            );
        }
    }

    #[test]
    fn the_line_can_be_pasted() {
        let text = told("alice", "gw_x");
        assert!(text.lines().any(|line| line.trim() == "GATEWAY_BEARER_TOKENS=alice=gw_x"), "{text}");
    }
}
