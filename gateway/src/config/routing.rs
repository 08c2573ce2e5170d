//! Where chat, completions and embeddings go: names for models, and the backend for what names none.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value};
use service::settings::{Problem, Settings, unreadable};

use super::{backends::Capability, backends_file::BackendsFile};

const JSON: &str = "MODEL_ALIASES_JSON";
const PATH: &str = "MODEL_ALIASES_PATH";
const DEFAULT: &str = "DEFAULT_BACKEND";
const EXPECTED: &str = r#"expected a JSON object such as {"name": {"backend": "local_mlx", "model": "…"}}"#;

/// What the configuration says of routing.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// What callers may give as `model`, and what it means.
    pub aliases: BTreeMap<String, Alias>,
    /// The class for requests that nothing else leads anywhere.
    pub default: Option<String>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// A class or legacy name.
    pub backend: String,
    /// The model there.
    pub model: String,
}

impl Routing {
    /// Both sources of aliases together; of one name in both, the JSON in the setting counts.
    pub(super) fn read(
        settings: &mut Settings,
        file: Option<&BackendsFile>,
        notes: &mut Vec<String>,
    ) -> Option<Self> {
        let known = settings.problems.len();
        let mut sources = Vec::new();
        if let Some(path) = settings.raw(PATH).map(str::to_owned) {
            match std::fs::read_to_string(Path::new(&path)) {
                Ok(text) => sources.push((path, text)),
                Err(error) => {
                    let why = unreadable(Path::new(&path), &error);
                    settings.complain(PATH, format!("expected a file at {path:?}: {why}"));
                }
            }
        }
        if let Some(text) = settings.raw(JSON) {
            sources.push((format!("{} {JSON}", settings.source(JSON)), text.to_owned()));
        }
        let mut read = Reading { file, source: String::new(), notes, problems: Vec::new() };
        let mut aliases = BTreeMap::new();
        for (source, text) in sources {
            read.source = source;
            aliases.extend(read.aliases(&text));
        }
        read.source = settings.source(DEFAULT).to_string();
        let default = settings.raw(DEFAULT).and_then(|name| read.default(name.trim()));
        let problems = read.problems;
        settings.problems.extend(problems);
        (settings.problems.len() == known).then_some(Self { aliases, default })
    }
}

struct Reading<'a> {
    file: Option<&'a BackendsFile>,
    source: String,
    notes: &'a mut Vec<String>,
    problems: Vec<Problem>,
}

/// What a name of a backend leads to.
enum Lead {
    Class(String),
    /// It is a name of the configuration, and its class is not there or off.
    Nowhere,
    Unknown,
}

impl Reading<'_> {
    fn wrong(&mut self, key: &str, expected: impl Into<String>) {
        self.problems.push(Problem::new(&self.source, key, expected));
    }

    fn aliases(&mut self, text: &str) -> BTreeMap<String, Alias> {
        let Ok(Value::Object(all)) = serde_json::from_str(text) else {
            self.wrong("(all of it)", EXPECTED);
            return BTreeMap::new();
        };
        all.iter().filter_map(|(name, value)| Some((name.clone(), self.alias(name, value)?))).collect()
    }

    fn alias(&mut self, name: &str, value: &Value) -> Option<Alias> {
        let key = name.escape_debug().to_string();
        let Value::Object(entry) = value else {
            self.wrong(&key, r#"expected {"backend": "…", "model": "…"}"#);
            return None;
        };
        if name.trim().is_empty() {
            self.wrong("(a name)", "expected the name that callers give as model");
        }
        let (backend, model) = (text(entry, "backend"), text(entry, "model"));
        if model.is_none() {
            self.wrong(&format!("{key}.model"), "expected the model's name at the backend");
        }
        let Some(backend) = backend else {
            self.wrong(&format!("{key}.backend"), "expected the class or legacy name of a backend");
            return None;
        };
        match self.lead(&backend) {
            Lead::Class(class) if self.speaks(&class) => {}
            Lead::Class(_) | Lead::Unknown => self.must_be_able(&format!("{key}.backend")),
            Lead::Nowhere => self.notes.push(format!(
                "{}: {key}: {backend:?} leads to no configured class; requests for it are refused",
                self.source
            )),
        }
        Some(Alias { backend, model: model? })
    }

    fn default(&mut self, name: &str) -> Option<String> {
        match self.lead(name) {
            Lead::Class(class) if self.speaks(&class) => return Some(class),
            Lead::Class(_) | Lead::Unknown => self.must_be_able(DEFAULT),
            Lead::Nowhere => self.notes.push(format!(
                "{}: {DEFAULT}: {name:?} leads to no configured class; the first backend that can do it is used",
                self.source
            )),
        }
        None
    }

    fn must_be_able(&mut self, key: &str) {
        let Some(file) = self.file else { return };
        let able: Vec<_> = file.backends.classes().into_iter().filter(|class| self.speaks(class)).collect();
        let able = able.join(", ");
        self.wrong(key, format!("expected a backend with chat or embeddings (there are: {able})"));
    }

    fn lead(&self, name: &str) -> Lead {
        // What is wrong with the backends is told anyway.
        let Some(file) = self.file else { return Lead::Nowhere };
        match file.backends.resolve(name) {
            Some(backend) => Lead::Class(backend.class.clone()),
            None if file.backends.legacy.contains_key(name) => Lead::Nowhere,
            None if file.disabled.iter().any(|class| class == name) => Lead::Nowhere,
            None => Lead::Unknown,
        }
    }

    fn speaks(&self, class: &str) -> bool {
        let backend = self.file.and_then(|file| file.backends.find(class));
        let spoken = [Capability::Chat, Capability::Embeddings];
        backend.is_some_and(|backend| spoken.iter().any(|kind| backend.limits.contains_key(kind)))
    }
}

fn text(entry: &Map<String, Value>, name: &str) -> Option<String> {
    let text = entry.get(name)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}
