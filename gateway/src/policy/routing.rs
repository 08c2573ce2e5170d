//! Where a request may go. Pictures go to one class, other requests where [`text`] says; no other is ever tried instead.

pub(crate) mod text;

use std::sync::Arc;

use crate::{
    config::{Backend, Backends, Capability, ImageEngine, ImagesConfig, ResponseFormat},
    request::image_request::ImageRequest,
};

/// A request that may go to its backend.
#[derive(Debug)]
pub(crate) struct Routed {
    backend: Arc<Backend>,
    engine: ImageEngine,
    capability: Capability,
    model: Option<String>,
    /// Of pictures.
    response_format: ResponseFormat,
    reason: RoutingReason,
}

/// Why a request goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoutingReason {
    /// Pictures have one class.
    BackendClass,
    /// `X-Backend` names it.
    Header,
    /// The model is an alias.
    Alias,
    /// The model is a class, or is listed by one backend.
    Model,
    /// Nothing else says where.
    Default,
}

/// Why a request may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RoutingError {
    /// `X-Backend` names nothing configured.
    UnknownBackend {
        /// What it names.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The class that pictures come from is off, or not configured.
    NoImageBackend {
        /// The class.
        class: String,
    },
    /// The backend named does not do this.
    UnsupportedCapability {
        /// The backend.
        class: String,
        /// What was asked of it.
        capability: Capability,
        /// What it does.
        supported: Vec<String>,
    },
    /// No backend at all does this.
    NoCapableBackend(Capability),
    /// The backend's policy hands out addresses only.
    Base64Disabled {
        /// The backend.
        class: String,
    },
    /// The same, and a stream's events carry base64.
    StreamingDisabled {
        /// The backend.
        class: String,
    },
}

impl Routed {
    /// The backend.
    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Who makes the pictures.
    pub(crate) const fn engine(&self) -> ImageEngine {
        self.engine
    }

    /// What counts against which limit.
    pub(crate) const fn capability(&self) -> Capability {
        self.capability
    }

    /// The model to ask the backend for; none leaves it to the backend.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// How the pictures are handed out.
    pub(crate) const fn response_format(&self) -> ResponseFormat {
        self.response_format
    }

    /// Why it goes there, in the words of `X-Router-Reason`.
    pub(crate) const fn reason(&self) -> &'static str {
        match self.reason {
            RoutingReason::BackendClass => "backend_class",
            RoutingReason::Header => "header:x-backend",
            RoutingReason::Alias => "alias",
            RoutingReason::Model => "model",
            RoutingReason::Default => "default",
        }
    }

    /// The name in `X-Backend-Used`.
    pub(crate) fn backend_used(&self) -> &str {
        match self.engine {
            ImageEngine::Backend => &self.backend.class,
            ImageEngine::Mock => "mock",
        }
    }
}

