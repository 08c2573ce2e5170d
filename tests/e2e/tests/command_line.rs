//! Help and man pages of both programs: complete, and no wider than 100 columns or longer than a screen.

use std::{
    io::{self, Write},
    process,
};

use clap::Command;
use service::{command_line::Program, settings::SettingSpec};

const PROGRAMS: [Program; 2] = [ada2_sidecar::cli::PROGRAM, gateway::cli::PROGRAM];

/// As on a terminal of 100 columns.
fn grammar(program: &Program) -> Command {
    let mut grammar = program.command().term_width(100);
    grammar.build();
    grammar
}

fn flags(program: &Program) -> impl Iterator<Item = &'static SettingSpec> {
    program.keys.iter().filter(|key| !key.no_flag && key.deprecation.is_none())
}

/// How often the help explains an option.
fn explained(help: &str, key: &SettingSpec) -> usize {
    let start = format!("      --{} <{}>", key.flag(), key.value_name);
    help.lines().filter(|line| line.starts_with(&start)).count()
}

fn assert_fits(name: &str, help: &str, lines: usize) {
    let count = help.lines().count();
    assert!(count <= lines, "{name}: {count} lines\n{help}");
    let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(wide.is_empty(), "{name}: {wide:#?}");
}

#[test]
fn the_short_help_fits_one_screen_with_the_common_settings() {
    for program in PROGRAMS {
        program.command().debug_assert();
        let help = grammar(&program).render_help().to_string();
        assert_fits(program.name, &help, 66);
        let listed = flags(&program).filter(|key| explained(&help, key) == 1).count();
        assert!((10..=12).contains(&listed), "{listed}");
        for key in flags(&program) {
            assert_eq!(explained(&help, key), usize::from(key.common), "{}: {help}", key.name);
        }
        let commands: Vec<_> =
            (program.commands)().iter().map(|command| format!("\n  {} ", command.get_name())).collect();
        for part in commands.iter().map(String::as_str).chain([
            "Usage: ",
            "Examples:\n",
            "Exit codes: 0 done",
            "--help-all",
        ]) {
            assert!(help.contains(part), "{part:?} in {help}");
        }
    }
}

#[test]
fn the_full_help_has_every_setting_once_with_variable_and_default_below_a_heading() {
    for program in PROGRAMS {
        let help = grammar(&program).render_long_help().to_string();
        assert_fits(program.name, &help, 400);
        for key in flags(&program) {
            assert_eq!(explained(&help, key), 1, "{}: {help}", key.name);
            assert_eq!(help.matches(&format!("[env: {}]", key.env)).count(), 1, "{}", key.env);
            assert!(help.contains(&format!("\n{}:\n", key.group)), "{}", key.group);
            assert_ne!(key.group, "Other settings", "{}", key.name);
            if let Some(default) = key.default_text() {
                assert!(help.contains(&format!("[default: {default}]")), "{}: {default}", key.name);
            }
        }
        for key in program.keys.iter().filter(|key| key.no_flag) {
            let names = |line: &&str| format!("{line}  ").starts_with(&format!("  {}  ", key.env));
            assert_eq!(help.lines().filter(names).count(), 1, "{}", key.name);
            assert!(!help.contains(&format!("--{} ", key.flag())), "{}", key.name);
        }
    }
}

#[test]
fn a_subcommands_help_is_about_its_own_arguments() {
    fn check(program: &Program, command: &mut Command) {
        let help = command.render_help().to_string();
        assert_fits(command.get_name(), &help, 39);
        let settings: Vec<_> =
            flags(program).filter(|key| explained(&help, key) > 0).map(SettingSpec::flag).collect();
        assert!(settings.is_empty(), "{settings:?} in {help}");
        let file = (program.config_arg)();
        assert!(help.contains(&format!("--{}", file.get_long().unwrap())), "{help}");
        assert!(help.trim_end().ends_with(&format!("{} --help", program.name)), "{help}");
        let inner: Vec<_> = command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect();
        for name in inner {
            check(program, command.find_subcommand_mut(&name).unwrap());
        }
    }
    for program in PROGRAMS {
        let mut grammar = grammar(&program);
        for command in (program.commands)() {
            check(&program, grammar.find_subcommand_mut(command.get_name()).unwrap());
        }
    }
}

#[test]
fn typing_errors_get_a_suggestion() {
    let cases: [(&Program, &[&str], &str); 5] = [
        (&PROGRAMS[0], &["--max-inflght", "3"], "'--max-inflight'"),
        (&PROGRAMS[0], &["readyz", "--engine-ulr", "x"], "'--engine-url'"),
        (&PROGRAMS[0], &["chek-config"], "'check-config'"),
        (&PROGRAMS[1], &["--gateway-prot", "1"], "'--gateway-port'"),
        (&PROGRAMS[1], &["verfy"], "'verify'"),
    ];
    for (program, arguments, expected) in cases {
        let error =
            program.command().try_get_matches_from([&[program.name], arguments].concat()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_man_page_has_its_sections_and_every_setting() {
    for program in PROGRAMS {
        let page = program.man_page();
        let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        assert_eq!(
            sections,
            [
                "NAME",
                "SYNOPSIS",
                "DESCRIPTION",
                "OPTIONS",
                "COMMANDS",
                "FILES",
                "ENVIRONMENT",
                "\"EXIT STATUS\"",
                "EXAMPLES",
                "\"SEE ALSO\""
            ]
        );
        for key in flags(&program) {
            let head = format!("\\fB\\-\\-{}\\fR ", key.flag().replace('-', "\\-"));
            assert_eq!(page.lines().filter(|line| line.starts_with(&head)).count(), 1, "{}", key.name);
        }
    }
}

/// Runs a tool of man-db's; prints a note and returns nothing where it is not installed.
fn tool(name: &str, arguments: &[&str]) -> Option<process::Output> {
    let ran = process::Command::new(name).args(arguments).env("LC_ALL", "C.UTF-8").output();
    if ran.is_err() {
        let _ = writeln!(io::stderr(), "skipped: there is no {name} here");
    }
    ran.ok()
}

#[test]
fn a_man_page_has_no_warnings_and_a_name_for_the_index() {
    for program in PROGRAMS {
        let file = fakes::fresh_dir("man").join(format!("{}.8", program.name));
        std::fs::write(&file, program.man_page()).unwrap();
        let path = file.to_str().unwrap();
        if let Some(output) = tool("man", &["--warnings", "--local-file", path]) {
            let page = String::from_utf8(output.stdout).unwrap();
            let expected = format!("{}(8)", program.name.to_uppercase());
            assert!(page.trim_start().starts_with(&expected), "{page}");
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
        if let Some(output) = tool("lexgrog", &[path]) {
            let expected = format!("{path}: \"{} - {}\"\n", program.name, program.about);
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }
}
