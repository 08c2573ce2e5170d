//! What reading the configuration finds, valid or broken: `serve` takes a valid one, and `doctor` reports the rest as well.

use service::{
    secret::redact,
    settings::{Problem, Settings},
};

use super::{BACKENDS_FILE, Config, KEYS, LoadedConfig, env_file::LoadedEnvFile};
use crate::writable_paths;

/// The result of reading the configuration.
#[derive(Debug)]
pub(crate) struct ConfigReport {
    /// `None` if it is broken.
    pub(crate) config: Option<Config>,
    /// Without those of [`Self::paths`].
    pub(crate) problems: Vec<Problem>,
    /// Names in env file and environment that look misspelled.
    pub(crate) misspelled: Vec<Problem>,
    /// The same in the backends file; if that is broken, they are among the problems.
    pub(crate) misspelled_backends: Vec<Problem>,
    pub(crate) warnings: ConfigWarnings,
    /// Whether the gateway can write to its paths.
    pub(crate) paths: writable_paths::PathReport,
    /// The settings as written.
    pub(crate) settings: Settings,
    pub(crate) env: LoadedEnvFile,
}

/// Warnings for the operator, by topic.
#[derive(Debug, Default)]
pub(crate) struct ConfigWarnings {
    /// Environment variables without effect.
    pub(crate) without_effect: Vec<String>,
    /// Other programs' variables in the env file.
    pub(crate) foreign: Option<String>,
    pub(crate) disabled_backends: Vec<String>,
    /// From the backends file, including misspellings.
    pub(crate) backends: Vec<String>,
    /// Model names whose backend is not configured.
    pub(crate) routing: Vec<String>,
    /// `GATEWAY_OWNER_TOKENS` is missing.
    pub(crate) owners: Vec<String>,
    /// There is no image backend.
    pub(crate) images: Option<String>,
    /// Why clients reject the certificate, or soon will.
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
            disabled_backends,
            backends,
            routing,
            owners,
            images,
            certificate,
            overridden,
        } = self.warnings;
        let (foreign, images) = (foreign.into_iter().collect(), images.into_iter().collect());
        let warnings = [
            misspelled,
            without_effect,
            foreign,
            disabled_backends,
            backends,
            routing,
            owners,
            images,
            certificate,
            overridden,
        ];
        let warnings = warnings.concat().iter().map(|warning| redact(warning)).collect();
        Ok(LoadedConfig { config, effective, warnings, paths: self.paths })
    }

    /// The backends file, if there is one.
    pub(crate) fn backends_file(&self) -> Option<std::path::PathBuf> {
        let default = || self.env.path.with_file_name(BACKENDS_FILE);
        let path = self.settings.raw("BACKENDS_CONFIG").map_or_else(default, Into::into);
        path.exists().then_some(path)
    }

    /// The files that contain secrets, each with the setting that names it.
    pub(crate) fn secret_files(&self) -> Vec<(&'static str, std::path::PathBuf)> {
        let named = [
            "GATEWAY_BEARER_TOKEN_FILE",
            "GATEWAY_BEARER_TOKENS_FILE",
            "GATEWAY_TLS_KEY_PATH",
            "BACKEND_CLIENT_CERT",
        ];
        let named = named.into_iter().filter_map(|name| Some((name, self.settings.raw(name)?.trim().into())));
        let in_env = KEYS.iter().any(|key| key.secret && self.env.file.values.contains_key(key.env));
        // An unreadable env file may contain one.
        let env = (in_env || self.env.is_unreadable).then(|| ("env file", self.env.path.clone()));
        env.into_iter().chain(named).collect()
    }
}
