//! `backends_config.yaml`: parsed to a value, then walked. What is not ours is kept out of routing and named once.

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
    settings::{Problem, SettingSource, boolean, whole_number, yaml_value},
};

pub(super) use self::values::{EXPECTED_URL, base_url};
use super::backends::{Backend, Backends, Capability, ResponseFormat};

/// What is used when there is no file.
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
    /// The backends.
    pub(super) backends: Backends,
    /// Classes whose `base_url` is empty.
    pub(super) disabled: Vec<String>,
    /// How many images at once each of them would make.
    pub(super) disabled_image_limits: BTreeMap<String, usize>,
    /// What an operator should know.
    pub(super) warnings: Vec<String>,
    /// Of that, what looks misspelled: reported beside the problems, too, since it may be their cause.
    pub(super) misspelled: Vec<Problem>,
}

/// `IMAGES_HTTP_BASE_URL`: a base address in the place of the file's.
#[derive(Debug)]
pub(super) struct BaseUrlOverride<'a> {
    /// The class that it is for.
    pub(super) class: &'a str,
    /// The address.
    pub(super) url: &'a str,
    /// Where it was set.
    pub(super) source: SettingSource,
}

/// Reads the file, or the built-in backends where there is none. `variable` finds what `${NAME}` and `bearer_env`
/// name; `override_url` is the base address of one class.
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
        Ok(_) => parser.report("(the whole file)", "expected `backends:` and below it one entry per backend"),
        Err(fault) => parser.report("(the whole file)", &fault),
    }
    read.warnings.splice(0..0, parser.misspelled.iter().map(ToString::to_string));
    if !parser.unknown.is_empty() {
        read.warnings.push(format!(
            "{}: not the gateway's, left out: {}",
            parser.source,
            parser.unknown.join(", ")
        ));
    }
    if file.is_none() {
        // The built-in mapping names a class that most installations lack; nobody wrote it, so nobody is warned.
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
    /// Those of the backends so far that are on, sound or not.
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
                let nth = |name: &String| order.iter().position(|known| known == name);
                let mut backends: Vec<_> = backends.iter().collect();
                backends.sort_by_key(|(name, _)| nth(name));
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
                    "{}: legacy_mapping.{name}: {class:?} is no configured class; requests for {name:?} are refused",
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
        let known = self.problems.len();
        let class = self.class(&at, name, map);
        let limits = self.limits(&at, map);
        if limits.is_empty() && self.problems.len() == known {
            return self.unknown.push(at);
        }
        let address = self.base_url(&at, &class, map);
        if !matches!(address, BaseUrl::Empty) && !self.classes.insert(class.clone()) {
            self.report(&format!("{at}.class"), "expected a class of its own; another backend has this one");
        }
        match address {
            BaseUrl::Valid(base_url) => {
                let backend = self.backend(&at, class, base_url, limits, map);
                // A problem with any is reported, and then none counts.
                read.backends.all.extend(backend.map(Arc::new));
            }
            BaseUrl::Empty => {
                let images = limits.get(&Capability::Images);
                read.disabled_image_limits.extend(images.map(|limit| (class.clone(), *limit)));
                read.disabled.push(class);
            }
            // Only to find what else is wrong.
            BaseUrl::Invalid => drop(self.backend(&at, class, placeholder_url(), limits, map)),
        }
    }

    /// The name of the class. Where it is none, a problem is noted.
    fn class(&mut self, at: &str, name: &str, map: &Map<String, Value>) -> String {
        let key = format!("{at}.class");
        let class = self.text(&key, map.get("class")).unwrap_or_else(|| name.to_owned());
        let sane = |ch: char| ch.is_ascii_alphanumeric() || "._-".contains(ch);
        if class.is_empty() || class.len() > 64 || !class.chars().all(sane) {
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
                // Either way its limit must be one.
                Capability::ALL.map(|capability| capability.as_str().to_owned()).to_vec()
            }
        };
        let limits_key = format!("{at}.concurrency_limits");
        let limits = self.map(&limits_key, map.get("concurrency_limits"));
        let known: Vec<_> =
            given.iter().map(String::as_str).chain(Capability::ALL.map(Capability::as_str)).collect();
        self.report_unknown_keys(&format!("{limits_key}."), &limits, &known);
        let mut ours = BTreeMap::new();
        for word in given {
            let Some(capability) = Capability::parse(&word) else {
                self.report_unknown_key(
                    &format!("{at}: capability "),
                    &word,
                    &Capability::ALL.map(Capability::as_str),
                );
                continue;
            };
            let key = format!("{limits_key}.{word}");
            let limit = self.text(&key, limits.get(&word)).map_or(Some(1), |text| parse_positive(&text));
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
        let mut wrong = false;
        let given = self.override_url.as_ref().filter(|given| given.class == class);
        let given = given.map(|BaseUrlOverride { url, source, .. }| {
            (source.to_string(), "IMAGES_HTTP_BASE_URL".to_owned(), (*url).to_owned())
        });
        let (source, key, text) = given.unwrap_or_else(|| {
            let key = format!("{at}.base_url");
            let known = self.problems.len();
            let text = self.text(&key, map.get("base_url")).unwrap_or_default();
            wrong = self.problems.len() > known;
            (self.source.clone(), key, text)
        });
        if wrong {
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

    /// The token that `auth: {bearer_env: NAME}` names. A name without a value is a problem: the backend would
    /// refuse every request.
    fn bearer(&mut self, at: &str, map: &Map<String, Value>) -> Option<Secret> {
        let auth = self.section(at, map, "auth", AUTH_KEYS);
        let key = format!("{at}.auth.bearer_env");
        let name = self.text(&key, auth.get("bearer_env"))?;
        // It may be the token itself: only a text written like a name is shown.
        let expected = "expected the name of a variable that holds a token";
        let wrong = match (self.variable)(&name) {
            None if looks_like_variable(&name) => format!("{expected}; {name} is not set"),
            None => format!("{expected}; no variable has the name that stands there"),
            Some(value) if value.trim().is_empty() => format!("{expected}; {name} is empty"),
            Some(value) => match Secret::token(&value) {
                Ok(secret) => return Some(secret),
                Err(why) => format!("{why} ({name})"),
            },
        };
        self.report(&key, &wrong);
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

/// In the place of an address that is none, so that the rest of its backend can be read.
fn placeholder_url() -> Url {
    Url::parse("http://localhost").expect("a sound address")
}

/// Words in capitals with underscores between them, as variables are named and tokens hardly ever.
fn looks_like_variable(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    text.len() <= 64 && text.contains('_') && text.split('_').all(is_word)
}

#[cfg(test)]
mod tests;
