//! A configuration file in YAML.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Problem, SettingSource, SettingSpec, scalar_text, unknown_key, yaml_value};

/// A value as a YAML scalar that can be pasted back.
pub(super) fn yaml_scalar(text: &str) -> String {
    let plain = |ch: char| ch.is_ascii_alphanumeric() || "-_./,+".contains(ch);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { Value::from(text).to_string() }
}

/// The key of a problem with a whole file.
pub const WHOLE_FILE: &str = "(the whole file)";

/// A YAML file of settings: scalars, and lists of scalars (the same as comma-separated text).
#[derive(Debug, Default)]
pub struct YamlFile {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

impl YamlFile {
    /// Reads it. Unknown keys are problems that name the nearest known one.
    pub fn parse(path: &Path, text: &str, keys: &[SettingSpec]) -> Result<Self, Vec<Problem>> {
        let (file, problems) = Self::parse_lenient(path, text, keys);
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    /// What can be read of it, and every problem with the rest.
    pub fn parse_lenient(path: &Path, text: &str, keys: &[SettingSpec]) -> (Self, Vec<Problem>) {
        let problem = |key: &str, expected: String| Problem::new(path.display(), key, expected);
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        let map = mapping(text).unwrap_or_else(|message| {
            problems.push(problem(WHOLE_FILE, message));
            serde_json::Map::new()
        });
        for (name, value) in map {
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                problems.push(problem(&name, unknown_key(&name, keys.iter().map(|key| key.name))));
                continue;
            };
            if key.structured && value.is_object() {
                values.insert(name, value.to_string());
            } else if let Some(text) = flatten(&value) {
                values.insert(name, text);
            } else if !value.is_null() {
                problems.push(problem(&name, "expected one value or a list of values".to_owned()));
            }
        }
        (Self { path: path.to_owned(), values }, problems)
    }

    /// Its directory, which paths in it are relative to.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The value of a key and its place.
    pub fn get(&self, key: &SettingSpec) -> Option<(String, SettingSource)> {
        self.values.get(key.name).map(|value| (value.clone(), SettingSource::File(self.path.clone())))
    }
}

fn mapping(text: &str) -> Result<serde_json::Map<String, Value>, String> {
    match yaml_value(text)? {
        Value::Null => Ok(serde_json::Map::new()),
        Value::Object(map) => Ok(map),
        _ => Err("expected `key: value` lines".to_owned()),
    }
}

/// What is wrong with a YAML text, and where. The library's own message would quote the lines around it, and any token in them.
pub(super) fn yaml_error_message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error::{DuplicateMappingKey, Eof, MultipleDocuments};
    let what = match error.without_snippet() {
        DuplicateMappingKey { .. } => "a key is given twice",
        Eof { .. } => "it ends too early",
        MultipleDocuments { .. } => "it holds more than one document (`---`)",
        _ => "it cannot be read: look at its indentation, quotes, brackets and colons",
    };
    match error.location() {
        Some(location) => {
            format!("expected YAML: line {}, column {}: {what}", location.line(), location.column())
        }
        None => format!("expected YAML: {what}"),
    }
}

fn flatten(value: &Value) -> Option<String> {
    match value {
        Value::Array(items) => {
            items.iter().map(flatten).collect::<Option<Vec<_>>>().map(|items| items.join(","))
        }
        scalar => scalar_text(scalar),
    }
}
