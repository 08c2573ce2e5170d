//! The command line. Flags come from the one table of settings.

use clap::{Arg, Command};

use crate::config::KEYS;

const ABOUT: &str =
    "Stands in front of InvokeAI: readiness that is the GPU's live state, and the OpenAI Images API.";

const EXAMPLES: &str = "\
Examples:
  ada2-sidecar --engine builtin --gpu optional      try it without engine and GPU
  ada2-sidecar --engine-url http://127.0.0.1:9090   in front of InvokeAI
  ada2-sidecar check-config                         print the effective configuration, or every problem in it
  curl http://127.0.0.1:7860/readyz?verbose         why it is ready, or why not
  curl http://127.0.0.1:7860/v1/images/generations -H 'Content-Type: application/json' \\
       -d '{\"model\":\"sd-xl-base-1.0\",\"prompt\":\"a red cat\",\"size\":\"512x512\"}'

Every setting is a flag, an environment variable and a key of the YAML file; the flag wins, then the environment.
Exit codes: 0 done, 70 failed, 78 broken configuration.";

/// The command line's grammar.
pub fn command() -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").global(true).help(
        "YAML file of settings [env: ADA2_CONFIG] [default: /etc/ada2-sidecar/config.yaml if it exists]",
    );
    Command::new("ada2-sidecar")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .arg(config)
        .args(KEYS.iter().map(shared::service::settings::Key::arg))
        .subcommand(Command::new("serve").about("Serve (what happens without a subcommand, too)"))
        .subcommand(
            Command::new("check-config").about("Check the configuration and print it; exit code 0 or 78"),
        )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound() {
        super::command().debug_assert();
    }
}
