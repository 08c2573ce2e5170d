//! Where chat, completions and embeddings go: aliases for models, and the default backend.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};
use service::settings::{Problem, Settings, describe_read_error};

use super::{backends::Capability, backends_file::BackendsFile};

const JSON: &str = "MODEL_ALIASES_JSON";
const PATH: &str = "MODEL_ALIASES_PATH";
const DEFAULT: &str = "DEFAULT_BACKEND";
const EXPECTED: &str = r#"expected a JSON object such as {"name": {"backend": "local_mlx", "model": "…"}}"#;

/// The routing of text requests.
#[derive(Debug, Clone, Default)]
pub struct RoutingConfig {
    /// By the name that clients give as `model`.
    pub aliases: BTreeMap<String, ModelAlias>,
    /// The class for requests that nothing else routes.
    pub default: Option<String>,
}

/// The model behind a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelAlias {
    /// A class or legacy name.
    pub backend: String,
    /// The model's name there.
    pub model: String,
}

impl RoutingConfig {
    /// Merges both sources of aliases; of a name in both, the JSON in the setting counts.
    pub(super) fn read(
        settings: &mut Settings,
        file: Option<&BackendsFile>,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        let before = settings.problems.len();
        let mut sources = Vec::new();
        if let Some(path) = settings.raw(PATH).map(str::to_owned) {
            match std::fs::read_to_string(Path::new(&path)) {
                Ok(text) => sources.push((path, text)),
                Err(error) => {
                    let why = describe_read_error(Path::new(&path), &error);
                    settings.add_problem(PATH, format!("expected a file at {path:?}: {why}"));
                }
            }
        }
        if let Some(text) = settings.raw(JSON) {
            sources.push((format!("{} {JSON}", settings.source(JSON)), text.to_owned()));
        }
        let mut parser = RoutingParser { file, source: String::new(), warnings, problems: Vec::new() };
        let mut aliases = BTreeMap::new();
        for (source, text) in sources {
            parser.source = source;
            aliases.extend(parser.aliases(&text));
        }
        parser.source = settings.source(DEFAULT).to_string();
        let default = settings.raw(DEFAULT).and_then(|name| parser.default(name.trim()));
        let problems = parser.problems;
        settings.problems.extend(problems);
        (settings.problems.len() == before).then_some(Self { aliases, default })
    }
}

struct RoutingParser<'a> {
    file: Option<&'a BackendsFile>,
    source: String,
    warnings: &'a mut Vec<String>,
    problems: Vec<Problem>,
}

/// The result of looking up a class or legacy name.
enum BackendLookup {
    Class(String),
    /// The configuration has the name, but its class is disabled or not configured.
    Unconfigured,
    Unknown,
}

impl RoutingParser<'_> {
    fn report(&mut self, key: &str, expected: impl Into<String>) {
        self.problems.push(Problem::new(&self.source, key, expected));
    }

    fn aliases(&mut self, text: &str) -> BTreeMap<String, ModelAlias> {
        let Ok(Value::Object(all)) = serde_json::from_str(text) else {
            self.report("(all of it)", EXPECTED);
            return BTreeMap::new();
        };
        all.iter().filter_map(|(name, value)| Some((name.clone(), self.alias(name, value)?))).collect()
    }

    fn alias(&mut self, name: &str, value: &Value) -> Option<ModelAlias> {
        let key = name.escape_debug().to_string();
        let Value::Object(entry) = value else {
            self.report(&key, r#"expected {"backend": "…", "model": "…"}"#);
            return None;
        };
        if name.trim().is_empty() {
            self.report("(a name)", "expected the name that clients give as model");
        }
        let (backend, model) = (text(entry, "backend"), text(entry, "model"));
        if model.is_none() {
            self.report(&format!("{key}.model"), "expected the model's name at the backend");
        }
        let Some(backend) = backend else {
            self.report(&format!("{key}.backend"), "expected the class or legacy name of a backend");
            return None;
        };
        match self.resolve(&backend) {
            BackendLookup::Class(class) if self.supports_text(&class) => {}
            BackendLookup::Class(_) | BackendLookup::Unknown => {
                self.report_unsupported(&format!("{key}.backend"));
            }
            BackendLookup::Unconfigured => self.warnings.push(format!(
                "{}: {key}: {backend:?} is not a configured class; requests for it are refused",
                self.source
            )),
        }
        Some(ModelAlias { backend, model: model? })
    }

    fn default(&mut self, name: &str) -> Option<String> {
        match self.resolve(name) {
            BackendLookup::Class(class) if self.supports_text(&class) => return Some(class),
            BackendLookup::Class(_) | BackendLookup::Unknown => self.report_unsupported(DEFAULT),
            BackendLookup::Unconfigured => self.warnings.push(format!(
                "{}: {DEFAULT}: {name:?} is not a configured class; the first backend with the capability is used",
                self.source
            )),
        }
        None
    }

    fn report_unsupported(&mut self, key: &str) {
        let Some(file) = self.file else { return };
        let able: Vec<_> =
            file.backends.classes().into_iter().filter(|class| self.supports_text(class)).collect();
        let able = able.join(", ");
        self.report(key, format!("expected a backend with chat or embeddings (configured: {able})"));
    }

    fn resolve(&self, name: &str) -> BackendLookup {
        // Problems with the backends are reported elsewhere.
        let Some(file) = self.file else { return BackendLookup::Unconfigured };
        match file.backends.resolve(name) {
            Some(backend) => BackendLookup::Class(backend.class.clone()),
            None if file.backends.legacy_names.contains_key(name) => BackendLookup::Unconfigured,
            None if file.disabled.iter().any(|class| class == name) => BackendLookup::Unconfigured,
            None => BackendLookup::Unknown,
        }
    }

    fn supports_text(&self, class: &str) -> bool {
        let backend = self.file.and_then(|file| file.backends.find(class));
        let spoken = [Capability::Chat, Capability::Embeddings];
        backend.is_some_and(|backend| spoken.iter().any(|kind| backend.limits.contains_key(kind)))
    }
}

fn text(entry: &Map<String, Value>, name: &str) -> Option<String> {
    let text = entry.get(name)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
