//! The configured backends. Their classes are data, not code.

use std::{collections::BTreeMap, fmt, sync::Arc};

use reqwest::{RequestBuilder, Url};
use service::secret::{Secret, redact_url};

/// What a backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Images.
    Images,
    /// Chat and completions.
    Chat,
    /// Embeddings.
    Embeddings,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Images, Self::Chat, Self::Embeddings];

    /// Its name in the configuration and in `route_kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Chat => "chat",
            Self::Embeddings => "embeddings",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|capability| capability.as_str() == text)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an image is returned to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFormat {
    /// A URL in the gateway's store.
    Url,
    /// Base64 in the response.
    Base64,
}

impl ResponseFormat {
    /// Reads the value of `response_format`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "url" => Some(Self::Url),
            "b64_json" => Some(Self::Base64),
            _ => None,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Url => "url",
            Self::Base64 => "b64_json",
        }
    }
}

/// One backend class.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Its name in requests, responses and logs.
    pub class: String,
    /// May end in `/v1`.
    pub base_url: Url,
    /// The number of slots for each of its capabilities.
    pub limits: BTreeMap<Capability, usize>,
    /// Where its liveness is probed.
    pub liveness: Url,
    /// Where its readiness is probed.
    pub readiness: Url,
    /// The `response_format` of requests that have none.
    pub images_format: ResponseFormat,
    /// Whether clients may request `b64_json`.
    pub images_allow_base64: bool,
    /// Its own token, never a client's.
    pub bearer: Option<Secret>,
    /// The model for text and embedding requests that name none.
    pub default_model: Option<String>,
}

impl Backend {
    /// The request with the backend's own token.
    pub fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.bearer {
            Some(secret) => request.bearer_auth(secret.expose()),
            None => request,
        }
    }

    /// Whether the health of one is valid for the other: the same URL, probed in the same way.
    pub fn is_same_endpoint(&self, other: &Self) -> bool {
        let token = |backend: &Self| backend.bearer.as_ref().map(|secret| secret.expose().to_owned());
        self.base_url == other.base_url
            && self.liveness == other.liveness
            && self.readiness == other.readiness
            && token(self) == token(other)
    }

    /// The URL of one of its OpenAI paths, such as `images/generations`.
    pub fn api_url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let version = if base.ends_with("/v1") { "" } else { "/v1" };
        url.set_path(&format!("{base}{version}/{path}"));
        url
    }

    /// By name.
    pub fn capabilities(&self) -> Vec<String> {
        self.limits.keys().map(ToString::to_string).collect()
    }
}

/// All backends.
#[derive(Debug, Clone, Default)]
pub struct Backends {
    /// In the order of the file.
    pub all: Vec<Arc<Backend>>,
    /// Earlier names of classes.
    pub legacy_names: BTreeMap<String, String>,
    /// Has the limits for placeholder images if no other backend makes images under their class.
    pub mock: Option<Arc<Backend>>,
}

impl Backend {
    /// Has the limits for placeholder images of an unconfigured class; no request is ever sent to it.
    pub(super) fn mock(class: &str, limit: usize) -> Self {
        let nowhere = Url::parse("http://localhost").expect("a valid URL");
        Self {
            class: class.to_owned(),
            limits: BTreeMap::from([(Capability::Images, limit)]),
            liveness: nowhere.clone(),
            readiness: nowhere.clone(),
            base_url: nowhere,
            images_format: ResponseFormat::Url,
            images_allow_base64: true,
            bearer: None,
            default_model: None,
        }
    }
}

impl Backends {
    /// The backend of a class.
    pub fn find(&self, class: &str) -> Option<&Arc<Backend>> {
        self.all.iter().find(|backend| backend.class == class)
    }

    /// The backend of a class or legacy name.
    pub fn resolve(&self, name: &str) -> Option<&Arc<Backend>> {
        self.find(name).or_else(|| self.legacy_names.get(name).and_then(|class| self.find(class)))
    }

    /// The class of a class or legacy name, configured or not.
    pub fn class_of<'a>(&'a self, name: &'a str) -> &'a str {
        match self.find(name) {
            Some(_) => name,
            None => self.legacy_names.get(name).map_or(name, String::as_str),
        }
    }

    /// The backend that makes the images of a class.
    pub fn for_images(&self, class: &str) -> Option<&Arc<Backend>> {
        self.mock.as_ref().filter(|mock| mock.class == class).or_else(|| self.find(class))
    }

    /// The names of the classes.
    pub fn classes(&self) -> Vec<&str> {
        self.all.iter().map(|backend| backend.class.as_str()).collect()
    }
}

impl fmt::Display for Backends {
    /// As YAML that could be pasted back; without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "backends:")?;
        for backend in &self.all {
            let limits: Vec<_> =
                backend.limits.iter().map(|(kind, limit)| format!("{kind}: {limit}")).collect();
            writeln!(f, "  {}:", backend.class)?;
            writeln!(f, "    base_url: {}", redact_url(&backend.base_url))?;
            writeln!(f, "    supported_capabilities: [{}]", backend.capabilities().join(", "))?;
            writeln!(f, "    concurrency_limits: {{{}}}", limits.join(", "))?;
            writeln!(
                f,
                "    health: {{liveness: {}, readiness: {}}}",
                backend.liveness.path(),
                backend.readiness.path()
            )?;
            writeln!(
                f,
                "    payload_policy: {{images_format: {}, images_allow_base64: {}}}",
                backend.images_format.as_str(),
                backend.images_allow_base64
            )?;
            if let Some(model) = &backend.default_model {
                writeln!(f, "    default_model: {model:?}")?;
            }
            if backend.bearer.is_some() {
                writeln!(f, "    # sends a bearer token of its own: [redacted]")?;
            }
        }
        let legacy: Vec<_> =
            self.legacy_names.iter().map(|(name, class)| format!("{name}: {class}")).collect();
        writeln!(f, "legacy_mapping: {{{}}}", legacy.join(", "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn backend(class: &str, limits: &[(Capability, usize)]) -> Arc<Backend> {
        let url = |path: &str| Url::parse("http://127.0.0.1:1").unwrap().join(path).unwrap();
        Arc::new(Backend {
            class: class.to_owned(),
            base_url: url("/"),
            limits: limits.iter().copied().collect(),
            liveness: url("/healthz"),
            readiness: url("/readyz"),
            images_format: ResponseFormat::Url,
            images_allow_base64: true,
            bearer: None,
            default_model: None,
        })
    }

    #[test]
    fn paths_go_below_v1_once() {
        for (base, expected) in [
            ("http://ada2:7860", "http://ada2:7860/v1/models"),
            ("http://ada2:7860/", "http://ada2:7860/v1/models"),
            ("http://a:1/v1", "http://a:1/v1/models"),
            ("http://a:1/v1/", "http://a:1/v1/models"),
            ("https://a/x", "https://a/x/v1/models"),
        ] {
            let mut backend = (*backend("c", &[])).clone();
            backend.base_url = base.parse().unwrap();
            assert_eq!(backend.api_url("models").as_str(), expected);
        }
    }
}
