//! Requests and reloads in any order, against a model that only counts the grants that are held.

use proptest::prelude::*;

use super::{tests::limited, *};
use crate::{
    config::backends::tests::backend,
    policy::{
        route_images,
        tests::{image_request, rules},
    },
};

#[derive(Debug, Clone)]
enum Operation {
    /// A request of this token.
    Admit(Option<&'static str>),
    /// Another share in the slot of a grant.
    Share(usize),
    /// A request or a share in it ends, in any order.
    Drop(usize),
    /// A reload: the backend's slots, and how many each token has at most. With 0 slots the backend is gone.
    Reload(usize, [Option<usize>; 2]),
}

const TOKENS: [&str; 2] = ["alice", "bob"];

fn any_operation() -> impl Strategy<Value = Operation> {
    let token = prop::sample::select(vec![None, Some(TOKENS[0]), Some(TOKENS[1]), Some("unlimited")]);
    let max = || prop::option::of(1..3_usize);
    prop_oneof![
        6 => token.prop_map(Operation::Admit),
        1 => any::<usize>().prop_map(Operation::Share),
        4 => any::<usize>().prop_map(Operation::Drop),
        2 => (0..4_usize, [max(), max()]).prop_map(|(slots, tokens)| Operation::Reload(slots, tokens)),
    ]
}

/// Who holds a slot, and how many shares in it are left.
#[derive(Debug)]
struct Held {
    token: Option<&'static str>,
    shares: usize,
}

#[derive(Debug)]
struct Model {
    slots: usize,
    tokens: [Option<usize>; 2],
    held: Vec<Held>,
}

impl Model {
    fn max(&self, token: Option<&str>) -> Option<usize> {
        self.tokens[TOKENS.iter().position(|other| Some(*other) == token)?]
    }

    fn taken(&self) -> usize {
        self.held.len()
    }

    fn taken_by(&self, token: &str) -> usize {
        self.held.iter().filter(|held| held.token == Some(token)).count()
    }

    fn admits(&self, token: Option<&'static str>) -> Result<(), Busy> {
        if let (Some(name), Some(limit)) = (token, self.max(token))
            && self.taken_by(name) >= limit
        {
            return Err(Busy::Token { name: name.to_owned(), limit });
        }
        if self.taken() >= self.slots {
            return Err(Busy::Backend { class: "gpu_heavy".to_owned(), capability: Capability::Images });
        }
        Ok(())
    }
}

fn configuration(slots: usize, tokens: [Option<usize>; 2]) -> (Backends, Vec<Arc<Token>>) {
    let limits = [(Capability::Images, slots)];
    let all = if slots > 0 { vec![backend("gpu_heavy", &limits)] } else { Vec::new() };
    let tokens = TOKENS.iter().zip(tokens).map(|(name, max)| limited(name, max)).collect();
    (Backends { all, ..Backends::default() }, tokens)
}

fn ready() -> Ready {
    let (backends, _) = configuration(1, [None; 2]);
    Ready::assume(route_images(&backends, &rules(), &image_request(None, "")).unwrap())
}

proptest! {
    #[test]
    fn slots_are_never_exceeded_and_never_lost(operations in prop::collection::vec(any_operation(), 1..80)) {
        let (backends, tokens) = configuration(2, [Some(1), None]);
        let mut admission = Admission::new(&backends, &tokens);
        let mut model = Model { slots: 2, tokens: [Some(1), None], held: Vec::new() };
        let mut shares: Vec<Vec<SharedPermit>> = Vec::new();
        for operation in operations {
            match operation {
                Operation::Admit(token) => {
                    let admitted = admission.admit(ready(), token);
                    prop_assert_eq!(admitted.as_ref().map(drop).map_err(Clone::clone), model.admits(token));
                    if let Ok(grant) = admitted {
                        shares.push(vec![grant.slot()]);
                        model.held.push(Held { token, shares: 1 });
                    }
                }
                Operation::Share(nth) if !shares.is_empty() => {
                    let nth = nth % shares.len();
                    let share = shares[nth][0].clone();
                    shares[nth].push(share);
                    model.held[nth].shares += 1;
                }
                Operation::Drop(nth) if !shares.is_empty() => {
                    let nth = nth % shares.len();
                    shares[nth].pop();
                    model.held[nth].shares -= 1;
                    shares.retain(|shares| !shares.is_empty());
                    model.held.retain(|held| held.shares > 0);
                }
                Operation::Share(_) | Operation::Drop(_) => {}
                Operation::Reload(slots, limits) => {
                    let (backends, tokens) = configuration(slots, limits);
                    admission = admission.reconfigured(&backends, &tokens);
                    (model.slots, model.tokens) = (slots, limits);
                }
            }
            for (_, _, slots) in admission.snapshot() {
                prop_assert_eq!((slots.limit(), slots.inflight()), (model.slots, model.taken()));
            }
            for (name, slots) in admission.tokens() {
                prop_assert_eq!((Some(slots.limit()), slots.inflight()), (model.max(Some(name)), model.taken_by(name)));
            }
        }
        drop(shares);
        prop_assert!(admission.snapshot().all(|(_, _, slots)| slots.inflight() == 0), "none is lost");
        prop_assert!(admission.tokens().all(|(_, slots)| slots.inflight() == 0), "none is lost");
    }
}
