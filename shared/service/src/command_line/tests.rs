use std::{ffi::OsString, process::ExitCode};

use super::*;
use crate::settings::EXIT_CONFIG;

const KEYS: &[SettingSpec] = &[
    SettingSpec::new("listen", "T_LISTEN", "Address")
        .with_default("0.0.0.0:1")
        .value_name("ADDRESS")
        .group("Reach it")
        .common(),
    SettingSpec::new("depth", "T_DEPTH", "How deep").with_default("4").group("Limits"),
    SettingSpec::new("old", "T_OLD", "Once").removed("it does nothing").group("Limits"),
    SettingSpec::new("token", "T_TOKEN", "The token").secret().no_flag().group("Access"),
];

fn commands() -> Vec<Command> {
    let inner = Command::new("new").about("Make one").arg(Arg::new("name").value_name("NAME").required(true));
    vec![
        Command::new("show").about("Show it").after_help("Exits with 0."),
        Command::new("key").about("Keys").subcommand(inner),
    ]
}

const PROGRAM: Program = Program {
    name: "prog",
    version: "1.2 (abc)",
    date: "2026-11-30",
    about: "does .things - well",
    description: &["One.", ".two is not a request; a \\n neither."],
    keys: KEYS,
    config_arg: || Arg::new("config").long("config").value_name("FILE").help("The file"),
    commands,
    precedence: "The flag wins.",
    examples: &[("prog show", "show it")],
    more_examples: &[("prog key new \\\n     'x'", "on two lines")],
    exit_codes: &[("0", "done")],
    files: &[("/etc/prog", "the file")],
    environment: &[("T_CONFIG", "the file")],
    see_also: &[("man(1)", "more")],
};

fn value(arguments: &[&str], name: &str) -> Option<String> {
    let matches = PROGRAM.command().try_get_matches_from([&["prog"], arguments].concat()).unwrap();
    matches.get_one::<String>(name).cloned()
}

#[test]
fn a_flag_is_accepted_before_and_after_a_subcommand() {
    for arguments in
        [["--depth", "5", "show"].as_slice(), &["show", "--depth", "5"], &["key", "new", "--depth", "5", "x"]]
    {
        assert_eq!(value(arguments, "depth").as_deref(), Some("5"), "{arguments:?}");
    }
    assert_eq!(value(&["show", "--config", "f"], "config").as_deref(), Some("f"));
    assert_eq!(value(&["show"], "depth"), None, "the default is not the command line's");
}

#[test]
fn the_short_help_has_the_common_settings_and_the_long_help_every_setting() {
    let short = PROGRAM.command().render_help().to_string();
    let long = PROGRAM.command().render_long_help().to_string();
    for (part, in_short, in_long) in [
        ("Reach it:\n", true, true),
        ("--listen <ADDRESS>", true, true),
        ("[env: T_LISTEN] [default: 0.0.0.0:1]", true, true),
        ("--depth <VALUE>", false, true),
        ("T_TOKEN", false, true),
        ("--token", false, false),
        ("--old", false, false),
        ("  prog show  show it", true, true),
        ("  prog key new \\\n     'x'\n      on two lines", false, true),
        ("Exit codes: 0 done.", true, true),
        ("prog --help-all shows every setting.", true, false),
    ] {
        assert_eq!(
            (short.contains(part), long.contains(part)),
            (in_short, in_long),
            "{part}: {short}\n{long}"
        );
    }
}

#[test]
fn a_subcommands_help_is_its_own() {
    let mut grammar = PROGRAM.command();
    grammar.build();
    let help = grammar.find_subcommand_mut("show").unwrap().render_help().to_string();
    assert!(help.contains("--config <FILE>") && help.contains("Exits with 0.\n\nSettings,"), "{help}");
    assert!(!help.contains("--depth") && !help.contains("--listen"), "{help}");
}

#[test]
fn a_usage_error_exits_with_78_and_help_with_0() {
    let code = |arguments: &[&str]| {
        let arguments = ["prog"].iter().chain(arguments).map(OsString::from);
        format!("{:?}", PROGRAM.parse_args(arguments).err())
    };
    let (well, wrong) =
        (format!("{:?}", Some(ExitCode::SUCCESS)), format!("{:?}", Some(ExitCode::from(EXIT_CONFIG))));
    for arguments in [
        ["--help"].as_slice(),
        &["-h"],
        &["--help-all"],
        &["help"],
        &["help", "key", "new"],
        &["--version"],
        &["man"],
    ] {
        assert_eq!(code(arguments), well, "{arguments:?}");
    }
    for arguments in [["--depht", "5"].as_slice(), &["shwo"], &["help", "shwo"], &["show", "--help-all"]] {
        assert_eq!(code(arguments), wrong, "{arguments:?}");
    }
    assert_eq!(code(&["help", "--", "--depth"]), well, "never a service that starts");
    assert_eq!(code(&["show"]), "None");
}

#[test]
fn text_in_the_man_page_is_never_a_roff_request() {
    let page = PROGRAM.man_page();
    for part in [
        ".TH PROG 8 2026-11-30 \"prog 1.2\" \"System Administration\"",
        "prog \\- does .things \\- well\n",
        "\n\\&.two is not a request; a \\\\n neither.",
        "\\fB\\-\\-depth\\fR \\fIVALUE\\fR",
        "\\fBkey new\\fR \\fINAME\\fR",
        "prog key new \\\\\n",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("T_OLD"), "{page}");
}

#[test]
fn a_term_too_wide_for_its_column_is_explained_on_the_next_line() {
    let wide = "x".repeat(60);
    let wide: &'static str = wide.leak();
    assert_eq!(
        two_columns(&[("a", "one"), ("bcd", "two"), (wide, "three")]),
        format!("  a    one\n  bcd  two\n  {wide}\n      three")
    );
}
