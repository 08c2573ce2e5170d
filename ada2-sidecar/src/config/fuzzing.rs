//! What must hold of the configuration file; see [`crate::fuzzing`].

use std::path::Path;

use clap::ArgMatches;
use service::settings::{Settings, YamlFile};

use super::{Instance, KEYS, read};

/// The file: read, or with problems that say why not. What it names is looked for where nothing is.
pub(crate) fn settings_file(flags: &ArgMatches, data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if ["/dev/", "/proc/", "/sys/"].iter().any(|dir| text.contains(dir)) {
        return; // a file without an end
    }
    let (file, problems) = YamlFile::parse_lenient(Path::new("/nonexistent/config.yaml"), text, KEYS);
    let mut settings = Settings::resolve(KEYS, flags, &|_| None, &|key| file.get(key));
    let config = read(&mut settings, file.directory(), &|_, _| Some(Instance::unlocked()));
    assert!(config.is_some() || !settings.problems.is_empty(), "no reason is given");
    let token = settings.raw("token").filter(|token| token.len() > 12 && text.matches(*token).count() == 1);
    if let Some(token) = token.map(str::to_owned) {
        for problem in problems.iter().chain(&settings.problems) {
            assert!(!problem.to_string().contains(&token), "{problem}");
        }
        assert!(!settings.effective().contains(&token));
    }
}
