//! What must hold of the configuration's files; see [`crate::fuzzing`].

use std::path::Path;

use super::{
    backends_file,
    env_file::EnvFile,
    tokens::{merge, parse_list, single},
};

/// The env file: each value that is read is read again if it is written in quotes. Then its text as tokens.
pub fn env_file(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let file = EnvFile::parse(text, &|_| None);
    let lines = text.matches('\n').count() + 1;
    assert!(file.errors.iter().all(|error| (1..=lines).contains(&error.line)), "{:?}", file.errors);
    for (name, value) in file.values.iter().filter(|(_, value)| !value.contains("${")) {
        let written = format!("K='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
        let again = EnvFile::parse(&written, &|_| None);
        assert_eq!(again.values.get("K"), Some(value), "{name}: {:?}", again.errors);
    }
    if let (Ok(one), Ok(several)) = (single(text), parse_list(text)) {
        let merged = merge(&one, several);
        let secrets: std::collections::BTreeSet<_> =
            merged.iter().map(|token| token.secret.expose()).collect();
        assert_eq!(secrets.len(), merged.len(), "each secret once");
    }
}

/// The backends file: each backend that is accepted can be found by its class, and has a slot for what it can do.
pub fn backends_file(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let variable = |name: &str| (name == "TOKEN").then(|| "a-token-of-the-backend".to_owned());
    match backends_file::parse(Some((Path::new("b.yaml"), text)), None, &variable) {
        Ok(read) => {
            for class in read.backends.classes() {
                let backend = read.backends.find(class).expect("it is listed");
                assert!(backend.limits.values().all(|slots| *slots > 0), "{backend:?}");
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let quoted =
                problems.iter().any(|problem| problem.to_string().contains("a-token-of-the-backend"));
            assert!(!quoted || text.contains("${TOKEN"), "{problems:?}");
        }
    }
}
