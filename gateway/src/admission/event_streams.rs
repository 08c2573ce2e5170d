//! How many event streams are open: bounded per token and in all, because each is a connection that stays.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use service::slots::{SharedPermit, Slots};

use super::Busy;

const MAX_STREAMS: usize = 64;
const MAX_PER_TOKEN: usize = 16;

/// All event streams, across reloads. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct EventStreams {
    all: Arc<Slots>,
    /// By the token's name.
    by_token: Arc<Mutex<HashMap<String, Arc<Slots>>>>,
}

impl Default for EventStreams {
    fn default() -> Self {
        Self { all: Slots::new(MAX_STREAMS), by_token: Arc::default() }
    }
}

impl EventStreams {
    /// One more stream, until the permit is dropped. Without tokens only the total is bounded.
    pub(crate) fn open(&self, token: Option<&str>) -> Result<SharedPermit, Busy> {
        let busy = |token: Option<&str>, limit| Busy::Streams { token: token.map(str::to_owned), limit };
        let own = match token {
            None => None,
            Some(name) => {
                let mut by_token = self.by_token.lock().unwrap_or_else(PoisonError::into_inner);
                by_token.retain(|_, slots| slots.inflight() > 0);
                let slots = by_token.entry(name.to_owned()).or_insert_with(|| Slots::new(MAX_PER_TOKEN));
                Some(slots.try_acquire().ok_or_else(|| busy(token, MAX_PER_TOKEN))?)
            }
        };
        let permit = self.all.try_acquire().ok_or_else(|| busy(None, MAX_STREAMS))?;
        Ok(SharedPermit::new(permit, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_bounded_per_token_and_in_all_and_closing_one_makes_room() {
        let streams = EventStreams::default();
        let open = |token| streams.open(token);
        let mut alice: Vec<_> = (0..MAX_PER_TOKEN).map(|_| open(Some("alice")).unwrap()).collect();
        let full = Busy::Streams { token: Some("alice".to_owned()), limit: MAX_PER_TOKEN };
        assert_eq!(open(Some("alice")).unwrap_err(), full);
        let others: Vec<_> = (MAX_PER_TOKEN..MAX_STREAMS).map(|_| open(None).unwrap()).collect();
        let all_open = Busy::Streams { token: None, limit: MAX_STREAMS };
        assert_eq!(open(Some("bob")).unwrap_err(), all_open);
        alice.pop();
        let _bob = open(Some("bob")).unwrap();
        assert_eq!(open(Some("alice")).unwrap_err(), all_open);
        drop((alice, others));
        assert!(open(Some("carol")).is_ok());
        assert_eq!(streams.by_token.lock().unwrap().len(), 2, "bob, and carol from just now");
    }
}
