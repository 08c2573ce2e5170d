//! Tables of a reference page, generated from the tables in the code: a test compares the two, or writes the page.

use std::{fs, path::Path};

use service::settings::SettingSpec;

/// Compares what stands between `<!-- generated: NAME -->` and `<!-- end -->` of a page with these tables, by name. With
/// `UPDATE_REFERENCE` set, writes them there instead.
pub fn check(page: &Path, tables: &[(&str, String)]) {
    let text = fs::read_to_string(page).expect("a readable page");
    let generated = tables.iter().fold(text.clone(), |text, (name, table)| replace(&text, name, table));
    #[expect(clippy::disallowed_methods, reason = "a test that a person asks to write")]
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        return fs::write(page, generated).expect("a writable page");
    }
    let differing = text.lines().zip(generated.lines()).find(|(old, new)| old != new);
    assert!(
        text == generated,
        "{} differs from the code (UPDATE_REFERENCE=1 with this test writes it), first here: {differing:#?}",
        page.display()
    );
}

fn replace(text: &str, name: &str, table: &str) -> String {
    let mark = format!("<!-- generated: {name} -->\n");
    assert!(text.contains(&mark), "the page lacks {mark}");
    let (before, rest) = text.split_once(&mark).expect("it has just been found");
    let (_, after) = rest.split_once("<!-- end -->").expect("every mark has an end");
    format!("{before}{mark}{}\n<!-- end -->{after}", table.trim_end())
}

/// A Markdown table. Bars in cells are escaped.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let head =
        line(head.iter().map(ToString::to_string).collect()) + &format!("|{}\n", "---|".repeat(head.len()));
    rows.into_iter().fold(head, |text, cells| text + &line(cells))
}

/// The settings that stay, one table for each heading of the help. `name` is the column of the name in the file.
pub fn settings(keys: &[SettingSpec], name: &str) -> String {
    let mut groups = Vec::new();
    for key in keys {
        if key.deprecation.is_none() && !groups.contains(&key.group) {
            groups.push(key.group);
        }
    }
    let head: Vec<_> = match name {
        "variable" => vec!["variable"],
        name => vec![name, "variable"],
    };
    let head = [head, vec!["flag", "value", "default", "at start only", "meaning"]].concat();
    let tables = groups.iter().map(|group| {
        let rows = keys.iter().filter(|key| key.group == *group && key.deprecation.is_none());
        format!("**{group}**\n\n{}", table(&head, rows.map(|key| setting(key, name))))
    });
    tables.collect::<Vec<_>>().join("\n")
}

fn setting(key: &SettingSpec, name: &str) -> Vec<String> {
    let names = match name {
        "variable" => vec![code(key.env)],
        _ => vec![code(key.name), code(key.env)],
    };
    let flag = if key.no_flag { String::new() } else { code(&format!("--{}", key.flag())) };
    let value = if key.no_flag { String::new() } else { code(key.value_name) };
    let default = key.default_help.map(str::to_owned).or_else(|| key.default.map(code)).unwrap_or_default();
    let at_start = if key.requires_restart { "yes" } else { "" };
    [names, vec![flag, value, default, at_start.to_owned(), key.help.to_owned()]].concat()
}

/// Metrics as a scrape shows them: name, type, labels, help. Names with this prefix are left to another table.
pub fn metrics(scrape: &str, leave_out: impl Fn(&str) -> bool) -> String {
    let families = scrape.split("# HELP ").skip(1).filter_map(|family| {
        let (name, rest) = family.split_once(' ')?;
        let (help, rest) = rest.split_once('\n')?;
        let (kind, samples) = rest.strip_prefix("# TYPE ")?.split_once(' ')?.1.split_once('\n')?;
        let labels = samples
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(labels, _)| labels);
        let labels = labels.split(',').filter_map(|label| label.split_once('=')).map(|(label, _)| label);
        let labels = labels.filter(|label| *label != "le").map(code).collect::<Vec<_>>().join(", ");
        (!leave_out(name)).then(|| vec![code(name), kind.to_owned(), labels, help.replace("\\n", " ")])
    });
    table(&["metric", "type", "labels", "meaning"], families)
}

/// As Markdown code.
pub fn code(text: &str) -> String {
    format!("`{text}`")
}
