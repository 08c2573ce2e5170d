//! Whether a request may be sent now: its backend is ready, and a slot is free. Each backend has a fixed number of slots per
//! capability, and a token may have a limit across all of them. There is no queue.

pub(crate) mod event_streams;

use std::{collections::BTreeMap, sync::Arc};

use service::slots::{SharedPermit, Slots};

use crate::{
    config::{Backends, Capability, ImageEngine, Token},
    health::Monitors,
    policy::Routed,
};

/// A routed request whose backend is ready. Only [`require_ready`] makes one.
#[derive(Debug)]
pub(crate) struct Ready(Routed);

/// The backend is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotReady {
    pub(crate) class: String,
    /// The backend's own failing checks, or how the probe failed.
    pub(crate) error: String,
}

/// Whether the backend is ready, as last probed or as a request found it. The mock always is.
pub(crate) fn require_ready(health: &Monitors, routed: Routed) -> Result<Ready, NotReady> {
    if routed.engine() == ImageEngine::Mock {
        return Ok(Ready(routed));
    }
    let class = &routed.backend().class;
    match health.error(class) {
        None => Ok(Ready(routed)),
        Some(error) => Err(NotReady { class: class.clone(), error }),
    }
}

#[cfg(test)]
impl Ready {
    pub(crate) fn assume(routed: Routed) -> Self {
        Self(routed)
    }
}

/// Of a token without a limit.
const UNLIMITED: usize = usize::MAX;

/// All slots.
#[derive(Debug)]
pub(crate) struct Admission {
    slots: SlotTable<(String, Capability)>,
    /// Of the tokens, by name.
    tokens: SlotTable<String>,
}

#[derive(Debug)]
struct SlotTable<K> {
    configured: BTreeMap<K, Arc<Slots>>,
    /// Of earlier configurations. They may still be in use when they are configured again.
    former: BTreeMap<K, Arc<Slots>>,
}

/// The right to send one request to one backend once. Only [`Admission::admit`] makes one; dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Grant {
    routed: Routed,
    slot: SharedPermit,
}

/// All slots are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Those of the backend.
    Backend { class: String, capability: Capability },
    /// Those of the token.
    Token { name: String, limit: usize },
    /// All event streams are open: of the token, or of all clients.
    Streams { token: Option<String>, limit: usize },
}

impl Admission {
    /// The slots that the configured limits give.
    pub(crate) fn new(backends: &Backends, tokens: &[Arc<Token>]) -> Self {
        Self { slots: SlotTable::new(), tokens: SlotTable::new() }.reconfigured(backends, tokens)
    }

    /// The same after a reload. Requests in flight keep their slots and count towards the new limits, those of a later reload
    /// included.
    pub(crate) fn reconfigured(&self, backends: &Backends, tokens: &[Arc<Token>]) -> Self {
        let slots = backends.all.iter().chain(&backends.mock).flat_map(|backend| {
            let key = |capability: &Capability| (backend.class.clone(), *capability);
            backend.limits.iter().map(move |(capability, limit)| (key(capability), *limit))
        });
        let mut tokens_by_name = BTreeMap::new();
        for token in tokens {
            let limit = token.max_concurrent.unwrap_or(UNLIMITED);
            let lowest = tokens_by_name.entry(token.name.clone()).or_insert(limit);
            *lowest = limit.min(*lowest);
        }
        Self {
            slots: self.slots.with_limits(slots.collect()),
            tokens: self.tokens.with_limits(tokens_by_name),
        }
    }

    /// Takes a slot at once, or none. The token's own limit is checked first, because this client can do something about it.
    pub(crate) fn admit(&self, ready: Ready, token: Option<&str>) -> Result<Grant, Busy> {
        let token_permit = match token.and_then(|name| self.tokens.configured.get_key_value(name)) {
            None => None,
            Some((name, slots)) => {
                let busy = || Busy::Token { name: name.clone(), limit: slots.limit() };
                Some(slots.try_acquire().ok_or_else(busy)?)
            }
        };
        let Ready(routed) = ready;
        let key = (routed.backend().class.clone(), routed.capability());
        match self.slots.configured.get(&key).and_then(Slots::try_acquire) {
            Some(permit) => Ok(Grant { routed, slot: SharedPermit::new(permit, token_permit) }),
            None => Err(Busy::Backend { class: key.0, capability: key.1 }),
        }
    }

    /// The slots of every token that has a limit.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = (&str, &Slots)> {
        let all = self.tokens.configured.iter().map(|(name, slots)| (name.as_str(), slots.as_ref()));
        all.filter(|(_, slots)| slots.limit() != UNLIMITED)
    }

    /// The slots of every class and capability.
    pub(crate) fn snapshot(&self) -> impl Iterator<Item = (&str, Capability, &Slots)> {
        let all = self.slots.configured.iter();
        all.map(|((class, capability), slots)| (class.as_str(), *capability, slots.as_ref()))
    }
}

impl<K: Ord + Clone> SlotTable<K> {
    const fn new() -> Self {
        Self { configured: BTreeMap::new(), former: BTreeMap::new() }
    }

    /// The same slots with these limits.
    fn with_limits(&self, limits: BTreeMap<K, usize>) -> Self {
        let mut former = self.former.clone();
        former.extend(self.configured.clone());
        let configure = |(key, limit)| {
            let slots = former.remove(&key).unwrap_or_else(|| Slots::new(limit));
            slots.set_limit(limit);
            (key, slots)
        };
        Self { configured: limits.into_iter().map(configure).collect(), former }
    }
}

