//! `backends_config.yaml`: parsed to a value, then walked. Keys and capabilities that are not the gateway's are ignored, with one
//! warning.

mod key_order;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use reqwest::Url;
use serde_json::{Map, Value};
use service::{
    secret::Secret,
    settings::{Problem, SettingSource, WHOLE_FILE, boolean, whole_number, yaml_value},
};

pub(super) use self::values::{EXPECTED_URL, base_url};
use super::backends::{Backend, Backends, Capability, ResponseFormat};

/// Used if there is no file.
const DEFAULT_BACKENDS: &str = include_str!("backends_default.yaml");

const TOP_KEYS: &[&str] = &["backends", "legacy_mapping"];
const BACKEND_KEYS: &[&str] = &[
    "class",
    "base_url",
    "supported_capabilities",
    "concurrency_limits",
    "health",
    "payload_policy",
    "auth",
    "default_model",
];
const HEALTH_KEYS: &[&str] = &["liveness", "readiness"];
const POLICY_KEYS: &[&str] = &["images_format", "images_allow_base64"];
const AUTH_KEYS: &[&str] = &["bearer_env"];

/// The file as read.
#[derive(Debug, Default)]
pub(super) struct BackendsFile {
    pub(super) backends: Backends,
    /// Classes whose `base_url` is empty.
    pub(super) disabled: Vec<String>,
    /// Their image slots.
    pub(super) disabled_image_limits: BTreeMap<String, usize>,
    pub(super) warnings: Vec<String>,
    /// The warnings about likely misspellings: reported with the problems, too, because they may be their cause.
    pub(super) misspelled: Vec<Problem>,
}

/// `IMAGES_HTTP_BASE_URL`, which replaces the `base_url` of one class.
#[derive(Debug)]
pub(super) struct BaseUrlOverride<'a> {
    pub(super) class: &'a str,
    pub(super) url: &'a str,
    pub(super) source: SettingSource,
}

/// Reads the file, or the built-in backends if there is none. `variable` looks up `${NAME}` and `bearer_env`.
pub(super) fn parse(
    file: Option<(&Path, &str)>,
    override_url: Option<BaseUrlOverride<'_>>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BackendsFile, Vec<Problem>> {
    let (source, text) = file.map_or(("built-in backends".to_owned(), DEFAULT_BACKENDS), |(path, text)| {
        (path.display().to_string(), text)
    });
    let mut parser = BackendsParser {
        source,
        variable,
        override_url,
        classes: BTreeSet::new(),
        unknown: Vec::new(),
        misspelled: Vec::new(),
        problems: Vec::new(),
    };
    let mut read = BackendsFile::default();
    match yaml_value(text) {
        Ok(Value::Object(top)) => parser.top(&top, &key_order::backend_names(text), &mut read),
        Ok(_) => parser.report(WHOLE_FILE, "expected `backends:` and below it one entry per backend"),
        Err(error) => parser.report(WHOLE_FILE, &error),
    }
    read.warnings.splice(0..0, parser.misspelled.iter().map(ToString::to_string));
    if !parser.unknown.is_empty() {
        read.warnings.push(format!(
            "{}: ignored unknown keys and capabilities: {}",
            parser.source,
            parser.unknown.join(", ")
        ));
    }
    if file.is_none() {
        // The built-in mapping names a class that most installations lack, which is nothing to warn of.
        read.warnings.clear();
    }
    if parser.problems.is_empty() {
        Ok(BackendsFile { misspelled: parser.misspelled, ..read })
    } else {
        Err([parser.problems, parser.misspelled].concat())
    }
}

struct BackendsParser<'a> {
    source: String,
    variable: &'a dyn Fn(&str) -> Option<String>,
    override_url: Option<BaseUrlOverride<'a>>,
    /// Of all enabled backends so far, valid or not.
    classes: BTreeSet<String>,
    unknown: Vec<String>,
    misspelled: Vec<Problem>,
    problems: Vec<Problem>,
}

