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
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (old, new) = (lines(&text), lines(&generated));
    assert!(
        text == generated,
        "{} differs from the code (UPDATE_REFERENCE=1 with this test writes it)\nonly there: {:#?}\nmissing there: {:#?}",
        page.display(),
        old.difference(&new),
        new.difference(&old)
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
    // A bar in a cell is escaped.
    let cells = |line: &str| {
        let line = line.replace("\\|", "\u{0}");
        line.trim_matches('|').split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect()
    };
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

/// Checks that a table of errors has a row for each of these and no other: status and code, the seconds of
/// `Retry-After`, and `yes` if SDKs are told not to retry.
pub fn check_errors(page: &Path, responses: &[ErrorResponse]) {
    let mut expected = BTreeMap::<String, (BTreeSet<u64>, BTreeSet<bool>)>::new();
    for response in responses {
        let Some(error) = response.code() else { continue };
        let key = format!("{} `{}`", response.status.as_u16(), error.as_str());
        let (seconds, no_retry) = expected.entry(key).or_default();
        seconds.extend(response.retry_after);
        no_retry.insert(response.should_retry == Some(false));
    }
    let found = rows(page, "checked: errors").into_iter().map(|cells| {
        let numbers = cells[2].split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
        (cells[0].clone(), (numbers.collect(), BTreeSet::from([cells[3] == "yes"])))
    });
    let found = found.collect::<Vec<_>>();
    assert_eq!(found.len(), expected.len(), "a row for each error of {}", page.display());
    assert_eq!(BTreeMap::from_iter(found), expected, "errors of {}", page.display());
}

/// The metrics that follow from a page's table of readings, without the suffix of their unit.
pub fn reading_metrics(page: &Path) -> BTreeSet<String> {
    let names = rows(page, "generated: readings").into_iter().flat_map(|cells| in_code(&cells[0]));
    names.map(|name| format!("nvidia_smi_{}", name.replace('.', "_"))).collect()
}

fn in_code(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
