//! Recent images, for responses that carry a URL instead of the bytes. In memory and bounded; the oldest goes first.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use picture::Format;
use sha2::{Digest, Sha256};

use crate::engine::GeneratedImage;

const MAX_BYTES: usize = 128 << 20;

#[derive(Debug, Default)]
pub(crate) struct ImageCache(Mutex<CachedImages>);

#[derive(Debug, Default)]
struct CachedImages {
    /// Newest last.
    images: VecDeque<(String, Bytes, Format)>,
    bytes: usize,
}

impl ImageCache {
    /// Keeps an image and returns its file name, which only someone who has the image can guess.
    pub(crate) fn insert(&self, image: &GeneratedImage) -> String {
        let hash = Sha256::digest(&image.bytes);
        let (short, _) = hash.split_first_chunk::<16>().expect("SHA-256 has 32 bytes");
        let name = format!("{:032x}.{}", u128::from_be_bytes(*short), image.format.extension());
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !cache.images.iter().any(|(cached, ..)| *cached == name) {
            cache.bytes += image.bytes.len();
            cache.images.push_back((name.clone(), image.bytes.clone(), image.format));
        }
        while cache.bytes > MAX_BYTES && cache.images.len() > 1 {
            if let Some((_, bytes, _)) = cache.images.pop_front() {
                cache.bytes -= bytes.len();
            }
        }
        name
    }

    pub(crate) fn get(&self, name: &str) -> Option<(Bytes, Format)> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let image = cache.images.iter().find(|(cached, ..)| cached == name);
        image.map(|(_, bytes, format)| (bytes.clone(), *format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(byte: u8, size: usize) -> GeneratedImage {
        GeneratedImage { bytes: vec![byte; size].into(), format: Format::Png, seed: 1 }
    }

    #[test]
    fn the_oldest_image_is_evicted() {
        let cache = ImageCache::default();
        let first = cache.insert(&image(1, MAX_BYTES / 2));
        let second = cache.insert(&image(2, MAX_BYTES / 2));
        assert_eq!(cache.insert(&image(2, MAX_BYTES / 2)), second, "the same image is kept once");
        assert!(cache.get(&first).is_some());
        let third = cache.insert(&image(3, 10));
        assert!(cache.get(&first).is_none() && cache.get(&second).is_some() && cache.get(&third).is_some());
    }
}