impl BackendsParser<'_> {
    fn top(&mut self, top: &Map<String, Value>, order: &[String], read: &mut BackendsFile) {
        self.report_unknown_keys("", top, TOP_KEYS);
        match top.get("backends") {
            Some(Value::Object(backends)) => {
                let position = |name: &String| order.iter().position(|other| other == name);
                let mut backends: Vec<_> = backends.iter().collect();
                backends.sort_by_key(|(name, _)| position(name));
                for (name, value) in backends {
                    self.entry(name, value, read);
                }
            }
            _ => self.report("backends", "expected one entry per backend"),
        }
        for (name, class) in self.map("legacy_mapping", top.get("legacy_mapping")) {
            let class = self.text(&format!("legacy_mapping.{name}"), Some(&class)).unwrap_or_default();
            if read.backends.find(&class).is_none() {
                read.warnings.push(format!(
                    "{}: legacy_mapping.{name}: {class:?} is not a configured class; requests for {name:?} are refused",
                    self.source
                ));
            }
            read.backends.legacy_names.insert(name, class);
        }
    }

    fn entry(&mut self, name: &str, value: &Value, read: &mut BackendsFile) {
        let at = format!("backends.{name}");
        let Value::Object(map) = value else {
            return self.report(&at, "expected class, base_url and so on below it");
        };
        self.report_unknown_keys(&format!("{at}."), map, BACKEND_KEYS);
        let before = self.problems.len();
        let class = self.class(&at, name, map);
        let limits = self.limits(&at, map);
        if limits.is_empty() && self.problems.len() == before {
            return self.unknown.push(at);
        }
        let address = self.base_url(&at, &class, map);
        if !matches!(address, BaseUrl::Empty) && !self.classes.insert(class.clone()) {
            self.report(&format!("{at}.class"), "expected a unique class; another backend has this one");
        }
        match address {
            BaseUrl::Valid(base_url) => {
                let backend = self.backend(&at, class, base_url, limits, map);
                read.backends.all.extend(backend.map(Arc::new));
            }
            BaseUrl::Empty => {
                let images = limits.get(&Capability::Images);
                read.disabled_image_limits.extend(images.map(|limit| (class.clone(), *limit)));
                read.disabled.push(class);
            }
            // Only to find further problems.
            BaseUrl::Invalid => drop(self.backend(&at, class, placeholder_url(), limits, map)),
        }
    }

    fn class(&mut self, at: &str, name: &str, map: &Map<String, Value>) -> String {
        let key = format!("{at}.class");
        let class = self.text(&key, map.get("class")).unwrap_or_else(|| name.to_owned());
        let is_allowed = |ch: char| ch.is_ascii_alphanumeric() || "._-".contains(ch);
        if class.is_empty() || class.len() > 64 || !class.chars().all(is_allowed) {
            self.report(&key, "expected 1 to 64 letters, digits, `.`, `_` or `-`");
        }
        class
    }

    fn backend(
        &mut self,
        at: &str,
        class: String,
        base_url: Url,
        limits: BTreeMap<Capability, usize>,
        map: &Map<String, Value>,
    ) -> Option<Backend> {
        let health = self.section(at, map, "health", HEALTH_KEYS);
        let policy = self.section(at, map, "payload_policy", POLICY_KEYS);
        let liveness =
            self.path(&format!("{at}.health.liveness"), health.get("liveness"), "/healthz", &base_url);
        let readiness =
            self.path(&format!("{at}.health.readiness"), health.get("readiness"), "/readyz", &base_url);
        let format_key = format!("{at}.payload_policy.images_format");
        let format = self.text(&format_key, policy.get("images_format")).unwrap_or_else(|| "url".to_owned());
        let images_format = ResponseFormat::parse(&format);
        if images_format.is_none() {
            self.report(&format_key, "expected url or b64_json");
        }
        let base64_key = format!("{at}.payload_policy.images_allow_base64");
        let allow = self.text(&base64_key, policy.get("images_allow_base64"));
        let images_allow_base64 = allow.map_or(Some(true), |text| boolean(&text));
        if images_allow_base64.is_none() {
            self.report(&base64_key, "expected true or false");
        }
        if images_allow_base64 == Some(false) && images_format == Some(ResponseFormat::Base64) {
            self.report(&base64_key, "expected true where images_format is b64_json");
        }
        let bearer = self.bearer(at, map);
        let default_model = self.text(&format!("{at}.default_model"), map.get("default_model"));
        Some(Backend {
            class,
            limits,
            liveness: liveness?,
            readiness: readiness?,
            images_format: images_format?,
            images_allow_base64: images_allow_base64?,
            bearer,
            base_url,
            default_model: default_model.filter(|model| !model.trim().is_empty()),
        })
    }

    /// Our capabilities with their limits; a missing limit means 1.
    fn limits(&mut self, at: &str, map: &Map<String, Value>) -> BTreeMap<Capability, usize> {
        let key = format!("{at}.supported_capabilities");
        let given = match map.get("supported_capabilities") {
            Some(Value::Array(items)) => {
                items.iter().filter_map(|item| self.text(&key, Some(item))).collect()
            }
            None | Some(Value::Null) => Vec::new(),
            Some(_) => {
                self.report(&key, "expected a list such as [images]");
                // All limits are still checked.
                Capability::ALL.map(|capability| capability.as_str().to_owned()).to_vec()
            }
        };
        let limits_key = format!("{at}.concurrency_limits");
        let limits = self.map(&limits_key, map.get("concurrency_limits"));
        let known_keys: Vec<_> =
            given.iter().map(String::as_str).chain(Capability::ALL.map(Capability::as_str)).collect();
        self.report_unknown_keys(&format!("{limits_key}."), &limits, &known_keys);
        let mut ours = BTreeMap::new();
        for name in given {
            let Some(capability) = Capability::parse(&name) else {
                self.report_unknown_key(
                    &format!("{at}: capability "),
                    &name,
                    &Capability::ALL.map(Capability::as_str),
                );
                continue;
            };
            let key = format!("{limits_key}.{name}");
            let limit = self.text(&key, limits.get(&name)).map_or(Some(1), |text| parse_positive(&text));
            match limit {
                Some(limit) => {
                    ours.insert(capability, limit);
                }
                None => self.report(&key, "expected a whole number above 0"),
            }
        }
        ours
    }

    fn base_url(&mut self, at: &str, class: &str, map: &Map<String, Value>) -> BaseUrl {
        let mut is_invalid = false;
        let given = self.override_url.as_ref().filter(|given| given.class == class);
        let given = given.map(|BaseUrlOverride { url, source, .. }| {
            (source.to_string(), "IMAGES_HTTP_BASE_URL".to_owned(), (*url).to_owned())
        });
        let (source, key, text) = given.unwrap_or_else(|| {
            let key = format!("{at}.base_url");
            let before = self.problems.len();
            let text = self.text(&key, map.get("base_url")).unwrap_or_default();
            is_invalid = self.problems.len() > before;
            (self.source.clone(), key, text)
        });
        if is_invalid {
            return BaseUrl::Invalid;
        }
        if text.trim().is_empty() {
            return BaseUrl::Empty;
        }
        if let Some(url) = base_url(&text) {
            return BaseUrl::Valid(url);
        }
        self.problems.push(Problem::new(source, key, EXPECTED_URL));
        BaseUrl::Invalid
    }

    /// The token in the variable that `bearer_env` names. An undefined variable is a problem: the backend would reject every
    /// request.
    fn bearer(&mut self, at: &str, map: &Map<String, Value>) -> Option<Secret> {
        let auth = self.section(at, map, "auth", AUTH_KEYS);
        let key = format!("{at}.auth.bearer_env");
        let name = self.text(&key, auth.get("bearer_env"))?;
        // The value may be the token itself: it is shown only if it looks like a variable's name.
        let expected = "expected the name of a variable that holds a token";
        let problem = match (self.variable)(&name) {
            None if looks_like_variable(&name) => format!("{expected}; {name} is not set"),
            None => format!("{expected}; no variable has that name"),
            Some(value) if value.trim().is_empty() => format!("{expected}; {name} is empty"),
            Some(value) => match Secret::token(&value) {
                Ok(secret) => return Some(secret),
                Err(why) => format!("{why} ({name})"),
            },
        };
        self.report(&key, &problem);
        None
    }
}

fn parse_positive(text: &str) -> Option<usize> {
    whole_number(text).and_then(|limit| limit.try_into().ok()).filter(|limit| *limit > 0)
}

enum BaseUrl {
    Valid(Url),
    Empty,
    Invalid,
}

/// Replaces an invalid URL, so that the rest of the backend can be checked.
fn placeholder_url() -> Url {
    Url::parse("http://localhost").expect("a valid URL")
}

/// Capitals and digits with underscores between them: variables are often named so, tokens hardly ever.
fn looks_like_variable(text: &str) -> bool {
    let is_capitalized = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    text.len() <= 64 && text.contains('_') && text.split('_').all(is_capitalized)
}

#[cfg(test)]
mod tests;