impl Grant {
    pub(crate) fn routed(&self) -> &Routed {
        &self.routed
    }

    /// A share in the slot, for work of the exchange that cannot be cancelled.
    pub(crate) fn slot(&self) -> SharedPermit {
        self.slot.clone()
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{ImagesConfig, ProbeRules},
        health::model_cache::ModelCache,
        metrics::Metrics,
        policy::{
            route_images,
            tests::{backends, image_request, rules},
        },
        store::disk::tests::temporary,
    };

    fn ready() -> Ready {
        Ready::assume(route_images(&backends(), &rules(), &image_request(None, "")).unwrap())
    }

    #[test]
    fn a_backend_that_was_not_probed_yet_is_not_ready_and_the_mock_always_is() {
        let second = std::time::Duration::from_secs(1);
        let probes = ProbeRules { interval: second, timeout: second, threshold: 3 };
        let cache = ModelCache::open(&temporary("require-ready"));
        let health = Monitors::new(&backends(), probes, &Arc::new(Metrics::new([])), cache);
        let ready = |engine| {
            let rules = ImagesConfig { engine, ..rules() };
            require_ready(&health, route_images(&backends(), &rules, &image_request(None, "")).unwrap())
        };
        assert_eq!(ready(ImageEngine::Backend).unwrap_err().class, "gpu_heavy");
        assert!(ready(ImageEngine::Mock).is_ok());
    }

    #[test]
    fn the_limit_holds_and_a_dropped_grant_frees_its_slot() {
        let admission = Admission::new(&backends(), &[]);
        let first = admission.admit(ready(), None).unwrap();
        let _second = admission.admit(ready(), Some("alice")).unwrap();
        let busy = Busy::Backend { class: "gpu_heavy".to_owned(), capability: Capability::Images };
        assert_eq!(admission.admit(ready(), None).unwrap_err(), busy);
        drop(first);
        assert!(admission.admit(ready(), None).is_ok());
    }

    pub(super) fn limited(name: &str, max: Option<usize>) -> Arc<Token> {
        let secret = service::secret::Secret::new("0123456789abcdef").unwrap();
        let mut token = Token::named(name, secret);
        token.max_concurrent = max;
        Arc::new(token)
    }

    #[test]
    fn a_limited_token_leaves_room_for_others_and_a_reload_changes_its_limit() {
        let tokens = [limited("alice", Some(1)), limited("bob", None)];
        let admission = Admission::new(&backends(), &tokens);
        let first = admission.admit(ready(), Some("alice")).unwrap();
        let full = Busy::Token { name: "alice".to_owned(), limit: 1 };
        assert_eq!(admission.admit(ready(), Some("alice")).unwrap_err(), full);
        assert_eq!(
            admission.tokens().map(|(name, slots)| (name, slots.inflight())).collect::<Vec<_>>(),
            [("alice", 1)]
        );
        let second = admission.admit(ready(), Some("bob")).unwrap();
        let Err(Busy::Backend { .. }) = admission.admit(ready(), Some("bob")) else {
            panic!("no slot is free")
        };
        drop(second);
        let wider = admission.reconfigured(&backends(), &[limited("alice", Some(2))]);
        let slot = wider.admit(ready(), Some("alice")).unwrap().slot();
        let Err(Busy::Token { limit: 2, .. }) = wider.admit(ready(), Some("alice")) else {
            panic!("no slot is free")
        };
        drop(first);
        assert!(
            wider.admit(ready(), Some("alice")).is_ok(),
            "a slot from before the reload counts, and is released"
        );
        drop(slot);
        let free = wider.reconfigured(&backends(), &tokens[1..]);
        let _both =
            [free.admit(ready(), Some("alice")).unwrap(), free.admit(ready(), Some("alice")).unwrap()];
        assert_eq!(free.tokens().count(), 0);
    }

    #[test]
    fn two_tokens_of_one_name_share_a_limit() {
        let admission = Admission::new(&backends(), &[limited("alice", Some(1)), limited("alice", None)]);
        let _first = admission.admit(ready(), Some("alice")).unwrap();
        assert!(matches!(admission.admit(ready(), Some("alice")), Err(Busy::Token { limit: 1, .. })));
    }

    #[test]
    fn a_token_takes_no_slot_when_the_backend_has_none() {
        let admission = Admission::new(&backends(), &[limited("alice", Some(1))]);
        let _full = [admission.admit(ready(), None).unwrap(), admission.admit(ready(), None).unwrap()];
        for _ in 0..3 {
            let Err(Busy::Backend { .. }) = admission.admit(ready(), Some("alice")) else {
                panic!("no slot is free")
            };
        }
        assert!(admission.tokens().all(|(_, slots)| slots.inflight() == 0));
    }

    #[test]
    fn every_class_and_capability_has_its_own_slots() {
        let admission = Admission::new(&backends(), &[]);
        let _one = admission.admit(ready(), None).unwrap();
        let snapshot: Vec<_> = admission
            .snapshot()
            .map(|(class, capability, slots)| (class, capability, slots.limit(), slots.inflight()))
            .collect();
        let expected = [
            ("gpu_heavy", Capability::Images, 2, 1),
            ("local_mlx", Capability::Chat, 2, 0),
            ("local_mlx", Capability::Embeddings, 2, 0),
        ];
        assert_eq!(snapshot, expected);
    }
}
