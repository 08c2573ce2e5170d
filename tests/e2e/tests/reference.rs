//! The tables of settings in both references are those of the code.

use std::fmt::Write;

use service::settings::SettingSpec;

/// A cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{}`", cell(text)) }
}

/// One table for each heading of the help; `has_key` is whether a setting has a key in a file beside its variable.
fn tables(keys: &[SettingSpec], has_key: bool) -> String {
    let keys: Vec<_> = keys.iter().filter(|key| key.deprecation.is_none()).collect();
    let mut headings: Vec<&str> = Vec::new();
    for key in &keys {
        if !headings.contains(&key.group) {
            headings.push(key.group);
        }
    }
    let columns = if has_key { "key | flag | variable" } else { "variable | flag" };
    let mut page = String::new();
    for heading in headings {
        let rule = "---|".repeat(columns.split('|').count() + 4);
        let _ = write!(
            page,
            "**{heading}**\n\n| {columns} | value | default | at start only | meaning |\n|{rule}\n"
        );
        for key in keys.iter().filter(|key| key.group == heading) {
            let flag = if key.no_flag { String::new() } else { code(&format!("--{}", key.flag())) };
            let value = if key.no_flag { String::new() } else { code(key.value_name) };
            let names = if has_key {
                format!("{} | {flag} | {}", code(key.name), code(key.env))
            } else {
                format!("{} | {flag}", code(key.env))
            };
            let default = key.default_help.map_or_else(|| code(key.default.unwrap_or_default()), cell);
            let fixed = if key.requires_restart { "yes" } else { "" };
            let _ = writeln!(page, "| {names} | {value} | {default} | {fixed} | {} |", cell(key.help));
        }
        page.push('\n');
    }
    page.trim_end().to_owned()
}

#[test]
fn the_references_have_the_tables_of_settings_that_the_code_has() {
    let (sidecar, gateway) =
        (include_str!("../../../ada2-sidecar/REFERENCE.md"), include_str!("../../../gateway/REFERENCE.md"));
    for (name, page, expected) in [
        ("ada2-sidecar", sidecar, tables(ada2_sidecar::config::KEYS, true)),
        ("gateway", gateway, tables(gateway::config::KEYS, false)),
    ] {
        let found = page
            .split_once("<!-- generated: settings -->\n")
            .and_then(|(_, rest)| rest.split_once("\n<!-- end -->"));
        let found = found.expect("the page has the marks").0;
        assert!(found == expected, "{name}/REFERENCE.md should have between its marks:\n{expected}\n");
    }
}
