//! Tables of a reference page, generated from the tables in the code: a test compares the two, or writes the page.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use service::{error_response::ErrorResponse, settings::SettingSpec};

/// Compares what stands between `<!-- generated: NAME -->` and `<!-- end -->` of a page with these tables, by name. With
/// `UPDATE_REFERENCE` set, writes them there instead.
pub fn check(page: &Path, tables: &[(&str, String)]) {
    let text = fs::read_to_string(page).expect("a readable page");
    let generated = tables.iter().fold(text.clone(), |text, (name, table)| replace(&text, name, table));
    #[expect(clippy::disallowed_methods, reason = "a test that a person asks to write")]
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        // Other tests read the page meanwhile.
        let new = page.with_extension("new");
        fs::write(&new, generated).expect("a writable directory");
        return fs::rename(new, page).expect("a writable directory");
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
    let (before, rest) = text.split_once(&mark).expect("the page has a mark of each table");
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

/// The names of the families of a scrape.
pub fn metric_names(scrape: &str) -> impl Iterator<Item = String> {
    scrape
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ').map(|(name, _)| name.to_owned()))
}

/// As Markdown code.
pub fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The cells of the rows of a table behind a mark, such as `checked: errors` (a table that people write).
fn rows(page: &Path, mark: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(page).expect("a readable page");
    let (_, rest) =
        text.split_once(&format!("<!-- {mark} -->\n")).expect("the page has a mark of each table");
    let (table, _) = rest.split_once("<!-- end -->").expect("every mark has an end");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

/// Checks that the first column has these names, in backticks, and no other. A row may have several.
pub fn check_names(page: &Path, name: &str, expected: impl IntoIterator<Item = String>) {
    let found = rows(page, &format!("checked: {name}"))
        .into_iter()
        .flat_map(|cells| in_code(&cells[0]))
        .collect::<BTreeSet<_>>();
    let expected = expected.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(found, expected, "{name} of {}", page.display());
}

/// Checks that a table of errors has a row for each of these and no other: status and code, seconds of `Retry-After`,
/// and whether SDKs are told not to retry.
pub fn check_errors(page: &Path, responses: &[ErrorResponse]) {
    let mut expected = BTreeMap::<String, (BTreeSet<u64>, bool)>::new();
    for response in responses {
        let Some(error) = response.code() else { continue };
        let key = format!("{} `{}`", response.status.as_u16(), error.as_str());
        let entry = expected.entry(key).or_default();
        entry.0.extend(response.retry_after);
        entry.1 |= response.should_retry == Some(false);
    }
    let rows = rows(page, "checked: errors");
    let found = rows.iter().map(|cells| cells[0].clone()).collect::<Vec<_>>();
    let mut keys = found.clone();
    keys.sort();
    assert_eq!(keys, expected.keys().cloned().collect::<Vec<_>>(), "errors of {}", page.display());
    for cells in rows {
        let (seconds, no_retry) = &expected[&cells[0]];
        let is_right = seconds.iter().all(|seconds| cells[2].contains(&seconds.to_string()));
        assert!(
            is_right && cells[2].is_empty() == seconds.is_empty(),
            "{}: Retry-After {seconds:?}",
            cells[0]
        );
        assert_eq!(cells[3] == "yes", *no_retry, "{}: x-should-retry: false", cells[0]);
    }
}

/// The metrics that follow from a page's table of readings, without the suffix of their unit.
pub fn reading_metrics(page: &Path) -> BTreeSet<String> {
    let names = rows(page, "generated: readings").into_iter().flat_map(|cells| in_code(&cells[0]));
    names.map(|name| format!("nvidia_smi_{}", name.replace('.', "_"))).collect()
}

fn in_code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
