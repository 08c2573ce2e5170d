//! The command line. Flags come from the one table of settings.

use clap::{Arg, ArgAction, Command};
use service::command_line::{HelpEntry, Program};

use crate::{config::KEYS, version};

/// The program's help page.
pub const PROGRAM: Program = Program {
    name: "ada2-sidecar",
    version: version::WITH_COMMIT,
    date: version::DATE,
    about: "GPU-aware front end of InvokeAI or ComfyUI: live readiness and the OpenAI Images API",
    description: &[
        "ada2-sidecar runs on the host with the GPU, in front of InvokeAI or ComfyUI. It reads the GPU through NVML and \
         asks the engine, and reports in /healthz, /readyz, /gpu and /metrics whether it can serve, and why not. It \
         serves the OpenAI Images API (/v1/images/generations, /v1/images/edits, /v1/models) through the engine's own \
         API, and passes every other request, WebSockets included, to the engine.",
        "If a client disconnects, its job is cancelled in the engine. Requests are refused at once, and never queued, \
         while the GPU or the engine is not ready (503) or every slot is taken (429).",
    ],
    keys: KEYS,
    config_arg,
    commands,
    precedence: "Settings are flags (--gpu-id), environment variables (ADA2_GPU_ID) and keys of the YAML file (gpu_id). \
                 The flag wins, then the environment, then the file. Sizes: 8GiB. Durations: 500ms, 30s.",
    examples: EXAMPLES,
    more_examples: MORE_EXAMPLES,
    exit_codes: &[
        ("0", "done"),
        ("1", "not ready or failed"),
        ("70", "service failed"),
        ("78", "broken configuration or arguments"),
    ],
    files: &[
        ("/etc/ada2-sidecar/config.yaml", "The settings, read if --config names no other file"),
        ("/var/lib/ada2-sidecar", "State: the instance's identity and latched errors"),
        ("/run/ada2-sidecar", "The administration socket, which reload and ack use"),
    ],
    environment: &[
        ("ADA2_CONFIG", "The YAML file of settings; --config wins"),
        ("STATE_DIRECTORY", "The state directory, set by systemd; wins over state_dir"),
        ("RUNTIME_DIRECTORY", "The directory of the administration socket, set by systemd"),
        ("CREDENTIALS_DIRECTORY", "Set by systemd; a credential named token is read as the token"),
    ],
    see_also: &[
        ("systemctl(1), journalctl(1), nvidia-smi(1)", "The service's state and log, and the GPU"),
        (
            "/usr/share/doc/ada2-sidecar/",
            "README, GUIDE, REFERENCE, a complete example of the configuration file, and further guides",
        ),
    ],
};

const EXAMPLES: &[HelpEntry] = &[
    ("ada2-sidecar --engine builtin --gpu optional", "try it without engine and GPU"),
    ("ada2-sidecar --engine-url http://127.0.0.1:9090", "in front of InvokeAI"),
    ("ada2-sidecar --engine comfyui", "in front of ComfyUI on its usual port"),
    ("sudo ada2-sidecar move-in", "take nginx's place on the port"),
    ("sudo ada2-sidecar doctor", "what is wrong, and what fixes it"),
    ("ada2-sidecar readyz", "why it is ready, or why not"),
];

const MORE_EXAMPLES: &[HelpEntry] = &[
    ("curl 'http://ada2:7860/readyz?verbose'", "the same over the network"),
    ("ada2-sidecar check-config", "print the settings in force, or every problem"),
    ("ada2-sidecar check-config --live", "also check the workflows with the engine"),
    (
        "ada2-sidecar gpu --query memory.free,temperature.gpu --format csv,noheader",
        "like nvidia-smi --query-gpu",
    ),
    ("sudo ada2-sidecar reload", "apply a changed configuration file"),
    ("ada2-sidecar template propose mine.json > mine.yaml", "which inputs of a workflow take what"),
    ("sudo ada2-sidecar check-port", "which process holds the port"),
    ("sudo ada2-sidecar ack", "acknowledge a fatal error of the GPU"),
    (
        "curl http://ada2:7860/v1/images/generations -H 'Content-Type: application/json' \\\n      \
         -d '{\"prompt\":\"a red cat\",\"size\":\"512x512\"}'",
        "request an image",
    ),
];

/// The command line's grammar.
pub fn command() -> Command {
    PROGRAM.command()
}

fn config_arg() -> Arg {
    Arg::new("config").long("config").value_name("FILE").help(
        "YAML file of settings [env: ADA2_CONFIG]\n[default: /etc/ada2-sidecar/config.yaml if it exists]",
    )
}

/// One function each.
fn commands() -> Vec<Command> {
    vec![
        serve(),
        check_config(),
        move_in(),
        move_out(),
        doctor(),
        gpu(),
        readyz(),
        reload(),
        check_port(),
        ack(),
        template(),
    ]
}

fn serve() -> Command {
    Command::new("serve").about("Run the service (the default without a command)")
}

fn check_config() -> Command {
    Command::new("check-config")
        .about("Check the configuration and print it")
        .arg(flag("live", "Also check every workflow and model against the running engine"))
        .after_help("Exits with 0; if the configuration is broken, with 78 and each problem on its own line.")
}

