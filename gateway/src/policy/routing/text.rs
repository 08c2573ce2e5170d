//! Where a request for words or numbers goes: where it says, else where its model is, else where such requests go by
//! default. One backend; should that one be down or full, no other is asked instead.

use std::sync::Arc;

use wire::openai::models::Model;

use super::{Routed, RoutingError, RoutingReason, is_class, unknown_backend};
use crate::config::{Backend, Backends, Capability, ImageEngine, RoutingConfig};

/// What decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoutingQuery<'a> {
    /// What is to be done.
    pub capability: Capability,
    /// The class or legacy name in `X-Backend`.
    pub backend: Option<&'a str>,
    /// The model by its name in the request.
    pub model: Option<&'a str>,
}

/// A backend and the models that it listed when it last answered.
pub(crate) type BackendModels = (Arc<Backend>, Arc<[Model]>);

/// Where it goes, and with which model.
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

/// The one backend that listed the model when it last answered, whether it is up now or not: one that is down keeps its
/// models, so that they go to no other. Those that cannot do what is asked count only where no other lists it: then the
/// caller is told.
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

/// What an alias of this backend means; its own default for no model or a class's name; else what was asked for.
fn upstream_model(
    backends: &Backends,
    routing: &RoutingConfig,
    backend: &Backend,
    requested: Option<&str>,
) -> Option<String> {
    let Some(asked) = requested else { return backend.default_model.clone() };
    let alias = routing.aliases.get(asked);
    let is_this_backend =
        |name: &str| backends.resolve(name).is_some_and(|meant| meant.class == backend.class);
    match alias.filter(|alias| is_this_backend(&alias.backend)) {
        Some(alias) => Some(alias.model.clone()),
        None if is_class(backends, asked) => backend.default_model.clone(),
        None => Some(asked.to_owned()),
    }
}

#[cfg(test)]
mod tests;
