//! Room: every class has a fixed number of places per capability, taken at once or not at all. There is no queue.

use std::{collections::BTreeMap, sync::Arc};

use shared::service::slots::{Place, Slots};

use super::catalog::Permitted;
use crate::{
    config::{Backends, Capability},
    health::Live,
};

/// All places.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: BTreeMap<(String, Capability), Arc<Slots>>,
}

/// The right to send one request to one backend once. Made by [`Admission::enter`] alone; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Grant {
    permitted: Permitted,
    place: Place,
}

/// All places are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Busy {
    /// The backend.
    pub class: String,
    /// Of what.
    pub capability: Capability,
}

impl Admission {
    /// The places that the backends' limits give.
    pub(crate) fn new(backends: &Backends) -> Self {
        Self { slots: BTreeMap::new() }.succeeded_by(backends)
    }

    /// The same after a reload. Who has a place keeps it, and counts under the new limit.
    pub(crate) fn succeeded_by(&self, backends: &Backends) -> Self {
        let slots = backends.all.iter().flat_map(|backend| {
            backend.limits.iter().map(|(capability, limit)| {
                let key = (backend.class.clone(), *capability);
                let slots = self.slots.get(&key).cloned().unwrap_or_else(|| Slots::new(*limit));
                slots.set_limit(*limit);
                (key, slots)
            })
        });
        Self { slots: slots.collect() }
    }

    /// A place now, or none.
    pub(crate) fn enter(&self, live: Live) -> Result<Grant, Busy> {
        let permitted = live.into_permitted();
        let key = (permitted.backend().class.clone(), permitted.capability());
        match self.slots.get(&key).and_then(Slots::try_enter) {
            Some(permit) => Ok(Grant { permitted, place: permit.into() }),
            None => Err(Busy { class: key.0, capability: key.1 }),
        }
    }

    /// Every class and capability, and its places.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = (&str, Capability, &Slots)> {
        self.slots.iter().map(|((class, capability), slots)| (class.as_str(), *capability, slots.as_ref()))
    }
}

impl Grant {
    /// What was permitted.
    pub(crate) fn permitted(&self) -> &Permitted {
        &self.permitted
    }

    /// A share in the place, for work of the exchange that cannot be cancelled.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::catalog::{
        permit_images,
        tests::{backends, demand, rules},
    };

    fn live() -> Live {
        Live::untested(permit_images(&backends(), &rules(), &demand(None, "")).unwrap())
    }

    #[test]
    fn the_limit_holds_and_a_dropped_grant_frees_its_place() {
        let admission = Admission::new(&backends());
        let first = admission.enter(live()).unwrap();
        let _second = admission.enter(live()).unwrap();
        let busy = Busy { class: "gpu_heavy".to_owned(), capability: Capability::Images };
        assert_eq!(admission.enter(live()).unwrap_err(), busy);
        drop(first);
        assert!(admission.enter(live()).is_ok());
    }

    #[test]
    fn every_class_and_capability_has_its_own_places() {
        let admission = Admission::new(&backends());
        let _one = admission.enter(live()).unwrap();
        let seen: Vec<_> = admission
            .snapshot()
            .map(|(class, capability, slots)| (class, capability, slots.limit(), slots.inflight()))
            .collect();
        let expected = [
            ("gpu_heavy", Capability::Images, 2, 1),
            ("local_mlx", Capability::Chat, 2, 0),
            ("local_mlx", Capability::Embeddings, 2, 0),
        ];
        assert_eq!(seen, expected);
    }
}