fn move_in() -> Command {
    let wait = Arg::new("wait").long("wait").value_name("SECONDS").default_value("60");
    Command::new("move-in")
        .about("Take nginx's place on the port; if a step fails, everything is undone")
        .arg(flag("yes", "Ask nothing; without --allow-from, private addresses have access"))
        .arg(
            wait.value_parser(clap::value_parser!(u64).range(1..=3600))
                .help("Time the sidecar may take to be ready; more if it loads a model first (warm_up)"),
        )
        .args([hidden_flag("worker"), hidden_flag("recover"), hidden_flag("at-boot")])
        .after_help(
            "Finds the engine and the GPU, writes the settings, moves nginx's site aside, starts the service\n\
             and requests an image. Also takes --allow-from, --engine, --engine-url, --engine-unit,\n\
             --engine-output-dir, --gpu and --gpu-id. Exits with 0 or 1.",
        )
}

fn move_out() -> Command {
    Command::new("move-out")
        .about("Give the port back to nginx as it was; settings stay")
        .arg(flag("yes", "Ask nothing"))
        .arg(hidden_flag("worker"))
        .after_help("Exits with 0 or 1.")
}

/// For systemd, which continues or undoes a move.
fn hidden_flag(name: &'static str) -> Arg {
    flag(name, "Used by systemd").hide(true)
}

fn doctor() -> Command {
    Command::new("doctor")
        .about("Show what is wrong on this host, and the command that fixes it")
        .arg(json())
        .arg(flag("generate", "Also request one small image, which takes GPU time"))
        .after_help("Changes nothing; with sudo it sees more. Exits with 0, or with 1 if something fails.")
}

fn gpu() -> Command {
    Command::new("gpu")
        .about("Show the GPU, like nvidia-smi")
        .arg(json())
        .arg(option("query", "FIELDS", "Fields as in nvidia-smi --query-gpu, comma-separated"))
        .arg(option("format", "FORMAT", "csv[,noheader][,nounits]").requires("query"))
        .after_help(
            "Asks the service that runs on this host; if none does, reads the driver itself. Exits with 0 if ready, else 1.",
        )
}

fn readyz() -> Command {
    Command::new("readyz").about("Show whether the service is ready, with every check").arg(json()).after_help(
        "Asks the service that runs on this host. Exits with 0 if it is ready, else 1. If none runs, looks at GPU and host \
         itself and exits with 1.",
    )
}

fn reload() -> Command {
    Command::new("reload").about("Make the running service read its configuration again").after_help(
        "Exits with 0, or with 1 and every problem; the old configuration stays in force then. The service is found by \
         --state-dir, else by state_dir in the file that --config names, else in /run/ada2-sidecar.",
    )
}

fn check_port() -> Command {
    Command::new("check-port")
        .about("Show which process holds the service's port")
        .arg(option("socket-unit", "UNIT", "Take the addresses from this systemd socket unit"))
        .after_help(
            "Looks at the addresses of listen, and works with an otherwise broken file; if listen cannot be read, at those \
             of ada2-sidecar.socket. Exits with 0 if the port is free or the service itself has it, else 1.",
        )
}

fn ack() -> Command {
    Command::new("ack").about("Acknowledge latched GPU errors: fatal XIDs, new memory errors").after_help(
        "Such an error keeps the service from being ready, across restarts, until it is acknowledged or the driver is \
         loaded anew.",
    )
}

fn template() -> Command {
    Command::new("template")
        .about("Turn a workflow of your own into a template, and try it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(propose())
        .subcommand(try_one())
}

fn propose() -> Command {
    let workflow = Arg::new("workflow").value_name("WORKFLOW").required(true);
    Command::new("propose")
        .about("Print the binding file for a workflow, with the reason for each line")
        .arg(workflow.help("ComfyUI's workflow saved with Export (API), or InvokeAI's export"))
        .after_help(
            "Prints the binding file on standard output, and on standard error what is not bound and why. Needs no running \
             engine. Save it beside the workflow, name both in a preset, and check them:\n\n  \
             ada2-sidecar template propose mine.json > mine.yaml\n  \
             presets: {mine: {template: {generate: mine.json}}}     # or edit, or inpaint\n  \
             ada2-sidecar check-config --live\n  \
             ada2-sidecar template try mine\n\n\
             Exits with 0 if the file can be used for the task that it names, else 1 with the reasons.",
        )
}

fn try_one() -> Command {
    let name = Arg::new("name").value_name("NAME").required(true).help("A preset or a model");
    let image =
        option("image", "FILE", "A picture to edit; several times for several pictures, in their order");
    Command::new("try")
        .about("Make one picture with a preset or model through the running service")
        .arg(name)
        .arg(option("prompt", "TEXT", "What to paint [default: a red apple on a wooden table]"))
        .arg(image.action(ArgAction::Append))
        .arg(option("mask", "FILE", "Where to repaint: a picture that is transparent there").requires("image"))
        .arg(option("seed", "NUMBER", "The seed [default: random]").allow_negative_numbers(true))
        .arg(option("output", "FILE", "Where to write it [default: NAME.png]"))
        .arg(flag("force", "Overwrite the file"))
        .after_help(
            "Takes GPU time. Prints what ran, how long it took and the file. Exits with 0, or with 1 and the service's own \
             words.",
        )
}

fn json() -> Arg {
    flag("json", "Print JSON")
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}
