//! Room: every class has a fixed number of places per capability, and a token may have a bound of its own over all of them.
//! Taken at once or not at all. There is no queue.

use std::{collections::BTreeMap, sync::Arc};

use service::slots::{SharedPermit, Slots};

use crate::{
    config::{Backends, Capability, Token},
    health::Ready,
    policy::routing::Routed,
};

/// All places.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: BTreeMap<(String, Capability), Arc<Slots>>,
    /// Of the tokens that are bounded, by name.
    tokens: BTreeMap<String, Arc<Slots>>,
}

/// The right to send one request to one backend once. Made by [`Admission::admit`] alone; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Grant {
    routed: Routed,
    slot: SharedPermit,
}

/// All places are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Those of the backend.
    Backend {
        /// The backend.
        class: String,
        /// Of what.
        capability: Capability,
    },
    /// Those that this token may have.
    Token {
        /// Its name.
        name: String,
        /// How many those are.
        limit: usize,
    },
}

impl Admission {
    /// The places that the backends' limits give.
    pub(crate) fn new(backends: &Backends, tokens: &[Arc<Token>]) -> Self {
        Self { slots: BTreeMap::new(), tokens: BTreeMap::new() }.reconfigured(backends, tokens)
    }

    /// The same after a reload. Who has a place keeps it, and counts under the new limit.
    pub(crate) fn reconfigured(&self, backends: &Backends, tokens: &[Arc<Token>]) -> Self {
        let slots = backends.all.iter().chain(&backends.mock).flat_map(|backend| {
            backend.limits.iter().map(|(capability, limit)| {
                let key = (backend.class.clone(), *capability);
                let slots = self.slots.get(&key).cloned().unwrap_or_else(|| Slots::new(*limit));
                slots.set_limit(*limit);
                (key, slots)
            })
        });
        let bounded = tokens.iter().filter_map(|token| Some((&token.name, token.max_concurrent?)));
        let tokens = bounded.map(|(name, max)| {
            let slots = self.tokens.get(name).cloned().unwrap_or_else(|| Slots::new(max));
            slots.set_limit(max);
            (name.clone(), slots)
        });
        Self { slots: slots.collect(), tokens: tokens.collect() }
    }

    /// A place now for whoever holds the token of this name, or none. Its own bound comes first: it is the one that this
    /// caller can do something about.
    pub(crate) fn admit(&self, ready: Ready, caller: Option<&str>) -> Result<Grant, Busy> {
        let own = match caller.and_then(|name| self.tokens.get_key_value(name)) {
            None => None,
            Some((name, slots)) => {
                let busy = || Busy::Token { name: name.clone(), limit: slots.limit() };
                Some(slots.try_acquire().ok_or_else(busy)?)
            }
        };
        let permitted = ready.into_routed();
        let key = (permitted.backend().class.clone(), permitted.capability());
        match self.slots.get(&key).and_then(Slots::try_acquire) {
            Some(permit) => Ok(Grant { routed: permitted, slot: SharedPermit::new(permit, own) }),
            None => Err(Busy::Backend { class: key.0, capability: key.1 }),
        }
    }

    /// Every token that has a bound of its own, and its places.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&str, &Slots)> {
        self.tokens.iter().map(|(name, slots)| (name.as_str(), slots.as_ref()))
    }

    /// Every class and capability, and its places.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = (&str, Capability, &Slots)> {
        self.slots.iter().map(|((class, capability), slots)| (class.as_str(), *capability, slots.as_ref()))
    }
}

impl Grant {
    /// What was permitted.
    pub(crate) fn routed(&self) -> &Routed {
        &self.routed
    }

    /// A share in the place, for work of the exchange that cannot be cancelled.
    pub(crate) fn slot(&self) -> SharedPermit {
        self.slot.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::routing::{
        route_images,
        tests::{backends, image_request, rules},
    };

    fn ready() -> Ready {
        Ready::assume_ready(route_images(&backends(), &rules(), &image_request(None, "")).unwrap())
    }

    #[test]
    fn the_limit_holds_and_a_dropped_grant_frees_its_place() {
        let admission = Admission::new(&backends(), &[]);
        let first = admission.admit(ready(), None).unwrap();
        let _second = admission.admit(ready(), Some("alice")).unwrap();
        let busy = Busy::Backend { class: "gpu_heavy".to_owned(), capability: Capability::Images };
        assert_eq!(admission.admit(ready(), None).unwrap_err(), busy);
        drop(first);
        assert!(admission.admit(ready(), None).is_ok());
    }

    fn bounded(name: &str, max: Option<usize>) -> Arc<Token> {
        let secret = service::secret::Secret::new("0123456789abcdef").unwrap();
        let mut token = Token::named(name, secret);
        token.max_concurrent = max;
        Arc::new(token)
    }

    #[test]
    fn a_bounded_token_leaves_room_for_others_and_a_reload_changes_its_bound() {
        let tokens = [bounded("alice", Some(1)), bounded("bob", None)];
        let admission = Admission::new(&backends(), &tokens);
        let first = admission.admit(ready(), Some("alice")).unwrap();
        let full = Busy::Token { name: "alice".to_owned(), limit: 1 };
        assert_eq!(admission.admit(ready(), Some("alice")).unwrap_err(), full);
        assert_eq!(
            admission.tokens().map(|(name, slots)| (name, slots.inflight())).collect::<Vec<_>>(),
            [("alice", 1)]
        );
        let second = admission.admit(ready(), Some("bob")).unwrap();
        let Err(Busy::Backend { .. }) = admission.admit(ready(), Some("bob")) else { panic!("it is full") };
        drop(second);
        let wider = admission.reconfigured(&backends(), &[bounded("alice", Some(2))]);
        let place = wider.admit(ready(), Some("alice")).unwrap().slot();
        let Err(Busy::Token { limit: 2, .. }) = wider.admit(ready(), Some("alice")) else {
            panic!("it is full")
        };
        drop(first);
        assert!(
            wider.admit(ready(), Some("alice")).is_ok(),
            "a place from before the reload counts, and is given back"
        );
        drop(place);
        let free = wider.reconfigured(&backends(), &tokens[1..]);
        let _both =
            [free.admit(ready(), Some("alice")).unwrap(), free.admit(ready(), Some("alice")).unwrap()];
        assert_eq!(free.tokens().count(), 0);
    }

    #[test]
    fn a_bound_is_the_persons_whichever_of_two_tokens_came() {
        let admission = Admission::new(&backends(), &[bounded("alice", Some(1)), bounded("alice", None)]);
        let _first = admission.admit(ready(), Some("alice")).unwrap();
        assert!(matches!(admission.admit(ready(), Some("alice")), Err(Busy::Token { limit: 1, .. })));
    }

    #[test]
    fn a_token_takes_no_place_of_its_own_where_the_backend_has_none() {
        let admission = Admission::new(&backends(), &[bounded("alice", Some(1))]);
        let _full = [admission.admit(ready(), None).unwrap(), admission.admit(ready(), None).unwrap()];
        for _ in 0..3 {
            let Err(Busy::Backend { .. }) = admission.admit(ready(), Some("alice")) else {
                panic!("it is full")
            };
        }
        assert!(admission.tokens().all(|(_, slots)| slots.inflight() == 0));
    }

    #[test]
    fn every_class_and_capability_has_its_own_places() {
        let admission = Admission::new(&backends(), &[]);
        let _one = admission.admit(ready(), None).unwrap();
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
