//! The command line. Flags come from the one table of settings; secrets are no flags, since command lines are public.

use clap::{Arg, ArgAction, Command};
use service::command_line::{HelpEntry, Program};

use crate::{config::KEYS, version};

/// The text of `--help` and of the man page.
pub const PROGRAM: Program = Program {
    name: "gateway",
    version: version::WITH_COMMIT,
    date: version::DATE,
    about: "One HTTPS entry point to all AI backends: tokens, readiness, limits, stored images",
    description: &[
        "gateway checks the bearer token of every request, picks the one backend that serves it, admits it only while that \
         backend is ready and has a free slot, and forwards it once: there is no fallback, no retry and no queue. Image \
         requests go to one backend class, an ada2-sidecar; chat and embeddings go by model name.",
        "Every image is stored and served under /ui/images. The web page is at /ui, the state of all backends at \
         /v1/gateway/status.",
        "Without a certificate of your own, the gateway creates a local certificate authority once and signs its \
         certificates with it; gateway ca shows how programs trust it.",
    ],
    keys: KEYS,
    config_arg,
    commands,
    precedence: "Every setting is an environment variable, a line of the env file and, unless it is a secret, a flag. The flag \
                 wins, then the environment, then the file. Sizes: 512MiB, 20GiB. Durations: 500ms, 30s.",
    examples: EXAMPLES,
    more_examples: MORE_EXAMPLES,
    exit_codes: &[
        ("0", "done"),
        ("1", "not ready or a check failed"),
        ("70", "failed"),
        ("78", "broken configuration or arguments"),
    ],
    files: &[
        ("/var/lib/gateway/app/.env", "The settings, read if --env-file names no other file"),
        ("/var/lib/gateway/app/backends_config.yaml", "The backends, read from beside the env file"),
        (
            "/var/lib/gateway/data",
            "The certificate authority, its certificates and the backends' model lists",
        ),
        ("/var/lib/gateway/data/ui_images", "The stored images, each with its settings beside it"),
        ("/Library/LaunchDaemons/com.ai.gateway.plist", "The launchd job"),
    ],
    environment: &[
        ("GATEWAY_BEARER_TOKEN, GATEWAY_BEARER_TOKENS", "The tokens; see \"Control access\""),
        ("NO_COLOR", "If set, status prints no colours"),
    ],
    see_also: &[
        ("launchctl(1), newsyslog.conf(5)", "The service and its log on macOS"),
        ("ada2-sidecar(8)", "The image backend"),
    ],
};

const EXAMPLES: &[HelpEntry] = &[
    (
        "gateway --gateway-auth off --gateway-tls off --images-backend mock --ui-image-dir ./images",
        "try it without token, GPU and backend, on http://127.0.0.1:8800",
    ),
    ("gateway token new alice", "create a token and print the line that configures it"),
    ("gateway check-config", "print the settings in force, or every problem"),
    ("gateway status", "show whether all backends are ready"),
    ("gateway verify --generate", "check the running gateway, with one image"),
    ("gateway doctor", "show problems, and how to fix them"),
];

const MORE_EXAMPLES: &[HelpEntry] = &[
    ("GATEWAY_BEARER_TOKEN=choose-one gateway --gateway-tls off", "plain HTTP on 127.0.0.1:8800"),
    ("gateway token new phone --qr", "a token, and a QR code that opens the page with it"),
    ("gateway ca", "show the certificate authority, and how programs trust it"),
    ("kill -HUP PID", "read the configuration again and reopen the log file"),
    (
        "curl http://127.0.0.1:8800/v1/images/generations -H 'Authorization: Bearer choose-one' \\\n      \
         -H 'Content-Type: application/json' -d '{\"prompt\":\"a red cat\"}'",
        "request an image",
    ),
];

/// The command line's grammar.
pub fn command() -> Command {
    PROGRAM.command()
}

fn config_arg() -> Arg {
    Arg::new("env-file").long("env-file").value_name("FILE").help(
        "Env file of settings, in python-dotenv syntax\n[default: /var/lib/gateway/app/.env if it exists]",
    )
}

fn commands() -> Vec<Command> {
    vec![serve(), check_config(), token(), ca(), status(), verify(), doctor()]
}

fn serve() -> Command {
    Command::new("serve").about("Run the service (the default without a command)")
}

fn check_config() -> Command {
    Command::new("check-config").about("Check the configuration and print it").after_help(
        "Exits with 0; with 78 if the configuration is broken, and prints each problem on its own line.",
    )
}

fn token() -> Command {
    let name = Arg::new("name").value_name("NAME").required(true);
    Command::new("token")
        .about("Create tokens")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("new")
                .about("Create a token and print the line that configures it; changes nothing")
                .arg(name.help("Name of the token's holder, which appears in the log and with the images"))
                .arg(flag("qr", "Print the QR code of the page's address even if the output is no terminal")),
        )
}

fn ca() -> Command {
    Command::new("ca")
        .about("Show the gateway's certificate authority, and how programs trust it")
        .arg(flag("pem", "Print its certificate alone, to copy to another machine"))
}

fn status() -> Command {
    Command::new("status")
        .about("Show the backends of a running gateway")
        .args(target())
        .arg(flag("json", "Print JSON"))
        .after_help("Exits with 0 if all backends are ready, 1 if not, 70 if the gateway cannot be reached.")
}

fn verify() -> Command {
    Command::new("verify")
        .about("Check a running gateway, a line for each check")
        .args(target())
        .arg(flag("generate", "Also request one image, fetch it and check its hash"))
        .arg(flag("overload", "Also send one more image request than there are slots, all at once"))
        .after_help("Exits with 0 if every check passes, else 1.")
}

fn doctor() -> Command {
    Command::new("doctor")
        .about("Show problems on this host and its backends, and how to fix them")
        .args(target())
        .arg(flag("json", "Print JSON"))
        .arg(flag("generate", "Also request one image, fetch it and check its hash"))
        .arg(flag("overload", "Also send one more image request than there are slots, all at once"))
        .after_help("Changes nothing. Exits with 0, or with 1 if something fails.")
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// The running gateway to query.
fn target() -> [Arg; 3] {
    [
        ("url", "URL", "Address of the gateway [default: as configured here]"),
        (
            "token",
            "TOKEN",
            "Bearer token; command lines are public [default: the first that is configured here]",
        ),
        (
            "ca",
            "FILE",
            "Certificate or authority to trust, PEM [default: the gateway's own, as configured here]",
        ),
    ]
    .map(|(name, value, help)| Arg::new(name).long(name).value_name(value).help(help))
}

#[cfg(test)]
mod tests;
