//! Secrets that lie in files of their own, as systemd's credentials do.

use std::path::PathBuf;

use super::{SettingSource, Settings, read_errors::describe_read_error};

impl Settings {
    /// Where `file_key` names a file, its text is the value of `key`. Naming both is a problem, since one of them was
    /// forgotten; so is a file that cannot be read.
    pub fn secret_from_file(&mut self, key: &'static str, file_key: &'static str) {
        if self.secret_path(file_key).is_some() && self.values.contains_key(key) {
            let other = self.source(key);
            let expected = format!("expected either this or {key}, found both ({key}: {other})");
            return self.add_problem(file_key, expected);
        }
        if let Some((text, source)) = self.secret_text(file_key) {
            self.values.insert(key, (text.trim().to_owned(), source));
        }
    }

    /// The text of the file that `file_key` names, and where it comes from. A file that cannot be read is a problem.
    pub fn secret_text(&mut self, file_key: &'static str) -> Option<(String, SettingSource)> {
        let path = self.secret_path(file_key)?;
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let source = match self.source(file_key) {
                    credential @ SettingSource::Credential(_) => credential,
                    _ => SettingSource::File(path),
                };
                Some((text, source))
            }
            Err(error) => {
                let expected = format!("expected a readable file: {}", describe_read_error(&path, &error));
                self.add_problem(file_key, expected);
                None
            }
        }
    }

    fn secret_path(&self, file_key: &str) -> Option<PathBuf> {
        self.raw(file_key).map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::SettingSpec;

    const KEYS: &[SettingSpec] =
        &[SettingSpec::new("token", "T", "").secret(), SettingSpec::new("token_file", "T_FILE", "")];

    fn settings(values: &[(&'static str, &str)]) -> Settings {
        let value = |text: &str| (text.to_owned(), SettingSource::Environment("T"));
        let values: BTreeMap<_, _> = values.iter().map(|(key, text)| (*key, value(text))).collect();
        let mut settings = Settings { keys: KEYS, values, overridden: BTreeMap::new(), problems: Vec::new() };
        settings.secret_from_file("token", "token_file");
        settings
    }

    #[test]
    fn a_secret_file_gives_the_value_and_both_at_once_are_a_problem() {
        let path = std::env::temp_dir().join(format!("secret-file-{}", std::process::id()));
        std::fs::write(&path, "hush-hush\n").unwrap();
        let path = path.display().to_string();
        let read = settings(&[("token_file", &path)]);
        assert_eq!(
            (read.raw("token"), read.source("token")),
            (Some("hush-hush"), SettingSource::File(path.clone().into()))
        );
        assert!(read.problems.is_empty() && !read.effective().contains("hush"));
        assert_eq!(settings(&[("token_file", " ")]).raw("token"), None);
        for (values, expected) in [
            (&[("token", "x"), ("token_file", path.as_str())][..], "found both"),
            (&[("token_file", "/nowhere/at-all")], "expected a readable file"),
        ] {
            let problems = settings(values).problems;
            assert!(problems.len() == 1 && problems[0].to_string().contains(expected), "{problems:?}");
        }
    }
}
