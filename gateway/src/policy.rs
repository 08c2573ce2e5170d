//! Which backend a request goes to: image requests to one class, others as [`text`] decides. There is no fallback. Pure.

pub(crate) mod legacy;
pub(crate) mod text;

use std::sync::Arc;

use crate::{
    config::{Backend, Backends, Capability, ImageEngine, ImagesConfig, ResponseFormat},
    request::image_request::ImageRequest,
};

/// A request with the backend it goes to.
#[derive(Debug)]
pub(crate) struct Routed {
    backend: Arc<Backend>,
    engine: ImageEngine,
    capability: Capability,
    model: Option<String>,
    /// For images.
    response_format: ResponseFormat,
    reason: RoutingReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoutingReason {
    /// Image requests go to one class.
    BackendClass,
    /// `X-Backend` names it.
    Header,
    /// The model is an alias.
    Alias,
    /// The model is a class, or is listed by one backend.
    Model,
    /// Nothing else decides.
    Default,
}

/// Why a request has no backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoutingError {
    /// `X-Backend` names no configured backend.
    UnknownBackend { name: String, configured: Vec<String> },
    /// The class for images is disabled or not configured.
    NoImageBackend { class: String },
    /// The named backend cannot do this.
    UnsupportedCapability { class: String, capability: Capability, supported: Vec<String> },
    /// No backend can do this.
    NoCapableBackend(Capability),
    /// The backend's policy allows URLs only.
    Base64Disabled { class: String },
    /// The same for a stream, whose events carry base64.
    StreamingDisabled { class: String },
}

impl Routed {
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    pub(crate) const fn engine(&self) -> ImageEngine {
        self.engine
    }

    pub(crate) const fn capability(&self) -> Capability {
        self.capability
    }

    /// `None` leaves it to the backend.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(crate) const fn response_format(&self) -> ResponseFormat {
        self.response_format
    }

    /// For `X-Router-Reason`.
    pub(crate) const fn reason(&self) -> &'static str {
        match self.reason {
            RoutingReason::BackendClass => "backend_class",
            RoutingReason::Header => "header:x-backend",
            RoutingReason::Alias => "alias",
            RoutingReason::Model => "model",
            RoutingReason::Default => "default",
        }
    }

    /// For `X-Backend-Used`.
    pub(crate) fn backend_used(&self) -> &str {
        match self.engine {
            ImageEngine::Backend => &self.backend.class,
            ImageEngine::Mock => "mock",
        }
    }
}

pub(crate) fn route_images(
    backends: &Backends,
    rules: &ImagesConfig,
    request: &ImageRequest,
) -> Result<Routed, RoutingError> {
    let class = match &request.backend {
        Some(name) => backends.class_of(name),
        None => rules.class.as_str(),
    };
    let backend = backends.for_images(class).ok_or_else(|| match &request.backend {
        Some(name) if class != rules.class => unknown_backend(backends, name),
        _ => RoutingError::NoImageBackend { class: rules.class.clone() },
    })?;
    if backend.class != rules.class {
        return Err(RoutingError::UnsupportedCapability {
            class: backend.class.clone(),
            capability: Capability::Images,
            supported: backend.capabilities(),
        });
    }
    if request.stream && !backend.images_allow_base64 {
        return Err(RoutingError::StreamingDisabled { class: backend.class.clone() });
    }
    let response_format = response_format(backend, rules, request)?;
    // A class name as model asks for the class, where image requests go anyway.
    let model = request.model.as_deref().filter(|model| !is_class(backends, model));
    Ok(Routed {
        backend: backend.clone(),
        engine: rules.engine,
        capability: Capability::Images,
        model: model.or(rules.model.as_deref()).map(str::to_owned),
        response_format,
        reason: RoutingReason::BackendClass,
    })
}

/// Whether a model's name is the current or a legacy name of a class.
fn is_class(backends: &Backends, model: &str) -> bool {
    backends.find(model).is_some() || backends.legacy_names.contains_key(model)
}

