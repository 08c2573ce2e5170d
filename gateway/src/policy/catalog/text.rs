//! Where a request for words or numbers goes: where it says, else where its model is, else where such requests go by
//! default. One backend; should that one be down or full, no other is asked instead.

use std::sync::Arc;

use wire::openai::models::Model;

use super::{Denial, Permitted, Reason, is_class, unknown};
use crate::config::{Backend, Backends, Capability, ImageEngine, Routing};

/// What decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// What is to be done.
    pub capability: Capability,
    /// The class or legacy name in `X-Backend`.
    pub backend: Option<&'a str>,
    /// The model by its name in the request.
    pub model: Option<&'a str>,
}

/// A backend and the models that it listed when it last answered.
pub(crate) type Listed = (Arc<Backend>, Arc<[Model]>);

/// Where it goes, and with which model.
pub(crate) fn permit_text(
    backends: &Backends,
    routing: &Routing,
    lists: &[Listed],
    asked: Asked<'_>,
) -> Result<Permitted, Denial> {
    let (backend, reason) = choose(backends, routing, lists, asked)?;
    if !backend.limits.contains_key(&asked.capability) {
        return Err(Denial::Incapable {
            class: backend.class.clone(),
            capability: asked.capability,
            supported: backend.capabilities(),
        });
    }
    Ok(Permitted {
        engine: ImageEngine::Backend,
        capability: asked.capability,
        model: model(backends, routing, backend, asked.model),
        delivery: backend.images_format,
        reason,
        backend: backend.clone(),
    })
}

fn choose<'a>(
    backends: &'a Backends,
    routing: &Routing,
    lists: &'a [Listed],
    asked: Asked<'_>,
) -> Result<(&'a Arc<Backend>, Reason), Denial> {
    let named = |name: &str, reason| {
        backends.resolve(name).map(|backend| (backend, reason)).ok_or_else(|| unknown(backends, name))
    };
    if let Some(name) = asked.backend {
        return named(name, Reason::Header);
    }
    if let Some(model) = asked.model {
        if let Some(alias) = routing.aliases.get(model) {
            return named(&alias.backend, Reason::Alias);
        }
        if is_class(backends, model) {
            return named(model, Reason::Model);
        }
        if let Some(backend) = only_lister(lists, asked.capability, model) {
            return Ok((backend, Reason::Model));
        }
    }
    let able = |backend: &&Arc<Backend>| backend.limits.contains_key(&asked.capability);
    let default = routing.default.as_deref().and_then(|class| backends.find(class)).filter(able);
    let default = default.or_else(|| backends.all.iter().find(able));
    default.map(|backend| (backend, Reason::Default)).ok_or(Denial::NobodyAble(asked.capability))
}

/// The one backend that listed the model when it last answered, whether it is up now or not: one that is down keeps its
/// models, so that they go to no other. Those that cannot do what is asked count only where no other lists it: then the
/// caller is told.
fn only_lister<'a>(lists: &'a [Listed], capability: Capability, model: &str) -> Option<&'a Arc<Backend>> {
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
fn model(backends: &Backends, routing: &Routing, backend: &Backend, asked: Option<&str>) -> Option<String> {
    let Some(asked) = asked else { return backend.default_model.clone() };
    let alias = routing.aliases.get(asked);
    let here = |name: &str| backends.resolve(name).is_some_and(|meant| meant.class == backend.class);
    match alias.filter(|alias| here(&alias.backend)) {
        Some(alias) => Some(alias.model.clone()),
        None if is_class(backends, asked) => backend.default_model.clone(),
        None => Some(asked.to_owned()),
    }
}

#[cfg(test)]
mod tests;
