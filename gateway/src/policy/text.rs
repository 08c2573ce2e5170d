//! Which backend a request for text or embeddings goes to: the one it names, else the one with its model, else the default. If
//! that backend is down or busy, there is no fallback.

use std::sync::Arc;

use wire::openai::models::Model;

use super::{Routed, RoutingError, RoutingReason, is_class, unknown_backend};
use crate::config::{Backend, Backends, Capability, ImageEngine, RoutingConfig};

#[derive(Debug, Clone, Copy)]
pub(crate) struct RoutingQuery<'a> {
    pub capability: Capability,
    /// The class or legacy name in `X-Backend`.
    pub backend: Option<&'a str>,
    pub model: Option<&'a str>,
}

/// A backend and the models that it listed last.
pub(crate) type BackendModels = (Arc<Backend>, Arc<[Model]>);

/// Decides backend and model.
pub(crate) fn route_text(
    backends: &Backends,
    routing: &RoutingConfig,
    lists: &[BackendModels],
    query: RoutingQuery<'_>,
) -> Result<Routed, RoutingError> {
    let (backend, reason) = choose(backends, routing, lists, query)?;
    if !backend.limits.contains_key(&query.capability) {
        return Err(RoutingError::UnsupportedCapability {
            class: backend.class.clone(),
            capability: query.capability,
            supported: backend.capabilities(),
        });
    }
    Ok(Routed {
        engine: ImageEngine::Backend,
        capability: query.capability,
        model: upstream_model(backends, routing, backend, query.model),
        response_format: backend.images_format,
        reason,
        backend: backend.clone(),
    })
}

fn choose<'a>(
    backends: &'a Backends,
    routing: &RoutingConfig,
    lists: &'a [BackendModels],
    query: RoutingQuery<'_>,
) -> Result<(&'a Arc<Backend>, RoutingReason), RoutingError> {
    let resolve = |name: &str, reason| {
        backends.resolve(name).map(|backend| (backend, reason)).ok_or_else(|| unknown_backend(backends, name))
    };
    if let Some(name) = query.backend {
        return resolve(name, RoutingReason::Header);
    }
    if let Some(model) = query.model {
        if let Some(alias) = routing.aliases.get(model) {
            return resolve(&alias.backend, RoutingReason::Alias);
        }
        if is_class(backends, model) {
            return resolve(model, RoutingReason::Model);
        }
        if let Some(backend) = sole_provider(lists, query.capability, model) {
            return Ok((backend, RoutingReason::Model));
        }
    }
    let able = |backend: &&Arc<Backend>| backend.limits.contains_key(&query.capability);
    let default = routing.default.as_deref().and_then(|class| backends.find(class)).filter(able);
    let default = default.or_else(|| backends.all.iter().find(able));
    default
        .map(|backend| (backend, RoutingReason::Default))
        .ok_or(RoutingError::NoCapableBackend(query.capability))
}

/// The one backend that lists the model, up or not: a backend that is down keeps its models, so that requests for them go to no
/// other. Backends without the capability count only if no other lists the model, so that the client learns the reason.
fn sole_provider<'a>(
    lists: &'a [BackendModels],
    capability: Capability,
    model: &str,
) -> Option<&'a Arc<Backend>> {
    let listers = lists.iter().filter(|(_, models)| models.iter().any(|listed| listed.id == model));
    let listers: Vec<_> = listers.map(|(backend, _)| backend).collect();
    let able = listers.iter().filter(|backend| backend.limits.contains_key(&capability));
    let able: Vec<_> = able.copied().collect();
    match if able.is_empty() { listers } else { able }.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

/// The model of an alias of this backend; the backend's default for none or a class name; else the requested one.
fn upstream_model(
    backends: &Backends,
    routing: &RoutingConfig,
    backend: &Backend,
    requested: Option<&str>,
) -> Option<String> {
    let Some(requested) = requested else { return backend.default_model.clone() };
    let alias = routing.aliases.get(requested);
    let is_this_backend =
        |name: &str| backends.resolve(name).is_some_and(|resolved| resolved.class == backend.class);
    match alias.filter(|alias| is_this_backend(&alias.backend)) {
        Some(alias) => Some(alias.model.clone()),
        None if is_class(backends, requested) => backend.default_model.clone(),
        None => Some(requested.to_owned()),
    }
}

#[cfg(test)]
mod tests;