fn unknown_backend(backends: &Backends, name: &str) -> RoutingError {
    let configured = backends.classes().into_iter().map(str::to_owned).collect();
    RoutingError::UnknownBackend { name: name.to_owned(), configured }
}

/// What the request asks for; else base64 for clients that hard-code OpenAI's model names and fetch no URLs; else the policy.
fn response_format(
    backend: &Backend,
    rules: &ImagesConfig,
    request: &ImageRequest,
) -> Result<ResponseFormat, RoutingError> {
    let model = request.model.as_deref().unwrap_or_default();
    let openai_name = model.starts_with("gpt-image") || model.starts_with("chatgpt-image");
    match request.response_format {
        Some(ResponseFormat::Base64) if !backend.images_allow_base64 => {
            Err(RoutingError::Base64Disabled { class: backend.class.clone() })
        }
        Some(requested) => Ok(requested),
        None if openai_name && rules.gpt_aliases_base64 && backend.images_allow_base64 => {
            Ok(ResponseFormat::Base64)
        }
        None => Ok(backend.images_format),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use wire::openai::fields::Fields;

    use super::*;
    use crate::{
        config::backends::tests::backend,
        request::image_request::{ImageTask, REQUEST_FIELDS},
    };

    pub(crate) fn rules() -> ImagesConfig {
        ImagesConfig {
            engine: ImageEngine::Backend,
            class: "gpu_heavy".to_owned(),
            model: None,
            max_pixels: 2_000_000,
            timeout: Duration::from_secs(280),
            gpt_aliases_base64: true,
        }
    }

    pub(crate) fn backends() -> Backends {
        let heavy = backend("gpu_heavy", &[(Capability::Images, 2)]);
        let mlx = backend("local_mlx", &[(Capability::Chat, 2), (Capability::Embeddings, 2)]);
        let legacy = [("mlx", "local_mlx"), ("ollama", "gpu_fast"), ("ada2", "gpu_heavy")];
        let legacy = legacy.iter().map(|(name, class)| ((*name).to_owned(), (*class).to_owned()));
        Backends { all: vec![mlx, heavy], legacy_names: legacy.collect::<BTreeMap<_, _>>(), mock: None }
    }

    pub(crate) fn image_request(backend: Option<&str>, extra: &str) -> ImageRequest {
        let fields = Fields::parse(format!(r#"{{"prompt":"p"{extra}}}"#).as_bytes(), REQUEST_FIELDS).unwrap();
        ImageRequest::from_fields(ImageTask::Generation, &fields, backend.map(str::to_owned), 2_000_000)
            .unwrap()
    }

    fn route(backend: Option<&str>, extra: &str) -> Result<Routed, RoutingError> {
        route_images(&backends(), &rules(), &image_request(backend, extra))
    }

    #[test]
    fn image_requests_go_to_their_class() {
        for (header, extra) in [
            (None, ""),
            (None, r#","model":"local_mlx""#),
            (Some("gpu_heavy"), ""),
            (Some("ada2"), r#","model":"any""#),
        ] {
            assert_eq!(route(header, extra).unwrap().backend().class, "gpu_heavy", "{header:?} {extra}");
        }
    }

    #[test]
    fn the_backend_used_is_the_class_or_the_mock() {
        for (engine, used) in [(ImageEngine::Backend, "gpu_heavy"), (ImageEngine::Mock, "mock")] {
            let rules = ImagesConfig { engine, ..rules() };
            let routed = route_images(&backends(), &rules, &image_request(None, "")).unwrap();
            assert_eq!(routed.backend_used(), used);
        }
    }

    #[test]
    fn another_class_is_rejected_by_its_capabilities() {
        for name in ["local_mlx", "mlx"] {
            let supported = vec!["chat".to_owned(), "embeddings".to_owned()];
            let error = RoutingError::UnsupportedCapability {
                class: "local_mlx".into(),
                capability: Capability::Images,
                supported,
            };
            assert_eq!(route(Some(name), "").unwrap_err(), error);
        }
        for name in ["nobody", "ollama", "LOCAL_MLX"] {
            assert!(matches!(route(Some(name), ""), Err(RoutingError::UnknownBackend { .. })), "{name}");
        }
    }

    #[test]
    fn without_its_class_an_image_request_is_rejected_by_name() {
        let mut chat_only = backends();
        chat_only.all.pop();
        let route = |name| route_images(&chat_only, &rules(), &image_request(name, ""));
        for name in [None, Some("gpu_heavy"), Some("ada2")] {
            assert_eq!(
                route(name).unwrap_err(),
                RoutingError::NoImageBackend { class: "gpu_heavy".into() },
                "{name:?}"
            );
        }
        assert!(matches!(route(Some("mlx")), Err(RoutingError::UnsupportedCapability { .. })));
        assert!(
            matches!(route(Some("ollama")), Err(RoutingError::UnknownBackend { name, .. }) if name == "ollama")
        );
    }

    #[test]
    fn a_class_name_as_model_counts_as_none() {
        let with_default = ImagesConfig { model: Some("sd-xl".to_owned()), ..rules() };
        for (extra, model) in [
            (r#","model":"gpu_heavy""#, None),
            (r#","model":"mlx""#, None),
            (r#","model":"sd-v1-5""#, Some("sd-v1-5")),
            ("", None),
        ] {
            assert_eq!(route(None, extra).unwrap().model(), model, "{extra}");
            let defaulted = route_images(&backends(), &with_default, &image_request(None, extra)).unwrap();
            assert_eq!(defaulted.model(), model.or(Some("sd-xl")), "{extra}");
        }
    }

    #[test]
    fn the_response_format_is_as_requested_else_by_model_name_else_the_policy() {
        let url_only = || {
            let mut backends = backends();
            let mut heavy = (**backends.find("gpu_heavy").unwrap()).clone();
            heavy.images_allow_base64 = false;
            backends.all[1] = Arc::new(heavy);
            backends
        };
        for (extra, expected, without_base64) in [
            ("", ResponseFormat::Url, Ok(ResponseFormat::Url)),
            (r#","response_format":"url""#, ResponseFormat::Url, Ok(ResponseFormat::Url)),
            (r#","response_format":"b64_json""#, ResponseFormat::Base64, Err(())),
            (r#","model":"gpt-image-1""#, ResponseFormat::Base64, Ok(ResponseFormat::Url)),
            (r#","model":"chatgpt-image-latest""#, ResponseFormat::Base64, Ok(ResponseFormat::Url)),
            (r#","model":"my-gpt-image""#, ResponseFormat::Url, Ok(ResponseFormat::Url)),
            (
                r#","model":"gpt-image-1","response_format":"url""#,
                ResponseFormat::Url,
                Ok(ResponseFormat::Url),
            ),
        ] {
            let request = image_request(None, extra);
            let route = |backends: &Backends, rules: &ImagesConfig| route_images(backends, rules, &request);
            assert_eq!(route(&backends(), &rules()).unwrap().response_format(), expected, "{extra}");
            let plain = route(&url_only(), &rules()).map(|routed| routed.response_format()).map_err(|_| ());
            assert_eq!(plain, without_base64, "{extra}");
        }
        let streamed = route_images(&url_only(), &rules(), &image_request(None, r#","stream":true"#));
        assert_eq!(streamed.unwrap_err(), RoutingError::StreamingDisabled { class: "gpu_heavy".to_owned() });
        let off = ImagesConfig { gpt_aliases_base64: false, ..rules() };
        let request = image_request(None, r#","model":"gpt-image-1""#);
        assert_eq!(route_images(&backends(), &off, &request).unwrap().response_format(), ResponseFormat::Url);
    }
}
