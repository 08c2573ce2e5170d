//! The command line. Flags come from the one table of settings.

use clap::{Arg, ArgAction, Command};

use crate::config::KEYS;

const ABOUT: &str = "Stands in front of InvokeAI or ComfyUI: readiness that is the GPU's live state, and the OpenAI Images API.";

const EXAMPLES: &str = "\
Examples:
  ada2-sidecar --engine builtin --gpu optional      try it without engine and GPU
  ada2-sidecar --engine-url http://127.0.0.1:9090   in front of InvokeAI
  ada2-sidecar --engine comfyui                     in front of ComfyUI on its usual port
  ada2-sidecar check-config                         print the effective configuration, or every problem in it
  ada2-sidecar check-config --live                  the same, and what the engine has against the graphs
  sudo ada2-sidecar doctor                          what is wrong, and the command that fixes it
  ada2-sidecar readyz                               why it is ready, or why not (curl 'ada2:7860/readyz?verbose')
  ada2-sidecar gpu --query memory.free,temperature.gpu --format csv,noheader,nounits
                                                    as nvidia-smi --query-gpu (curl 'ada2:7860/gpu?query=…&format=csv')
  ada2-sidecar reload                               read the file again, or say every problem in it
  ada2-sidecar check-port                           who holds the port, if it cannot be had
  ada2-sidecar ack                                  go on after a fatal error report of the driver
  curl http://127.0.0.1:7860/v1/images/generations -H 'Content-Type: application/json' \\
       -d '{\"model\":\"sd-xl-base-1.0\",\"prompt\":\"a red cat\",\"size\":\"512x512\"}'

Every setting is a flag, an environment variable and a key of the YAML file; the flag wins, then the environment.
Exit codes: 0 done, 1 not ready or not possible, 70 failed, 78 broken configuration.";

/// The command line's grammar.
pub fn command() -> Command {
    let config = Arg::new("config").long("config").value_name("FILE").global(true).help(
        "YAML file of settings [env: ADA2_CONFIG] [default: /etc/ada2-sidecar/config.yaml if it exists]",
    );
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON");
    let live = Arg::new("live").long("live").action(ArgAction::SetTrue);
    let live = live.help(
        "Also ask the engine about every graph, built-in ones and those of presets, and about its models",
    );
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new("ada2-sidecar")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .arg(config)
        .args(KEYS.iter().map(shared::service::settings::Key::arg))
        .subcommand(Command::new("serve").about("Serve (what happens without a subcommand, too)"))
        .subcommand(
            Command::new("check-config")
                .about("Check the configuration and print it; exit code 0 or 78")
                .arg(live),
        )
        .subcommand(
            Command::new("gpu")
                .about(
                    "Show the card: from the sidecar that runs here, else from the driver; exit code 0 or 1",
                )
                .arg(json.clone())
                .arg(option("query", "FIELDS", "Field names of nvidia-smi --query-gpu, comma-separated"))
                .arg(option("format", "FORMAT", "csv[,noheader][,nounits]").requires("query")),
        )
        .subcommand(
            Command::new("readyz")
                .about("Show the readiness with every check, in the same way; exit code 0 (ready) or 1")
                .arg(json.clone()),
        )
        .subcommand(
            Command::new("doctor")
                .about(
                    "Find out why pictures are not made, or soon will not be: a line for each thing with the command that \
                     fixes it; exit code 0, or 1 if something fails. Changes nothing; with sudo it sees more",
                )
                .arg(json)
                .arg(
                    Arg::new("generate")
                        .long("generate")
                        .action(ArgAction::SetTrue)
                        .help("Also have one small picture made, which takes GPU time"),
                ),
        )
        .subcommand(Command::new("reload").about(
            "Have the running service read its configuration again; exit code 0, or 1 with every problem. It is found by \
             --state-dir, else by the state_dir in --config FILE, else in /run/ada2-sidecar",
        ))
        .subcommand(
            Command::new("check-port")
                .about(
                    "Say who listens where the service would: at listen, which nothing else in a broken file hides, \
                     else where ada2-sidecar.socket does; exit code 0 (nobody) or 1",
                )
                .arg(option("socket-unit", "UNIT", "Take the addresses from this socket unit of systemd's")),
        )
        .subcommand(Command::new("ack").about(
            "Acknowledge what stays in force until somebody has seen to it (fatal XIDs, new memory errors)",
        ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_grammar_is_sound() {
        super::command().debug_assert();
    }
}
