//! Passes previews from an engine's events to jobs: only the newest, of bounded size, and only to subscribers. The events
//! themselves hold none, so that a thousand queued ones are small.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use picture::Format;

use super::Preview;

/// In bytes. The engines' previews have some ten thousand.
pub(super) const MAX_PREVIEW: usize = 8 << 20;

/// The newest preview of each subscribed item.
#[derive(Debug)]
pub(super) struct PreviewStore<K>(Mutex<HashMap<K, Option<Preview>>>);

impl<K> Default for PreviewStore<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
pub(super) struct PreviewSubscription<'a, K: Eq + Hash> {
    store: &'a PreviewStore<K>,
    keys: Vec<K>,
}

impl<K: Eq + Hash + Clone> PreviewStore<K> {
    /// Keeps the previews of these items from now on.
    pub(super) fn subscribe(&self, keys: impl IntoIterator<Item = K>) -> PreviewSubscription<'_, K> {
        let keys: Vec<_> = keys.into_iter().collect();
        self.lock().extend(keys.iter().map(|key| (key.clone(), None)));
        PreviewSubscription { store: self, keys }
    }

    /// Replaces an item's preview. `decode` is called only if there is a subscriber.
    pub(super) fn publish(&self, key: &K, decode: impl FnOnce() -> Option<Bytes>) {
        if !self.lock().contains_key(key) {
            return;
        }
        let bytes = decode().filter(|bytes| bytes.len() <= MAX_PREVIEW);
        let Some((bytes, format)) =
            bytes.and_then(|bytes| Format::detect(&bytes).ok().map(|format| (bytes, format)))
        else {
            return;
        };
        if let Some(slot) = self.lock().get_mut(key) {
            *slot = Some(Preview { bytes, format });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Option<Preview>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> PreviewSubscription<'_, K> {
    /// The newest preview since the last call.
    pub(super) fn take(&self, key: &K) -> Option<Preview> {
        self.store.lock().get_mut(key)?.take()
    }
}

impl<K: Eq + Hash> Drop for PreviewSubscription<'_, K> {
    fn drop(&mut self) {
        let mut previews = self.store.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            previews.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use picture::painter::ProceduralImage;
    use wire::openai::images::ImageSize;

    use super::*;

    fn png(seed: u64) -> Bytes {
        ProceduralImage { label: "x", prompt: "x", seed, size: ImageSize::new(8, 8) }.to_png().into()
    }

    #[test]
    fn only_the_newest_preview_and_only_for_subscribers() {
        let previews = PreviewStore::default();
        previews.publish(&1, || unreachable!("nobody wants it, so nobody decodes it"));
        let subscription = previews.subscribe([1, 2]);
        assert_eq!(subscription.take(&1), None);
        for seed in 0..1000 {
            previews.publish(&1, || Some(png(seed % 7)));
        }
        assert_eq!(subscription.take(&1).unwrap().bytes, png(999 % 7));
        assert_eq!((subscription.take(&1), subscription.take(&2)), (None, None), "each once");
        previews.publish(&2, || Some(png(1)));
        drop(subscription);
        assert!(previews.lock().is_empty());
    }

    #[test]
    fn invalid_or_large_previews_are_dropped() {
        let previews = PreviewStore::default();
        let subscription = previews.subscribe(["a"]);
        previews.publish(&"a", || Some(png(1)));
        for bytes in [None, Some(Bytes::from_static(b"<html>")), Some(vec![0; MAX_PREVIEW + 1].into())] {
            previews.publish(&"a", || bytes);
        }
        assert_eq!(subscription.take(&"a").unwrap().bytes, png(1));
    }
}
