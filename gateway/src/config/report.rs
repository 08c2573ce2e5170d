//! What reading the configuration finds, valid or broken: `serve` takes a valid one, and `doctor` reports the rest as well.

use service::{
    secret::redact,
    settings::{Problem, Settings},
};

use super::{BACKENDS_FILE, Config, KEYS, LoadedConfig, LoadedEnvFile};
use crate::writable_paths;

/// All of it.
#[derive(Debug)]
pub(crate) struct ConfigReport {
    /// The configuration, unless it is broken.
    pub(crate) config: Option<Config>,
    /// What is wrong with it; with the places on disk, see `places`.
    pub(crate) problems: Vec<Problem>,
    /// Names in env file and environment that look misspelled.
    pub(crate) misspelled: Vec<Problem>,
    /// The same in the backends' file. Where that is broken, they are among the problems.
    pub(crate) misspelled_backends: Vec<Problem>,
    /// What an operator should know beside that.
    pub(crate) warnings: ConfigWarnings,
    /// Whether the paths that are written to can be.
    pub(crate) paths: writable_paths::PathReport,
    /// The settings as written.
    pub(crate) settings: Settings,
    /// The env file.
    pub(crate) env: LoadedEnvFile,
}

/// What an operator should know, by what it is about.
#[derive(Debug, Default)]
pub(crate) struct ConfigWarnings {
    /// Variables of the environment that have no effect.
    pub(crate) without_effect: Vec<String>,
    /// Other programs' variables in the env file.
    pub(crate) foreign: Option<String>,
    /// Backends that are off.
    pub(crate) disabled_backends: Vec<String>,
    /// Of the backends' file, misspellings among them.
    pub(crate) backends: Vec<String>,
    /// Model names that lead to no backend.
    pub(crate) routing: Vec<String>,
    /// Tokens whose images nobody else sees.
    pub(crate) owners: Vec<String>,
    /// That there is no image backend.
    pub(crate) images: Option<String>,
    /// What clients reject or will reject in the certificate.
    pub(crate) certificate: Vec<String>,
    /// Values in the env file that another source overrides.
    pub(crate) overridden: Vec<String>,
}

impl ConfigReport {
    /// The configuration, or every problem.
    pub(super) fn into_loaded(self) -> Result<LoadedConfig, Vec<Problem>> {
        let Some(config) = self.config else {
            return Err(
                [self.problems, self.paths.problems, self.misspelled, self.misspelled_backends].concat()
            );
        };
        let effective = format!("{}{}", self.settings.effective(), config.backends);
        let misspelled: Vec<_> = self.misspelled.iter().map(ToString::to_string).collect();
        let ConfigWarnings {
            without_effect,
            foreign,
            disabled_backends: off,
            backends,
            routing,
            owners,
            images,
            certificate,
            overridden,
        } = self.warnings;
        let (foreign, images) = (foreign.into_iter().collect(), images.into_iter().collect());
        let notes = [
            misspelled,
            without_effect,
            foreign,
            off,
            backends,
            routing,
            owners,
            images,
            certificate,
            overridden,
        ];
        let notes = notes.concat().iter().map(|note| redact(note)).collect();
        Ok(LoadedConfig { config, effective, warnings: notes, paths: self.paths })
    }

    /// The backends' file, if one is read.
    pub(crate) fn backends_file(&self) -> Option<std::path::PathBuf> {
        let beside = || self.env.path.with_file_name(BACKENDS_FILE);
        let path = self.settings.raw("BACKENDS_CONFIG").map_or_else(beside, Into::into);
        path.exists().then_some(path)
    }

    /// The files that hold secrets of ours, each with the setting that names it.
    pub(crate) fn secret_files(&self) -> Vec<(&'static str, std::path::PathBuf)> {
        let named = [
            "GATEWAY_BEARER_TOKEN_FILE",
            "GATEWAY_BEARER_TOKENS_FILE",
            "GATEWAY_TLS_KEY_PATH",
            "BACKEND_CLIENT_CERT",
        ];
        let named = named.into_iter().filter_map(|name| Some((name, self.settings.raw(name)?.trim().into())));
        let in_env = KEYS.iter().any(|key| key.secret && self.env.file.values.contains_key(key.env));
        // One that nobody may read holds some, for all that is known.
        let env = (in_env || self.env.is_unreadable).then(|| ("env file", self.env.path.clone()));
        env.into_iter().chain(named).collect()
    }
}
