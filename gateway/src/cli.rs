//! The command line. Flags come from the one table of settings; secrets are no flags, since command lines are public.

use clap::{Arg, ArgAction, Command};
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
  gateway token new alice             make a token and print the line that configures it
  gateway token new phone --qr        the same, as a QR code for a phone's camera
  gateway ca                          show the authority that signs its certificates, and how programs trust it
  gateway status                      ask the gateway that runs here; exit code 0 if all backends are ready
  gateway verify --generate           check the gateway that runs here, line by line, with one picture
  gateway doctor                      what is wrong, here and behind, and what fixes it
  kill -HUP PID                       read the configuration again and reopen the log file
  curl http://127.0.0.1:8800/v1/images/generations -H 'Authorization: Bearer choose-one' \\
       -H 'Content-Type: application/json' -d '{\"prompt\":\"a red cat\",\"size\":\"512x512\"}'

Every setting is an environment variable, a line of the env file and, unless secret, a flag; the flag wins, then the
environment, then the file. Tokens are GATEWAY_BEARER_TOKEN and GATEWAY_BEARER_TOKENS, or in files that the same names
with _FILE behind them name. Exit codes: 0 done, 1 not ready or a check failed, 70 failed, 78 broken configuration.";

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
        .subcommand(token())
        .subcommand(ca())
        .subcommand(status())
        .subcommand(verify())
        .subcommand(doctor())
}

fn token() -> Command {
    let name = Arg::new("name").value_name("NAME").required(true).help("Who holds it; it is in the log");
    Command::new("token").about("Tokens").subcommand_required(true).arg_required_else_help(true).subcommand(
        Command::new("new")
            .about("Print a fresh token, and the line that configures it; changes nothing")
            .arg(name)
            .arg(flag("qr", "Also show it as a QR code, for a phone's camera")),
    )
}

fn ca() -> Command {
    Command::new("ca")
        .about("Show the local authority that signs the gateway's certificates, and how programs learn to trust it")
        .arg(flag("pem", "Print its certificate alone, for another machine"))
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn status() -> Command {
    Command::new("status")
        .about(
            "Show the backends of a running gateway; exit code 0 if all are ready, 1 if not, 70 if it cannot be reached",
        )
        .args(target())
        .arg(flag("json", "As JSON"))
}

fn verify() -> Command {
    Command::new("verify")
        .about("Check a running gateway, pass or fail line by line; exit code 0 or 1")
        .args(target())
        .arg(flag("generate", "Also have one picture made, fetched and hashed"))
        .arg(flag("overload", "Also ask for one picture more than there are places at once"))
}

fn doctor() -> Command {
    Command::new("doctor")
        .about(
            "Look at everything that keeps the gateway from serving, or will, and say what fixes it; changes nothing; exit code 0, or 1 if \
             anything fails",
        )
        .args(target())
        .arg(flag("json", "As JSON"))
        .arg(flag("generate", "Also have one picture made, fetched and hashed"))
        .arg(flag("overload", "Also ask for one picture more than there are places at once"))
}

/// The gateway that is asked.
fn target() -> [Arg; 3] {
    [
        ("url", "URL", "Where it is [default: as configured here]"),
        (
            "token",
            "TOKEN",
            "A token of its [default: the first that is configured here; a command line is public]",
        ),
        (
            "ca",
            "FILE",
            "PEM file of the one certificate or authority to trust [default: its own, as configured here]",
        ),
    ]
    .map(|(name, value, help)| Arg::new(name).long(name).value_name(value).help(help))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound_and_secrets_are_no_flags() {
        let mut command = super::command();
        command.clone().debug_assert();
        let help = command.render_long_help().to_string();
        assert!(help.contains("--gateway-port") && help.contains("--backends"), "{help}");
        assert!(!help.contains("--gateway-bearer-token "), "{help}");
        assert!(help.contains("--gateway-bearer-token-file"), "the path of a secret is none");
    }
}