/// Where a picture request goes.
pub(crate) fn route_images(
    backends: &Backends,
    rules: &ImagesConfig,
    request: &ImageRequest,
) -> Result<Routed, RoutingError> {
    let named = match &request.backend {
        Some(name) => backends.class_of(name),
        None => rules.class.as_str(),
    };
    let backend = backends.for_images(named).ok_or_else(|| match &request.backend {
        Some(name) if named != rules.class => unknown_backend(backends, name),
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
    let delivery = response_format(backend, rules, request)?;
    // A class name as model asks for the class, which pictures go to anyway: it counts as none given.
    let asked = request.model.as_deref().filter(|model| !is_class(backends, model));
    Ok(Routed {
        backend: backend.clone(),
        engine: rules.engine,
        capability: Capability::Images,
        model: asked.or(rules.model.as_deref()).map(str::to_owned),
        response_format: delivery,
        reason: RoutingReason::BackendClass,
    })
}

/// Whether a model's name is the name of a class, of today or of earlier versions.
fn is_class(backends: &Backends, model: &str) -> bool {
    backends.find(model).is_some() || backends.legacy_names.contains_key(model)
}

fn unknown_backend(backends: &Backends, name: &str) -> RoutingError {
    let known = backends.classes().into_iter().map(str::to_owned).collect();
    RoutingError::UnknownBackend { name: name.to_owned(), known }
}

/// What was asked for; else base64 for clients that hard-code OpenAI's names and cannot fetch; else the policy.
fn response_format(
    backend: &Backend,
    rules: &ImagesConfig,
    request: &ImageRequest,
) -> Result<ResponseFormat, RoutingError> {
    let model = request.model.as_deref().unwrap_or_default();
    let hard_coded = model.starts_with("gpt-image") || model.starts_with("chatgpt-image");
    match request.response_format {
        Some(ResponseFormat::Base64) if !backend.images_allow_base64 => {
            Err(RoutingError::Base64Disabled { class: backend.class.clone() })
        }
        Some(asked) => Ok(asked),
        None if hard_coded && rules.gpt_aliases_base64 && backend.images_allow_base64 => {
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
        request::image_request::{FIELDS, ImageTask},
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
        let fields = Fields::parse(format!(r#"{{"prompt":"p"{extra}}}"#).as_bytes(), FIELDS).unwrap();
        ImageRequest::from_fields(ImageTask::Generation, &fields, backend.map(str::to_owned), 2_000_000)
            .unwrap()
    }

    fn permit(backend: Option<&str>, extra: &str) -> Result<Routed, RoutingError> {
        route_images(&backends(), &rules(), &image_request(backend, extra))
    }

    #[test]
    fn pictures_go_to_their_class_whoever_asks_how() {
        for (header, extra) in [
            (None, ""),
            (None, r#","model":"local_mlx""#),
            (Some("gpu_heavy"), ""),
            (Some("ada2"), r#","model":"any""#),
        ] {
            assert_eq!(permit(header, extra).unwrap().backend().class, "gpu_heavy", "{header:?} {extra}");
        }
    }

    #[test]
    fn another_class_is_refused_by_what_it_can_do() {
        for name in ["local_mlx", "mlx"] {
            let supported = vec!["chat".to_owned(), "embeddings".to_owned()];
            let denial = RoutingError::UnsupportedCapability {
                class: "local_mlx".into(),
                capability: Capability::Images,
                supported,
            };
            assert_eq!(permit(Some(name), "").unwrap_err(), denial);
        }
        for name in ["nobody", "ollama", "LOCAL_MLX"] {
            assert!(matches!(permit(Some(name), ""), Err(RoutingError::UnknownBackend { .. })), "{name}");
        }
    }

    #[test]
    fn without_its_class_a_picture_is_refused_by_name_and_others_as_ever() {
        let mut chat_only = backends();
        chat_only.all.pop();
        let permit = |name| route_images(&chat_only, &rules(), &image_request(name, ""));
        for name in [None, Some("gpu_heavy"), Some("ada2")] {
            assert_eq!(
                permit(name).unwrap_err(),
                RoutingError::NoImageBackend { class: "gpu_heavy".into() },
                "{name:?}"
            );
        }
        assert!(matches!(permit(Some("mlx")), Err(RoutingError::UnsupportedCapability { .. })));
        assert!(
            matches!(permit(Some("ollama")), Err(RoutingError::UnknownBackend { name, .. }) if name == "ollama")
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
            assert_eq!(permit(None, extra).unwrap().model(), model, "{extra}");
            let defaulted = route_images(&backends(), &with_default, &image_request(None, extra)).unwrap();
            assert_eq!(defaulted.model(), model.or(Some("sd-xl")), "{extra}");
        }
    }

    #[test]
    fn delivery_is_what_was_asked_else_by_model_name_else_the_policy() {
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
            let demand = image_request(None, extra);
            let permit = |backends: &Backends, rules: &ImagesConfig| route_images(backends, rules, &demand);
            assert_eq!(permit(&backends(), &rules()).unwrap().response_format(), expected, "{extra}");
            let plain =
                permit(&url_only(), &rules()).map(|permitted| permitted.response_format()).map_err(|_| ());
            assert_eq!(plain, without_base64, "{extra}");
        }
        let streamed = route_images(&url_only(), &rules(), &image_request(None, r#","stream":true"#));
        assert_eq!(streamed.unwrap_err(), RoutingError::StreamingDisabled { class: "gpu_heavy".to_owned() });
        let off = ImagesConfig { gpt_aliases_base64: false, ..rules() };
        let demand = image_request(None, r#","model":"gpt-image-1""#);
        assert_eq!(route_images(&backends(), &off, &demand).unwrap().response_format(), ResponseFormat::Url);
    }
}
