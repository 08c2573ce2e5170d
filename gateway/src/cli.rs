//! The command line. Flags come from the one table of settings; secrets are no flags, since command lines are public.

use clap::{Arg, Command};
use shared::service::settings::Key;

use crate::config::KEYS;

const ABOUT: &str = "One door to all backends: checks tokens, admits only what a ready backend has room for, sends \
                     pictures to the one GPU class, and keeps every picture it answers.";

const EXAMPLES: &str = "\
Examples:
  GATEWAY_BEARER_TOKEN=choose-one gateway --gateway-tls off --ui-image-dir ./pictures
                                      plain HTTP on 127.0.0.1:8800
  gateway --gateway-auth off --gateway-tls off --images-backend mock --ui-image-dir ./pictures
                                      try it without token, GPU and backend (loopback only)
  gateway check-config                print the effective configuration, or every problem in it
  curl http://127.0.0.1:8800/v1/images/generations -H 'Authorization: Bearer choose-one' \\
       -H 'Content-Type: application/json' -d '{\"prompt\":\"a red cat\",\"size\":\"512x512\"}'
  curl http://127.0.0.1:8800/v1/gateway/status -H 'Authorization: Bearer choose-one'

Every setting is an environment variable, a line of the env file and, unless secret, a flag; the flag wins, then the
environment, then the file. Tokens are GATEWAY_BEARER_TOKEN and GATEWAY_BEARER_TOKENS.
Exit codes: 0 done, 70 failed, 78 broken configuration.";

/// The command line's grammar.
pub fn command() -> Command {
    let env_file = Arg::new("env-file").long("env-file").value_name("FILE").global(true).help(
        "Env file of settings, in the syntax of python-dotenv [default: /var/lib/gateway/app/.env if it exists]",
    );
    Command::new("gateway")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .arg(env_file)
        .args(KEYS.iter().filter(|key| !key.secret).map(Key::arg))
        .subcommand(Command::new("serve").about("Serve (what happens without a subcommand, too)"))
        .subcommand(
            Command::new("check-config").about("Check the configuration and print it; exit code 0 or 78"),
        )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound_and_secrets_are_no_flags() {
        let mut command = super::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        assert!(help.contains("--gateway-port") && help.contains("--backends"), "{help}");
        assert!(!help.contains("--gateway-bearer"), "{help}");
    }
}
