use super::{super::tests::backends, *};
use crate::config::{ModelAlias, backends::tests::backend};

mod model;

/// `local_mlx`, `gpu_heavy`, and `gpu_fast`, which has a default model; `mlx` and `fast` are legacy names, `ollama` one whose
/// class no longer exists.
fn three_backends() -> Backends {
    let mut all = backends();
    let mut fast = (*backend("gpu_fast", &[(Capability::Chat, 1)])).clone();
    fast.default_model = Some("fast-7b".to_owned());
    all.all.push(Arc::new(fast));
    for (name, class) in [("fast", "gpu_fast"), ("ollama", "removed")] {
        all.legacy_names.insert(name.to_owned(), class.to_owned());
    }
    all
}

fn routing(default: Option<&str>) -> RoutingConfig {
    let alias = |name: &str, backend: &str, model: &str| {
        (name.to_owned(), ModelAlias { backend: backend.to_owned(), model: model.to_owned() })
    };
    let aliases = [
        alias("coder", "mlx", "qwen-coder"),
        alias("quick", "gpu_fast", "fast-1b"),
        alias("lost", "ollama", "llama"),
        alias("gpu_heavy", "local_mlx", "an alias comes before a class"),
    ];
    RoutingConfig { aliases: aliases.into_iter().collect(), default: default.map(str::to_owned) }
}

fn lists(backends: &Backends) -> Vec<BackendModels> {
    let ids = |class: &str| match class {
        "local_mlx" => vec!["qwen", "both", "qwen-coder"],
        "gpu_fast" => vec!["fast-7b", "both", "embedder"],
        _ => vec!["sd-xl", "embedder"],
    };
    let list = |backend: &Arc<Backend>| {
        let models = ids(&backend.class).into_iter().map(|id| Model::new(id, 0, backend.class.as_str()));
        (backend.clone(), models.collect())
    };
    backends.all.iter().map(list).collect()
}

fn route(
    capability: Capability,
    backend: Option<&str>,
    model: Option<&str>,
    default: Option<&str>,
) -> Result<(String, Option<String>, &'static str), RoutingError> {
    let backends = three_backends();
    let query = RoutingQuery { capability, backend, model };
    route_text(&backends, &routing(default), &lists(&backends), query)
        .map(|routed| (routed.backend().class.clone(), routed.model().map(str::to_owned), routed.reason()))
}

#[test]
fn the_first_rule_that_applies_decides() {
    for (header, model, class, sent, reason) in [
        // X-Backend, whatever the model says.
        (Some("gpu_fast"), Some("qwen"), "gpu_fast", Some("qwen"), "header:x-backend"),
        (Some("mlx"), Some("any"), "local_mlx", Some("any"), "header:x-backend"),
        (Some("mlx"), None, "local_mlx", None, "header:x-backend"),
        (Some("fast"), None, "gpu_fast", Some("fast-7b"), "header:x-backend"),
        (Some("gpu_fast"), Some("local_mlx"), "gpu_fast", Some("fast-7b"), "header:x-backend"),
        (Some("gpu_fast"), Some("quick"), "gpu_fast", Some("fast-1b"), "header:x-backend"),
        (Some("gpu_fast"), Some("coder"), "gpu_fast", Some("coder"), "header:x-backend"),
        // An alias.
        (None, Some("coder"), "local_mlx", Some("qwen-coder"), "alias"),
        (None, Some("quick"), "gpu_fast", Some("fast-1b"), "alias"),
        (None, Some("gpu_heavy"), "local_mlx", Some("an alias comes before a class"), "alias"),
        // A class or legacy name.
        (None, Some("local_mlx"), "local_mlx", None, "model"),
        (None, Some("mlx"), "local_mlx", None, "model"),
        (None, Some("gpu_fast"), "gpu_fast", Some("fast-7b"), "model"),
        // A model that one backend lists.
        (None, Some("qwen"), "local_mlx", Some("qwen"), "model"),
        (None, Some("fast-7b"), "gpu_fast", Some("fast-7b"), "model"),
        (None, Some("embedder"), "gpu_fast", Some("embedder"), "model"),
        // None of these.
        (None, Some("both"), "local_mlx", Some("both"), "default"),
        (None, Some("gpt-4o"), "local_mlx", Some("gpt-4o"), "default"),
        (None, Some("QWEN"), "local_mlx", Some("QWEN"), "default"),
        (None, None, "local_mlx", None, "default"),
    ] {
        let expected = (class.to_owned(), sent.map(str::to_owned), reason);
        assert_eq!(route(Capability::Chat, header, model, None), Ok(expected), "{header:?} {model:?}");
    }
}

#[test]
fn the_default_backend_is_the_configured_one_if_it_is_capable() {
    for (capability, default, class) in [
        (Capability::Chat, Some("gpu_fast"), "gpu_fast"),
        (Capability::Chat, Some("local_mlx"), "local_mlx"),
        (Capability::Chat, None, "local_mlx"),
        (Capability::Embeddings, Some("gpu_fast"), "local_mlx"),
    ] {
        let chosen = route(capability, None, Some("gpt-4o"), default).unwrap();
        assert_eq!((chosen.0.as_str(), chosen.2), (class, "default"), "{capability} {default:?}");
    }
}

#[test]
fn an_incapable_backend_is_an_error_without_fallback() {
    for (capability, header, model, class) in [
        (Capability::Chat, Some("gpu_heavy"), None, "gpu_heavy"),
        (Capability::Chat, None, Some("sd-xl"), "gpu_heavy"),
        (Capability::Embeddings, Some("gpu_fast"), Some("qwen"), "gpu_fast"),
        (Capability::Embeddings, None, Some("gpu_fast"), "gpu_fast"),
        (Capability::Embeddings, None, Some("quick"), "gpu_fast"),
        (Capability::Embeddings, None, Some("fast-7b"), "gpu_fast"),
    ] {
        match route(capability, header, model, None) {
            Err(RoutingError::UnsupportedCapability {
                class: error_class,
                capability: error_capability,
                supported,
            }) => {
                assert_eq!((error_class.as_str(), error_capability), (class, capability));
                assert!(!supported.contains(&capability.to_string()));
            }
            other => panic!("{header:?} {model:?}: {other:?}"),
        }
    }
}

#[test]
fn an_unknown_name_is_rejected() {
    for (header, model) in
        [(Some("nobody"), Some("qwen")), (Some("ollama"), None), (None, Some("ollama")), (None, Some("lost"))]
    {
        let error = route(Capability::Chat, header, model, None).unwrap_err();
        assert!(matches!(error, RoutingError::UnknownBackend { .. }), "{header:?} {model:?}: {error:?}");
    }
}

#[test]
fn without_a_capable_backend_the_error_says_so() {
    let mut backends = backends();
    backends.all.retain(|backend| backend.class == "gpu_heavy");
    let query = RoutingQuery { capability: Capability::Chat, backend: None, model: Some("gpt-4o") };
    let error = route_text(&backends, &RoutingConfig::default(), &[], query).unwrap_err();
    assert_eq!(error, RoutingError::NoCapableBackend(Capability::Chat));
}

#[test]
fn routing_depends_on_no_earlier_request() {
    let request = || route(Capability::Chat, None, Some("both"), None);
    let first = request();
    assert!((0..20).all(|_| request() == first));
}
